"""Scratch memory of one forward pass: what llama.cpp reserves on each backend, and what a run on a CPU really touches.

The scheduler gives each node of the graph a backend: that of its weight or of the cache that it writes, else its
neighbours' (a GPU's before the CPU's). From 32 tokens on a product whose weight lies with the CPU moves to the first
GPU. The graph is cut where the backend changes, and before each further weight that has to be copied; what a piece
needs from another backend is copied to its own before it begins: activations, inputs, weights, and the cache of a
block whose attention is computed elsewhere. The allocator then walks the graph once: each tensor takes the smallest
hole that holds it, else the end of the buffer, or overwrites its input, and is freed after its last use. The buffer is
as long as that walk ever reaches. A GPU allocates it for good; pages that no run writes never become resident on a CPU.
The reserve counts logits for every token of a batch (ubatch x vocabulary x 4 bytes: 297 MiB for 512 tokens of a 152k
vocabulary).

Source of the rules: llama.cpp, ggml/src/ggml-alloc.c, ggml/src/ggml-backend.cpp (``ggml_backend_sched_split_graph``),
src/llama-graph.cpp, ``llama_context::sched_reserve``, ggml/src/ggml-vulkan (``ggml_vk_graph_optimize``).
Weights of norms and routers are too small to be followed. Recurrent mixers and latent attention are sketched by their
widest tensors.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Final, NamedTuple

from harness.domain.base import shipped_text
from harness.domain.ggml import row_bytes
from harness.domain.model import ModelShape
from harness.domain.scenario import Scenario
from harness.predict.facts import Facts, amount, block_facts, holds
from harness.predict.kv_cache import CacheCells, cells_of
from harness.predict.passes import OFFLOAD_TOKENS

HOST: Final = -1
"""The CPU, where a layout names cards by their numbers."""
_NODES_AHEAD: Final = 20
"""So far Vulkan looks for nodes that wait for nothing."""
_FIXED_BYTES: Final = 2_000_000
"""On a CPU: graph, allocator tables and thread scratch."""
_QUANTISED_BYTES: Final = 34 / 32
"""Of an entry of the inner activations that a CPU quantises for the product with the down matrix."""


_WARM_TOKENS: Final = 46 * 46
"""Of the image that towers for images of any size reserve their buffer for, when the model is loaded."""
_WIDEST_RATIO: Final = 11.5
"""Entries of a patch in the widest place of a tower's block, over its width: two feed-forward ones, queries to values,
the stream. Published start-ups of Qwen3-VL-235B have 360 and 463 MiB beside the tower's file where this says 428."""
UNKNOWN_BUFFER_RATIO: Final = 1 / 3
UNKNOWN_BUFFER_SPREAD_RATIO: Final = 0.8
"""Of a tower of unknown widths: its buffer over its file. Towers of known widths have 0.09 to 0.6 of it."""


def tower_buffer_bytes(patch_count: int, token_count: int, hidden_dim: int) -> int:
    """Compute buffer of an image tower, in bytes; its patches and tokens are those of an image of 1024 x 1024 pixels.

    One that merges 2 x 2 patches takes images of any size; others make every image one size.

    Source: llama.cpp, tools/mtmd/clip.cpp (``set_warmup_n_tokens``); start-ups m060 and m061 of published logs.
    """
    patches = 4 * _WARM_TOKENS if patch_count == 4 * token_count else patch_count
    return round(4 * _WIDEST_RATIO * hidden_dim * patches)


class Layout(NamedTuple):
    """Where the parts of a model lie: the number of a card, or ``HOST``.

    Attributes:
        blocks: Of each block its weights, its routed experts and its cache.
        output: Of the output matrix.
        host_bytes: Name and bytes of the largest matrix of each kind that lies with the CPU.
        reorders: Whether the GPUs first compute what waits for nothing (Vulkan).
        has_gpu: Whether a GPU is there though nothing lies with it: long batches are still computed on it.
    """

    blocks: tuple[tuple[int, int, int], ...]
    output: int
    host_bytes: tuple[tuple[str, int], ...] = ()
    reorders: bool = False
    has_gpu: bool = False


