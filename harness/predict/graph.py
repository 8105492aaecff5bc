"""The graph of one batch as llama.cpp lists it: nodes in order, from ``data/graph.csv`` and the facts of a model."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

from harness.domain.base import shipped_rows
from harness.domain.facts import Facts, amount, block_facts, holds
from harness.domain.ggml import row_bytes
from harness.domain.model import ModelShape
from harness.predict.kv_cache import CacheCells

HOST: Final = -1
"""The CPU, where a layout names cards by their numbers."""


class Layout(NamedTuple):
    """Where the parts of a model lie: the number of a card, or ``HOST``.

    Attributes:
        blocks: Of each block its weights, its routed experts and its cache.
        output: Of the output matrix.
        host_bytes: Name and bytes of the largest matrix of each kind that lies with the CPU.
        api: Of the GPUs, which compute long batches though nothing lies with them; ``cpu`` without.
    """

    blocks: tuple[tuple[int, int, int], ...]
    output: int
    host_bytes: tuple[tuple[str, int], ...] = ()
    api: str = "cpu"


@dataclass(eq=False, slots=True)
class Node:
    """One tensor of the graph: bytes (0: a view of the cache), those of its weight, and those of a copy of it.

    ``side`` None follows the neighbours; ``reads`` are its sources as they lie on its side, ``users`` what has yet to
    read it, ``place`` is where it lies. Where a backend chooses its order, ``after`` are its sources with the views
    among them, and ``base`` is what a view is one of.
    """

    size: int
    sources: tuple["Node", ...] = ()
    side: int | None = None
    op: str = ""
    after: Sequence["Node"] = ()
    base: "Node | None" = None
    weight_bytes: int | None = None
    in_place: bool = False
    copy_bytes: int = 0
    reads: list["Node"] = field(default_factory=list)
    users: int = 0
    place: tuple[Any, int] | None = None


_CACHE: Final = Node(0)
_CACHE.base = _CACHE
_SECTIONS: Final = [
    (*of, list(lines)) for of, lines in groupby(shipped_rows("data/graph.csv"), itemgetter("of", "when"))
]
"""Lines by the part that they are of, and the condition under which they hold."""


class _Step(NamedTuple):
    """A line with the numbers of one block: F32 entries of a token and of a sequence, times, bytes of a copy."""

    line: dict[str, str]
    sources: list[str]
    width: int
    states: int
    times: int
    copy_bytes: int


@lru_cache(maxsize=1 << 10)
def _steps(part: str, known: frozenset[tuple[str, int]]) -> list[_Step]:
    """The lines of a part that hold for these facts, which blocks and placements that are tried share."""
    facts, steps = dict(known), list[_Step]()
    for of, when, lines in _SECTIONS:
        for line in lines if of == part and holds(when, facts) else ():
            width, states, times = (amount(line[key] or "0", facts) for key in ("width", "states", "times"))
            copy_bytes = facts.get(f"{line['name']}_bytes", 0)
            steps.append(_Step(line, line["sources"].split(), width, states, times, copy_bytes))
    return steps


class Graph:
    """The nodes of a batch in the order in which llama.cpp lists them (``data/graph.csv``)."""

    def __init__(
        self, shape: ModelShape, cells: CacheCells, layout: Layout, tokens: int, outputs: int, *, fused: bool
    ) -> None:
        self.tokens, self.sequences, self.host_bytes = tokens, cells.sequences, dict(layout.host_bytes)
        self.nodes, program = list[Node](), cells.program
        mask_bytes = program.mask_bytes if fused else 4
        of_kind = {"full": cells.full, "sliding": cells.sliding(shape.sliding_window_tokens)}
        kinds: list[str] = sorted({*shape.layer_kinds} & set(of_kind))
        rows = 1 if fused or not program.scattered else shape.kv_head_count * (shape.value_head_dim or shape.head_dim)
        places = {kind: (Node(8 * tokens), Node(8 * tokens * rows)) for kind in kinds}
        turns = {kind: [Node(4 * wide * wide) for wide in _turned_dims(shape, cells, kind)] for kind in kinds}
        masks = {kind: Node(min(mask_bytes, 4) * tokens * of_kind[kind]) for kind in kinds}
        token, position, chosen = Node(4 * tokens), Node(4 * tokens), Node(4 * outputs)
        unused = [Node(4 * tokens * shape.hidden_dim)]  # embeddings instead of tokens: never read, so never freed
        rows_of_all = (row for pair in places.values() for row in pair)
        self.inputs = [token, *unused * program.embeddings, position, *rows_of_all, *masks.values(), chosen]
        if shape.indexer_layer_count:  # of the rows that its indexer may choose
            self.inputs.append(Node(2 * tokens * of_kind["full"]))
        self.names = {"token": token, "position": position, "chosen": chosen}
        self.inputs += [node for kind in kinds for node in turns[kind] if node.size]
        self.outputs, self.output, self.reorders = outputs, layout.output, layout.api == "vulkan"
        whole = block_facts(shape, 0) | _further_facts(shape, cells, 0)
        self.compute("begin", whole, layout.output, layout.output, layout.output)
        for block in _typical(shape, layout):
            facts = block_facts(shape, block) | _further_facts(shape, cells, block) | {"fused": fused}
            kind = shape.layer_kind(block)
            if kind in masks:
                facts |= _cache_facts(cells, of_kind[kind], facts)
                key_turn, value_turn = turns[kind]
                facts |= {"turns_keys": key_turn.size, "turns_values": value_turn.size}
                self.names |= {"key_turn": key_turn, "value_turn": value_turn}
                facts["attended_bytes"] = _fused_bytes(layout.api, cells, tokens, facts)
                facts["copies_mask"] = mask_bytes > 4 and masks[kind] in self.inputs  # F32, read as F16
                self.names |= {"mask": masks[kind], "key_rows": places[kind][0], "value_rows": places[kind][1]}
            self.compute("mix", facts, *layout.blocks[block])
            if kind in masks:
                masks[kind] = self.names["mask"]
            self.compute("feed", facts, *layout.blocks[block])
        self.compute("end", whole, layout.output, layout.output, layout.output)

    def compute(self, part: str, facts: Facts, side: int, experts: int, cache: int) -> None:
        """Add the nodes of a part of the table whose weights, experts and cache lie on these sides."""
        sides = {"host": HOST, "cache": cache, "cpu": HOST if cache == HOST != side else None, "output": self.output}
        for line, names, width, states, times, copy_bytes in _steps(part, frozenset(facts.items())):
            name, same, weight, op = line["name"], line["same"], line["weight"], line["op"]
            if same or not (line["width"] or self.reorders):
                self.names[name] = self.names[[same, *names][-1]] if same or names else _CACHE
                continue
            if "chosen" in names:
                self.tokens = self.outputs
            size = 4 * (self.tokens * width + self.sequences * states)
            size += copy_bytes if op == "FLASH_ATTN_EXT" and cache != HOST else 0
            for _ in range(times):
                after = [self.names[source] for source in names]
                held = [one.base or one for one in after] if line["width"] else []
                sources = tuple([one for one in held if one.base is None])
                node = Node(size, sources, sides.get(line["side"]), op, after, in_place=bool(line["in_place"]))
                if not line["width"]:
                    node.base = (after[-1].base or after[-1]) if after and op != "GET_ROWS" else node
                if weight:
                    node.side = experts if "_exps" in weight else sides.get(line["side"], side)
                    node.weight_bytes = self.host_bytes.get(weight, 0)
                elif line["side"] == "cache":
                    node.copy_bytes = copy_bytes
                self.nodes.append(node)
                self.names[name] = node


def _further_facts(shape: ModelShape, cells: CacheCells, block: int) -> Facts:
    """What the lines of the graph ask of a block beside its own facts."""
    facts = block_facts(shape, block)
    after = (block_facts(shape, one) for one in range(block + 1, shape.layer_count))
    following = next((one for one in after if one.get("mixes") or one["routed"]), {})
    return {
        "first": block == 0,
        "chooses_late": facts["chooses_late"] and cells.program.late_outputs,
        "last": block == shape.layer_count - 1,
        "windowed": "sliding" in shape.layer_kinds,
        "next_reads_state": following.get("reads_state", 0),
        "kept_states": cells.state_rows // cells.sequences,
        "moe_further_count": facts.get("moe_used_count", 0) - 2,
    }


def _cache_facts(cells: CacheCells, cell_count: int, facts: Facts) -> Facts:
    """Cells of a block's cache, and the bytes of a copy of its keys and of its values."""
    key = facts["cache_key_dim"]  # of latent attention the values too: they are a view of it
    rows = zip(cells.types, (key, facts["cache_value_dim"] or key), strict=True)
    keys, values = (cell_count * cells.streams * row_bytes(type_name, width) for type_name, width in rows)
    return {"cells": cell_count, "half_cells": cell_count // 2, "keys_bytes": keys, "values_bytes": values}


def _turned_dims(shape: ModelShape, cells: CacheCells, kind: str) -> tuple[int, int]:
    """Width of the matrices that turn the keys and the values of a quantised cache; 0 for none."""
    head = shape.sliding_head_dim or shape.head_dim if kind == "sliding" else shape.head_dim
    turned = cells.program.turned and shape.latent is None and head % 64 == 0
    keys, values = (turned and name != "F16" for name in cells.types)
    return keys and head & -head, 64 * values


def _fused_bytes(api: str, cells: CacheCells, tokens: int, facts: Facts) -> int:
    """What fused attention takes beside its result on a GPU, behind it in the same place.

    Keys and values of other types than F16 are copied to F16 (by Metal there is room for it in any case), and Metal
    keeps the results of 32 groups of threads for up to 32 tokens.

    Source: llama.cpp, ``ggml_cuda_flash_attn_ext_get_alloc_size``, ``ggml_metal_op_flash_attn_ext_extra_tmp``.
    """
    rows, value = (facts["cache_key_dim"], facts["cache_value_dim"]), facts["attended_value_dim"]
    size = 4 * min(tokens, 32 * cells.streams) * facts["head_count"] * 32 * (value + 2) if api == "metal" else 0
    if cells.program.f16_copies and api in {"cuda", "rocm", "metal"}:
        copied = [row for row, n in zip(rows, cells.types, strict=True) if api == "metal" or n != "F16"]
        size += 2 * facts["cells"] * cells.streams * sum(copied)
    return size


def _typical(shape: ModelShape, layout: Layout) -> Iterator[int]:
    """Blocks that show each change from one kind of block to the next twice, and the last one: the peak is in them."""
    own = shape.layer_count - shape.kv_shared_layer_count
    kinds = [(shape.layer_kind(b), shape.is_moe_layer(b), b < own, *layout.blocks[b]) for b in range(shape.layer_count)]
    seen: Counter[object] = Counter()
    for block, change in enumerate(zip([None, *kinds], kinds, strict=False)):
        seen[change] += 1
        if seen[change] <= 2 or block == shape.layer_count - 1:
            yield block
