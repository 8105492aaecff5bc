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
``llama_context::sched_reserve``. Weights of norms and routers are too small to be followed.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from harness.domain.model import ModelShape
from harness.domain.scenario import Scenario
from harness.predict.graph import HOST, Graph, Layout, Node
from harness.predict.graph_order import vulkan_order
from harness.predict.kv_cache import cells_of
from harness.predict.passes import OFFLOAD_TOKENS

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


def _plan(graph: Graph, layout: Layout, tokens: int) -> Iterator[tuple[Node, Sequence[Node]]]:
    """What is laid one after the other, copies among it, each with what it reads; fills in sides."""
    on_gpu = layout.api != "cpu" or layout.output != HOST
    home = {node: node.side for node in graph.nodes}
    for node in graph.inputs:
        node.side = HOST
    for node in graph.nodes:
        if on_gpu and tokens >= OFFLOAD_TOKENS and node.weight_bytes is not None and node.side == HOST:
            node.side = 0
    for nodes, of_all in ((graph.nodes, False), (graph.nodes[::-1], False), (graph.nodes, True)):
        side: int | None = None
        for node in nodes:
            if node.side is None or (of_all and node.op == "VIEW"):  # which never begins a piece
                node.side = side
            else:
                side = node.side if of_all or node.side != HOST else None
    piece, copies, copied = list[Node](), list[tuple[Node, list[Node]]](), dict[tuple[Node, object], Node]()
    for node in graph.nodes:
        moved = node.weight_bytes is not None and home[node] != node.side
        if piece and (node.side != piece[-1].side or (moved and copies)):
            yield from _finished(piece, copies, layout.api)
            piece, copies = [], []
        if moved:
            node.reads.append(Node(node.weight_bytes or 0, side=node.side))
            copies.append((node.reads[0], []))
        kept = not node.size and not node.copy_bytes  # a state: it is written from a view, and each view has a copy
        for source in node.sources:
            at = source, node if kept else node.side
            if source.side != node.side and at not in copied:
                copied[at] = Node(source.copy_bytes or source.size, side=node.side)
                copies.append((copied[at], [source]))
            node.reads.append(copied.get(at, source))
        piece.append(node)
    yield from _finished(piece, copies, layout.api)


def _finished(
    piece: Sequence[Node], copies: list[tuple[Node, list[Node]]], api: str
) -> Iterator[tuple[Node, Sequence[Node]]]:
    """A piece in the order in which its backend computes it, what is copied to it first."""
    yield from copies
    chooses = api == "vulkan" and piece[:1] and piece[0].side != HOST
    yield from ((node, node.reads) for node in (vulkan_order(piece) if chooses else piece))


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
    graph = Graph(shape, cells, layout, tokens, min(outputs, tokens), fused=scenario.flash_attention)
    plan: list[tuple[Node, Sequence[Node]]] = [(node, ()) for node in graph.inputs]
    plan += _plan(graph, layout, tokens)
    for _, reads in plan:
        for one in reads:
            one.users += 1
    buffers = defaultdict[int, _Buffer](_Buffer, {HOST: _Buffer()})
    for node, reads in plan:
        buffer = buffers[HOST if node.side is None else node.side]
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
    return Layout(((side, side, side),) * shape.layer_count, side, api=api)


def touched_compute_bytes(shape: ModelShape, scenario: Scenario) -> int:
    """Bytes of scratch that a run makes resident on a CPU.

    The largest batch is a full one of the prompt, or of the tokens that stand before it: they were a prompt once.
    Logits exist only for the last token of each sequence, once in the graph and once in the output buffer. Embeddings
    in place of tokens are never touched; the inner activations are quantised beside the buffer.
    """
    s, prompt, together, e = scenario, max(scenario.prompt_tokens, 1), scenario.batch_count, shape.experts
    inner = max(shape.feed_forward_dim, e.used_count * e.feed_forward_dim if e is not None else 0)
    layout, most = whole_layout(shape, "cpu"), 0
    for asked, cells in ((max(prompt, together), s.depth_tokens + prompt), (s.depth_tokens, s.depth_tokens)):
        tokens = max(min(asked, s.ubatch_tokens), 1)
        scratch = scratch_bytes(shape, s.replace(context_tokens=cells * together), layout, tokens, together)[HOST]
        most = max(most, scratch + int(tokens * (_QUANTISED_BYTES * inner - 4 * shape.hidden_dim)))
    return _FIXED_BYTES + 4 * together * shape.vocab_count + most