@dataclass(eq=False, slots=True)
class _Node:
    """One tensor of the graph: bytes (0: a view of the cache), those of its weight, and those of a copy of it.

    ``side`` None follows the neighbours; ``reads`` are its sources as they lie on its side, ``users`` what has yet to
    read it, ``place`` is where it lies.
    """

    size: int
    sources: tuple["_Node", ...] = ()
    side: int | None = None
    weight_bytes: int | None = None
    in_place: bool = False
    copy_bytes: int = 0
    reads: list["_Node"] = field(default_factory=list)
    users: int = 0
    place: "tuple[_Buffer, int] | None" = None


class _Line(NamedTuple):
    """One line of the graph's table: a node, or another name for one where there is no ``width``; empty for nothing."""

    name: str
    same: str
    weight: str
    sources: str
    width: str
    states: str
    times: str
    side: str
    in_place: str


_WRITTEN: Final = re.compile(
    r"(\w+) = (?:(\w+)|([\w.]*)\(([\w, ]*)\) ([\w*+]+)(?:, states ([\w*+]+))?(?:, x (\w+),)?(?: @(\w+))?( in place)?)"
)


@cache
def _table() -> dict[str, list[tuple[str, list[_Line]]]]:
    """Parts of ``data/graph.txt``: lines by the condition under which they hold."""
    parts: dict[str, list[tuple[str, list[_Line]]]] = {}
    sections: list[tuple[str, list[_Line]]] = []
    for text in shipped_text("data/graph.txt").splitlines():
        if text.startswith("=="):
            parts[text.strip("= ")] = sections = []
        elif text.startswith("["):
            sections.append((text.strip("[]"), []))
        elif text and not text.startswith("#"):
            line = _WRITTEN.fullmatch(text)
            assert line, text
            sections[-1][1].append(_Line(*line.groups(default="")))
    return parts


class _Step(NamedTuple):
    """A line with the numbers of one block: F32 entries of a token and of a sequence, times, bytes of a copy."""

    line: _Line
    sources: tuple[str, ...]
    width: int
    states: int
    times: int
    copy_bytes: int


@lru_cache(maxsize=1 << 10)
def _steps(part: str, known: frozenset[tuple[str, int]]) -> list[_Step]:
    """The lines of a part that hold for these facts, which blocks and placements that are tried share."""
    facts, steps = dict(known), list[_Step]()
    for line in (line for when, lines in _table()[part] if holds(when, facts) for line in lines):
        width, states, times = (amount(text or "0", facts) for text in (line.width, line.states, line.times or "1"))
        sources = tuple(filter(None, line.sources.split(", ")))
        steps.append(_Step(line, sources, width, states, times, facts.get(f"{line.name}_bytes", 0)))
    return steps


