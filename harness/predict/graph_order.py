"""The order in which Vulkan computes a piece of the graph: what waits for nothing first, what is fused together.

Source: llama.cpp, ``ggml_vk_graph_optimize``.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from harness.predict.graph import Node

_AHEAD: Final = 20
"""So far it looks for nodes that wait for nothing."""
_ROWS: Final = [
    row.split()
    for row in """SOFT_MAX VIEW ARGSORT VIEW GET_ROWS VIEW SUM_ROWS CLAMP DIV VIEW
        UNARY VIEW ADD ARGSORT VIEW GET_ROWS VIEW SUM_ROWS CLAMP DIV VIEW
        SOFT_MAX VIEW ARGSORT VIEW GET_ROWS
        ARGSORT VIEW GET_ROWS VIEW SOFT_MAX VIEW
        RMS_NORM MUL ADD MUL
        RMS_NORM MUL ADD
        RMS_NORM MUL ROPE VIEW SET_ROWS
        RMS_NORM VIEW SET_ROWS
        ROPE VIEW SET_ROWS""".splitlines()
]
_PAIRS: Final = {"RMS_NORM MUL", "UNARY MUL"}
_NEIGHBOURS: Final = {
    "MUL_MAT ADD", "MUL_MAT_ID ADD_ID", "MUL_MAT_ID MUL", "ADD ADD", "SSM_CONV ADD", "SSM_CONV UNARY"
}  # fmt: skip
"""What it fuses: rows that stay together; two of which the second may be taken with the first that it needs, with views
between them or without."""


def _needs(nodes: Sequence[Node]) -> Iterator[set[int]]:
    """Of each node what must be computed before it: its sources, and what lies in the same place as they or it."""
    index, shared = {node: at for at, node in enumerate(nodes)}, dict[Node, set[int]]()
    for at, node in enumerate(nodes):
        own = shared.setdefault(node.base or node, set())
        sources = [*node.after, *(one.base or one for one in node.after if node.op != "VIEW")]
        yield {index[one] for one in sources if one in index} | own
        own.add(at)


def vulkan_order(nodes: Sequence[Node]) -> Iterator[Node]:
    """The nodes in the order in which Vulkan computes them."""
    ops, needs, used = [node.op for node in nodes], list(_needs(nodes)), set[int]()

    def whole(at: int) -> range:
        """What stays together from here on; nothing where no row begins here, or one of it was taken."""
        rows = (range(at, at + len(row)) for row in _ROWS if ops[at] == row[0] and ops[at : at + len(row)] == row)
        return next((row for row in rows if used.isdisjoint(row)), range(0))

    for first in range(len(nodes)):
        if first in used:
            continue
        row = whole(first)
        now, ahead = list(row or [first]), () if row else range(first + 1, min(first + _AHEAD, len(ops)))
        for one in ahead:
            if one in used or ops[one] == "VIEW" or whole(one):
                continue
            if lacking := needs[one] - used:
                pair, near = f"{ops[now[-1]]} {ops[one]}", now[-1] + 1
                between = {at for at in range(near, one) if ops[at] != "VIEW"}
                fused = (pair in _PAIRS and between <= used) or (pair in _NEIGHBOURS and one == near)
                if lacking != {now[-1]} or not fused:
                    continue
            now.append(one)
        for one in ahead if ops[now[-1]] != "ADD" else ():
            if ops[one] == "VIEW" and one not in used and needs[one] <= used.union(now):
                now.append(one)
        used.update(now)
        yield from (nodes[one] for one in now)