class _Graph:
    """The nodes of a batch in the order in which llama.cpp lists them (``data/graph.txt``)."""

    def __init__(
        self, shape: ModelShape, cells: CacheCells, layout: Layout, tokens: int, outputs: int, *, fused: bool
    ) -> None:
        self.tokens, self.sequences, self.host_bytes = tokens, cells.sequences, dict(layout.host_bytes)
        self.nodes = list[_Node]()
        of_kind = {"full": cells.full, "sliding": cells.sliding(shape.sliding_window_tokens)}
        kinds: list[str] = sorted({*shape.layer_kinds} & set(of_kind))
        rows = 1 if fused or not cells.scattered else shape.kv_head_count * (shape.value_head_dim or shape.head_dim)
        places = {kind: (_Node(8 * tokens), _Node(8 * tokens * rows)) for kind in kinds}
        masks = {kind: _Node(min(cells.mask_bytes, 4) * tokens * of_kind[kind]) for kind in kinds}
        token, position, chosen = _Node(4 * tokens), _Node(4 * tokens), _Node(4 * outputs)
        unused = [_Node(4 * tokens * shape.hidden_dim)]  # embeddings instead of tokens: never read, so never freed
        rows_of_all = (row for pair in places.values() for row in pair)
        self.inputs = [token, *unused * cells.embeddings, position, *rows_of_all, *masks.values(), chosen]
        if shape.indexer_layer_count:  # of the rows that its indexer may choose
            self.inputs.append(_Node(2 * tokens * of_kind["full"]))
        self.names = {"token": token, "position": position, "chosen": chosen}
        whole = block_facts(shape, 0)
        self.compute("begin", whole, layout.output, layout.output, layout.output)
        for block in _typical(shape, layout):
            facts = block_facts(shape, block) | {"fused": fused, "last": block == shape.layer_count - 1}
            facts |= _further_facts(shape, cells, facts, can_turn_in_place=not layout.reorders)
            kind = shape.layer_kind(block)
            if kind in masks:
                facts |= _cache_facts(cells, of_kind[kind], facts)
                facts["copies_mask"] = cells.mask_bytes > 4 and masks[kind] in self.inputs  # F32, read as F16
                self.names |= {"mask": masks[kind], "key_rows": places[kind][0], "value_rows": places[kind][1]}
            self.compute("mix", facts, *layout.blocks[block])
            if kind in masks:
                masks[kind] = self.names["mask"]
            self.tokens = outputs if facts["last"] else tokens
            self.compute("feed", facts, *layout.blocks[block])
        self.compute("end", whole, layout.output, layout.output, layout.output)

    def compute(self, part: str, facts: Facts, side: int, experts: int, cache: int) -> None:
        """Add the nodes of a part of the table whose weights, experts and cache lie on these sides."""
        sides = {"host": HOST, "cache": cache, "cpu": HOST if cache == HOST != side else None}
        for line, names, width, states, times, copy_bytes in _steps(part, frozenset(facts.items())):
            if line.same:
                self.names[line.name] = self.names[line.same]
                continue
            size = 4 * (self.tokens * width + self.sequences * states)
            for _ in range(times):
                sources = tuple([self.names[name] for name in names])
                node = _Node(size, sources, sides.get(line.side), in_place=bool(line.in_place))
                if line.weight:
                    node.side = experts if line.weight.endswith("_exps") else side
                    node.weight_bytes = self.host_bytes.get(line.weight, 0)
                elif line.side == "cache":
                    node.copy_bytes = copy_bytes
                self.nodes.append(node)
                self.names[line.name] = node


def _further_facts(shape: ModelShape, cells: CacheCells, facts: Facts, *, can_turn_in_place: bool) -> Facts:
    """What the lines of the graph ask of a block beside its widths."""
    of_all_heads = shape.architecture in {"olmoe", "olmo2"}  # one norm over all heads; else a view of heads stays
    turns = not of_all_heads or (can_turn_in_place and shape.architecture == "olmoe")
    used = shape.experts.used_count if shape.experts is not None else 0
    rows = 0 if facts["first_mamba"] else 2 * facts.get("ssm_group_count", 0) * facts.get("ssm_state_dim", 0)
    return {
        "latent": shape.latent is not None and shape.architecture != "minicpm3",
        "flat_norm": of_all_heads,
        "rotates_in_place": shape.qk_norm and turns,
        "queries_and_gate": 1 + facts["delta_net"],
        "kept_states": cells.state_rows // cells.sequences,
        "ssm_row_dim": facts.get("ssm_inner_dim", 0) + rows,
        "ssm_kept_taps": facts.get("ssm_conv_dim", 1) - 1,
        "widest_feed_forward_dim": max(shape.feed_forward_dim, shape.kv_shared_feed_forward_dim),
        "moe_further_count": used - 2,
    }


def _cache_facts(cells: CacheCells, cell_count: int, facts: Facts) -> Facts:
    """Cells of a block's cache, and the bytes of a copy of its keys and of its values."""
    latent = facts["latent"] and facts["latent_kv_rank_dim"] + facts["latent_rope_head_dim"]
    rows = zip(cells.types, (latent or facts["key_row_dim"], facts["value_row_dim"]), strict=True)
    keys, values = (cell_count * cells.streams * row_bytes(type_name, width) for type_name, width in rows)
    return {"cells": cell_count, "half_cells": cell_count // 2, "keys_bytes": keys, "values_bytes": values}


def _typical(shape: ModelShape, layout: Layout) -> Iterator[int]:
    """Blocks that show each change from one kind of block to the next twice, and the last one: the peak is in them."""
    kinds = [(shape.layer_kind(b), shape.is_moe_layer(b), *layout.blocks[b]) for b in range(shape.layer_count)]
    seen: Counter[object] = Counter()
    for block, change in enumerate(zip([None, *kinds], kinds, strict=False)):
        seen[change] += 1
        if seen[change] <= 2 or block == shape.layer_count - 1:
            yield block


def _plan(graph: _Graph, layout: Layout, tokens: int) -> Iterator[tuple[_Node, Sequence[_Node]]]:
    """What is laid one after the other, copies among it, each with what it reads; fills in sides."""
    on_gpu = layout.has_gpu or any(side != HOST for block in layout.blocks for side in block) or layout.output != HOST
    home = {node: node.side for node in graph.nodes}
    for node in graph.inputs:
        node.side = HOST
    for node in graph.nodes:
        if on_gpu and tokens >= OFFLOAD_TOKENS and node.weight_bytes is not None and node.side == HOST:
            node.side = 0
    for nodes, of_all in ((graph.nodes, False), (graph.nodes[::-1], False), (graph.nodes, True)):
        side: int | None = None
        for node in nodes:
            if node.side is None:
                node.side = side
            else:
                side = node.side if of_all or node.side != HOST else None
    piece, copies, copied = list[_Node](), list[tuple[_Node, list[_Node]]](), dict[tuple[_Node, object], _Node]()
    for node in graph.nodes:
        moved = node.weight_bytes is not None and home[node] != node.side
        if piece and (node.side != piece[-1].side or (moved and copies)):
            yield from _finished(piece, copies, reorders=layout.reorders)
            piece, copies = [], []
        if moved:
            node.reads.append(_Node(node.weight_bytes or 0, side=node.side))
            copies.append((node.reads[0], []))
        kept = not node.size and not node.copy_bytes  # a state: it is written from a view, and each view has a copy
        for source in node.sources:
            at = source, node if kept else node.side
            if source.side != node.side and at not in copied:
                copied[at] = _Node(source.copy_bytes or source.size, side=node.side)
                copies.append((copied[at], [source]))
            node.reads.append(copied.get(at, source))
        piece.append(node)
    yield from _finished(piece, copies, reorders=layout.reorders)


def _finished(
    piece: list[_Node], copies: list[tuple[_Node, list[_Node]]], *, reorders: bool
) -> Iterator[tuple[_Node, Sequence[_Node]]]:
    """A piece in the order in which its backend computes it, what is copied to it first."""
    yield from copies
    if not reorders or (piece and piece[0].side == HOST):
        yield from ((node, node.reads) for node in piece)
        return
    while piece:
        near, taken = piece[:_NODES_AHEAD], piece[:1]
        place = {node: index for index, node in enumerate(near)}
        for index, node in enumerate(near[1:], 1):
            before = near[index - 1]
            fused = before is taken[-1] and node.in_place and node.weight_bytes is None and before.size == node.size
            waiting = index - 1 if fused else index
            if all(place.get(one, waiting) >= waiting for one in node.sources):
                taken.append(node)
        yield from ((node, node.reads) for node in taken)
        piece = [node for node in near if node not in taken] + piece[_NODES_AHEAD:]


class _Buffer:
    """One backend's buffer: the smallest hole that fits is taken, else its end; ``holes`` are (offset, bytes)."""

    def __init__(self) -> None:
        self.holes, self.end_bytes, self.peak_bytes = dict[int, int](), 0, 0

    def take(self, size: int) -> int:
        """Offset of so many bytes."""
        room, last = min(((room, -start) for start, room in self.holes.items() if room >= size), default=(0, 1))
        if last > 0:
            self.end_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.end_bytes)
            return self.end_bytes - size
        del self.holes[-last]
        if room > size:
            self.holes[size - last] = room - size
        return -last

    def give(self, offset: int, size: int) -> None:
        """Free them: neighbouring holes become one, and a hole at the end shortens the buffer."""
        for start, room in list(self.holes.items()):
            if start + room == offset or offset + size == start:
                del self.holes[start]
                offset, size = min(offset, start), size + room
        if offset + size == self.end_bytes:
            self.end_bytes = offset
        elif size:
            self.holes[offset] = size


@lru_cache(maxsize=1 << 16)
def scratch_bytes(
    shape: ModelShape, scenario: Scenario, layout: Layout, tokens: int = 0, outputs: int = 0
) -> dict[int, int]:
    """Bytes of the compute buffer of each card and of ``HOST`` for a batch of ``tokens`` with logits for ``outputs``.

    0 tokens: the engine's reserve, a full physical batch with the logits that its program asks for. Of the scenario its
    context, batches, type of cache and flash attention count.
    """
    cells = cells_of(scenario)
    outputs = outputs or (tokens or cells.outputs)
    tokens = -(-(tokens or cells.batch) // cells.sequences) * cells.sequences
    graph = _Graph(shape, cells, layout, tokens, min(outputs, tokens), fused=scenario.flash_attention)
    plan: list[tuple[_Node, Sequence[_Node]]] = [(node, ()) for node in graph.inputs]
    plan += _plan(graph, layout, tokens)
    for _, reads in plan:
        for one in reads:
            one.users += 1
    buffers = {HOST: _Buffer()}
    for node, reads in plan:
        buffer = buffers.setdefault(HOST if node.side is None else node.side, _Buffer())
        fitting = (one for one in reads if one.size == node.size and one.users == 1)
        over = [one for one in fitting if node.in_place and one.place and one.place[0] is buffer]
        if over:
            node.place, over[0].place = over[0].place, None
        elif node.size:
            node.place = buffer, buffer.take(node.size)
        for one in reads:
            one.users -= 1
            if not one.users and one.place:
                one.place[0].give(one.place[1], one.size)
                one.place = None
    return {side: buffer.peak_bytes for side, buffer in buffers.items()}


def whole_layout(shape: ModelShape, api: str) -> Layout:
    """All of a model with one engine."""
    side = HOST if api == "cpu" else 0
    return Layout(((side, side, side),) * shape.layer_count, side, reorders=api == "vulkan")


def touched_compute_bytes(shape: ModelShape, scenario: Scenario) -> int:
    """Bytes of scratch that a run makes resident on a CPU.

    The largest batch is a full one of the prompt, or of the tokens that stand before it: they were a prompt once.
    Logits exist only for the last token of each sequence, once in the graph and once in the output buffer. Embeddings
    in place of tokens are never touched; the inner activations are quantised beside the buffer.
    """
    s, prompt, together, e = scenario, max(scenario.prompt_tokens, 1), scenario.batch_count, shape.experts
    inner = max(shape.feed_forward_dim, e.used_count * e.feed_forward_dim if e is not None else 0)
    layout, found = Layout(((HOST, HOST, HOST),) * shape.layer_count, HOST), 0
    for asked, cells in ((max(prompt, together), s.depth_tokens + prompt), (s.depth_tokens, s.depth_tokens)):
        tokens = max(min(asked, s.ubatch_tokens), 1)
        scratch = scratch_bytes(shape, s.replace(context_tokens=cells * together), layout, tokens, together)[HOST]
        found = max(found, scratch + int(tokens * (_QUANTISED_BYTES * inner - 4 * shape.hidden_dim)))
    return _FIXED_BYTES + 4 * together * shape.vocab_count + found
