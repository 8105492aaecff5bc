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

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec.structs import replace

from harness.domain.ggml import row_bytes
from harness.domain.model import LatentAttention, ModelShape
from harness.domain.scenario import Scenario
from harness.predict.kv_cache import Cells, cells_of
from harness.predict.passes import OFFLOAD_TOKENS

_UNNORMED: Final = frozenset({"olmo2", "exaone4"})
"""No norm before attention and feed-forward blocks, but after them."""
_PARALLEL: Final = frozenset({"cohere2", "command-r", "falcon", "phi2"})
"""Attention and feed-forward block side by side."""
_GATED: Final = frozenset({"qwen35", "qwen35moe", "qwen3next"})
"""Gated delta nets, and queries that come with a gate."""
HOST: Final = -1
"""The CPU, where a layout names cards by their numbers."""
_NODES_AHEAD: Final = 20
"""So far Vulkan looks for nodes that wait for nothing."""
_FIXED_BYTES: Final = 2_000_000
"""On a CPU: graph, allocator tables and thread scratch."""
_QUANTISED_BYTES: Final = 34 / 32
"""Of an entry of the inner activations that a CPU quantises for the product with the down matrix."""


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

    ``side`` None follows the neighbours; ``reads`` are its sources as they lie on its side.
    """

    size: int
    sources: tuple["_Node", ...] = ()
    side: int | None = None
    weight_bytes: int | None = None
    in_place: bool = False
    copy_bytes: int = 0
    reads: list["_Node"] = field(default_factory=list)


class _Graph:
    """The nodes of a batch in the order in which llama.cpp lists them; widths are F32 entries of a token."""

    def __init__(
        self, shape: ModelShape, cells: Cells, layout: Layout, tokens: int, outputs: int, *, fused: bool
    ) -> None:
        self.shape, self.tokens, self.types, self.streams, self.fused = shape, tokens, cells.types, cells.streams, fused
        self.in_place_rope = shape.architecture == "olmoe" and not layout.reorders
        self.output = layout.output
        self.sequences, self.kept = cells.sequences, cells.state_rows / cells.sequences
        self.host_bytes, self.nodes = dict(layout.host_bytes), list[_Node]()
        self.cells = {"full": cells.full, "sliding": cells.sliding(shape.sliding_window_tokens)}
        kinds: list[str] = sorted({shape.layer_kind(b) for b in range(shape.layer_count)} & set(self.cells))
        rows = 1 if fused or not cells.scattered else shape.kv_head_count * (shape.value_head_dim or shape.head_dim)
        self.places = {k: (_Node(8 * tokens), _Node(8 * tokens * rows)) for k in kinds}
        self.masks: dict[str, _Node] = {k: _Node(min(cells.mask_bytes, 4) * tokens * self.cells[k]) for k in kinds}
        self.position, token, chosen = _Node(4 * tokens), _Node(4 * tokens), _Node(4 * outputs)
        unused = _Node(4 * tokens * shape.hidden_dim)  # embeddings instead of tokens: never read, so never freed
        places = (row for pair in self.places.values() for row in pair)
        self.inputs = [token, unused, self.position, *places, *self.masks.values(), chosen]
        if not cells.embeddings:
            self.inputs.remove(unused)
        if shape.indexer_layer_count:  # of the rows that its indexer may choose
            self.inputs.append(_Node(2 * tokens * self.cells["full"]))
        self.copied_masks = cells.mask_bytes > 4  # F32, and a copy in F16 where it is read
        self.token, self.chosen, self.outputs = token, chosen, outputs
        x = self.add(shape.hidden_dim, token, side=HOST)
        self.layer_inputs = self.inputs_of_layers(x) if shape.per_layer_input_dim else None
        for block in _typical(shape, layout):
            x = self.block(x, block, *layout.blocks[block])
        self.product("output", shape.vocab_count, self.norm(x, layout.output), side=layout.output)

    def block(self, x: _Node, block: int, side: int, experts: int, cache: int) -> _Node:
        """One block: attention or a mixer, or both, and a feed-forward part after it or beside it."""
        shape, hidden, arch = self.shape, self.shape.hidden_dim, self.shape.architecture
        kind, before, routed = shape.layer_kind(block), x, shape.is_moe_layer(block)
        c = normed = x if arch in _UNNORMED else self.norm(x, side)
        if arch == "falcon-h1":
            mixed = self.mixer(c, side, cache)
            c = self.add(hidden, self.attention(c, side, cache, "full"), mixed, in_place=True)
        elif kind in self.cells:
            c = self.attention(c, side, cache, kind, stored=block < shape.layer_count - shape.kv_shared_layer_count)
        elif kind == "recurrent":
            c = self.mixer(c, side, cache)
        if block == shape.layer_count - 1:  # only tokens whose logits are wanted go on
            self.tokens = self.outputs
            c, before = self.add(hidden, c, self.chosen), self.add(hidden, before, self.chosen)
            normed = self.add(hidden, normed, self.chosen) if arch in _PARALLEL else normed
            if self.layer_inputs is not None:
                self.layer_inputs = self.add(shape.per_layer_input_dim, self.layer_inputs, self.chosen)
        if arch in _PARALLEL:
            inner = self.feed_forward(normed, side, experts, routed=routed)
            return self.add(hidden, self.add(hidden, inner, before, in_place=True), c, in_place=True)
        x = self.add(hidden, c, before, in_place=True)
        if "-" not in shape.layer_pattern or kind == "none":
            c = x if arch in _UNNORMED else self.norm(x, side)
            if arch == "gemma4" and routed:  # a dense block beside the experts
                dense = self.gated("", shape.feed_forward_dim, c, side=side)
                routed_part = self.feed_forward(self.norm(x, side), side, experts, routed=True)
                c = self.add(hidden, dense, routed_part, in_place=True)
            else:
                c = self.feed_forward(c, side, experts, routed=routed)
            x = self.add(hidden, c, x, in_place=True)
        if self.layer_inputs is not None:
            each = self.product("inp_gate", shape.per_layer_input_dim, x, side=side)
            each = self.add(shape.per_layer_input_dim, each, self.layer_inputs, in_place=True)
            x = self.add(hidden, x, self.product("proj", hidden, each, side=side), in_place=True)
        return x

    def add(
        self, width: float, *sources: _Node, side: int | None = None, in_place: bool = False, states: float = 0
    ) -> _Node:
        """A node of so many entries for each token, and of ``states`` for each sequence."""
        size = int(4 * (self.tokens * width + self.sequences * states))
        self.nodes.append(_Node(size, sources, side, in_place=in_place))
        return self.nodes[-1]

    def product(self, name: str, width: float, *sources: _Node, side: int, in_place: bool = False) -> _Node:
        """A product with the weight of that name."""
        node = self.add(width, *sources, side=side, in_place=in_place)
        node.weight_bytes = self.host_bytes.get(name, 0)
        return node

    def norm(self, x: _Node, side: int, *, in_place: bool = True) -> _Node:
        """RMS norm and its weight."""
        width = x.size / 4 / self.tokens
        return self.product("norm", width, self.add(width, x, in_place=in_place), side=side, in_place=True)

    def mask(self, kind: str) -> _Node:
        """The mask as fused attention reads it."""
        mask = self.masks[kind]
        if self.copied_masks and mask in self.inputs:
            mask = self.masks[kind] = self.add(self.cells[kind] / 2, mask)
        return mask

    def inputs_of_layers(self, x: _Node) -> _Node:
        """What each layer of a Gemma E model gets of a token: rows of its table beside a projection, layer by layer."""
        width = self.shape.per_layer_input_dim * self.shape.layer_count
        rows = self.add(width, self.token, side=HOST)
        projected = self.norm(self.product("per_layer_model_proj", width, x, side=self.output), self.output)
        return self.add(width, self.add(width, projected, rows, in_place=True))

    def attention(self, c: _Node, side: int, cache: int, kind: str, *, stored: bool = True) -> _Node:
        """Queries, keys and values, their places in the cache, scores, output; without ``stored`` an earlier cache."""
        s, sliding = self.shape, kind == "sliding" and self.shape.sliding_head_dim > 0
        head = s.sliding_head_dim if sliding else s.head_dim
        key = ((s.sliding_kv_head_count if sliding else 0) or s.kv_head_count) * head
        value_head = head if sliding else s.value_head_dim or s.head_dim
        value, queries, result = key // head * value_head, s.head_count * head, s.head_count * value_head
        if s.latent is not None and s.architecture != "minicpm3":
            return self.latent_attention(c, side, cache, kind, s.latent)
        flat = s.architecture in {"olmoe", "olmo2"}  # one norm over all heads; else a view of heads stays as it is
        gated = s.architecture in _GATED

        def turned(x: _Node, width: float, *, view: bool = False) -> _Node:
            if s.qk_norm:
                normed = self.add(width, x, in_place=flat and not view)
                x = self.product("norm", width, normed, side=side, in_place=True)
            return self.add(width, x, self.position, in_place=s.qk_norm and (not flat or self.in_place_rope))

        full = self.product("attn_q", queries * (2 if gated else 1), c, side=side)
        q = turned(full, queries, view=gated)
        keys = values = self.places[kind][0]
        if stored:
            k = self.product("attn_k", key, c, side=side) if s.values_are_keys and not sliding else None
            v = self.add(value, k) if k is not None else self.product("attn_v", value, c, side=side)
            k = turned(k if k is not None else self.product("attn_k", key, c, side=side), key)
            keys, values = (self.add(0, x, row, side=cache) for x, row in zip((k, v), self.places[kind], strict=True))
            cells, widths = self.cells[kind] * self.streams, zip(self.types, (key, value), strict=True)
            keys.copy_bytes, values.copy_bytes = (cells * row_bytes(type_name, width) for type_name, width in widths)
        if self.fused:
            c = self.add(result, q, keys, values, self.mask(kind))
        else:
            scores = self.add(s.head_count * self.cells[kind], keys, q)
            scores = self.add(s.head_count * self.cells[kind], scores, self.masks[kind], in_place=True)
            c = self.add(result, self.add(result, values, scores), side=HOST if cache == HOST != side else None)
        if gated:
            c = self.add(result, c, self.add(result, full), in_place=True)
        return self.product("attn_output", s.hidden_dim, c, side=side)

    def latent_attention(self, c: _Node, side: int, cache: int, kind: str, latent: LatentAttention) -> _Node:
        """Multi-head latent attention with the heads' matrices absorbed: one row of keys, values are a part of it."""
        s, rank, rope = self.shape, latent.kv_rank_dim, latent.rope_head_dim
        heads, width = s.head_count, rank + rope
        if latent.q_rank_dim:
            c_q = self.norm(self.product("attn_q_a", latent.q_rank_dim, c, side=side), side)
        q = self.product("attn_q", heads * (latent.nope_head_dim + rope), c_q if latent.q_rank_dim else c, side=side)
        absorbed = self.product("attn_k_b", heads * rank, q, side=side)
        q = self.add(heads * width, absorbed, self.add(heads * rope, q, self.position))
        both = self.product("attn_kv_a_mqa", width, c, side=side)
        normed = self.product("norm", rank, self.add(rank, both), side=side, in_place=True)
        k = self.add(width, normed, self.add(rope, both, self.position))
        keys = self.add(0, k, self.places[kind][0], side=cache)
        keys.copy_bytes = self.cells[kind] * self.streams * row_bytes(self.types[0], width)
        if self.fused:
            c = self.add(heads * rank, q, keys, self.mask(kind))
            c = self.product("attn_v_b", heads * latent.value_head_dim, c, side=side)
        else:
            scores = self.add(heads * self.cells[kind], keys, q)
            scores = self.add(heads * self.cells[kind], scores, self.masks[kind], in_place=True)
            c = self.add(heads * rank, self.add(0, keys), scores)
            c = self.product("attn_v_b", heads * latent.value_head_dim, c, side=side)
        c = self.add(heads * latent.value_head_dim, c)
        return self.product("attn_output", s.hidden_dim, c, side=side)

    def mixer(self, c: _Node, side: int, cache: int) -> _Node:
        """A layer with a state: what is kept of the convolution and of the state is read, and written back."""
        r, hidden, arch = self.shape.recurrent, self.shape.hidden_dim, self.shape.architecture
        if r is None:
            return c
        inner, groups, state = r.inner_dim, 2 * r.group_count * r.state_dim, r.inner_dim * r.state_dim

        def convolved(width: int, x: _Node, before: _Node) -> _Node:
            joined = self.add(width, before, x, states=(r.conv_dim - 1) * width)
            self.add(0, joined, side=cache)
            return self.add(width, joined)

        def kept(width: int) -> _Node:
            return self.add(0, side=cache, states=(r.conv_dim - 1) * width)

        if arch in {"lfm2", "lfm2moe"}:
            parts, before = self.product("shortconv.in_proj", 3 * hidden, c, side=side), kept(hidden)
            mixed = convolved(hidden, self.add(hidden, parts), before)
            return self.product("shortconv.out_proj", hidden, self.add(hidden, parts, mixed, in_place=True), side=side)
        if arch in _GATED:
            before = kept(inner + groups)
            qkv = self.product("attn_qkv", inner + groups, c, side=side)
            old = self.add(0, side=cache, states=state)
            mixed = convolved(inner + groups, qkv, before)
            queries, keys = self.add(groups / 2, mixed), self.add(groups / 2, mixed)
            rates = [self.product("ssm_alpha", r.head_count, c, side=side) for _ in range(2)]
            y = self.add(inner, queries, keys, mixed, *rates, old, states=state * self.kept)
            self.add(0, y, side=cache)
            normed = self.product("norm", inner, self.add(inner, y), side=side, in_place=True)
            y = self.add(inner, normed, self.product("attn_gate", inner, c, side=side), in_place=True)
            return self.product("ssm_out", hidden, y, side=side)
        first = arch in {"mamba", "jamba"}  # Mamba-1: B, C and dt come from a second matrix
        width = inner if first else inner + groups
        before = kept(width)
        parts = self.product("ssm_in", 2 * inner + (0 if first else groups + r.head_count), c, side=side)
        mixed = convolved(width, parts, before)
        if first:
            rank = -(-hidden // 16)
            both = self.product("ssm_x", rank + 2 * r.state_dim, mixed, side=side)
            step = self.product("ssm_dt", inner, self.add(rank, both), side=side)
        else:
            both = step = self.add(r.head_count, parts)
        y = self.add(inner, mixed, both, step, states=state * self.kept)
        self.add(0, y, side=cache)
        gate = self.add(inner, parts)
        y = self.add(inner, y, self.add(inner, mixed, in_place=first), in_place=True)
        return self.product("ssm_out", hidden, self.add(inner, gate, y), side=side)

    def feed_forward(self, c: _Node, side: int, experts: int, *, routed: bool) -> _Node:
        """Gate, up, their product, down; of a mixture the router, and the sum over the experts of a token."""
        e, hidden = self.shape.experts, self.shape.hidden_dim
        if e is None or not routed:
            return self.gated("", max(self.shape.feed_forward_dim, self.shape.kv_shared_feed_forward_dim), c, side=side)
        scores = self.add(e.expert_count, self.product("router", e.expert_count, c, side=side), in_place=True)
        order = self.add(e.expert_count, scores)
        share = self.add(e.used_count, scores, order)
        down = self.gated("_exps", e.used_count * e.feed_forward_dim, c, order, side=experts, copies=e.used_count)
        down = self.add(e.used_count * hidden, down, share, in_place=True)
        total = self.add(hidden, down)
        for _ in range(e.used_count - 2):
            total = self.add(hidden, total, down, in_place=True)
        if e.shared_feed_forward_dim:
            shared = self.gated("_shexp", e.shared_feed_forward_dim, c, side=side)
            total = self.add(hidden, total, shared, in_place=True)
        return total

    def gated(self, kind: str, inner: float, *sources: _Node, side: int, copies: int = 1) -> _Node:
        """The feed-forward part of a block, or of its experts."""
        names = ("gate", "up") if self.shape.gated_feed_forward else ("up",)
        parts = [self.product(f"ffn_{name}{kind}", inner, *sources, side=side) for name in names]
        product = self.add(inner, *parts, in_place=len(parts) == 1)
        return self.product(f"ffn_down{kind}", copies * self.shape.hidden_dim, product, *sources[1:], side=side)


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
    piece, copies, copied = list[_Node](), list[tuple[_Node, list[_Node]]](), dict[tuple[_Node, int | None], _Node]()
    for node in graph.nodes:
        moved = node.weight_bytes is not None and home[node] != node.side
        if piece and (node.side != piece[-1].side or (moved and copies)):
            yield from _finished(piece, copies, reorders=layout.reorders)
            piece, copies = [], []
        if moved:
            node.reads.append(_Node(node.weight_bytes or 0, side=node.side))
            copies.append((node.reads[0], []))
        for source in node.sources:
            if source.side != node.side and (source, node.side) not in copied:
                copied[source, node.side] = _Node(source.copy_bytes or source.size, side=node.side)
                copies.append((copied[source, node.side], [source]))
            node.reads.append(copied.get((source, node.side), source))
        piece.append(node)
    yield from _finished(piece, copies, reorders=layout.reorders)


def _finished(
    piece: list[_Node], copies: list[tuple[_Node, list[_Node]]], *, reorders: bool
) -> Iterator[tuple[_Node, Sequence[_Node]]]:
    """A piece in the order in which its backend computes it, what is copied to it first."""
    yield from copies
    while piece:
        taken = piece[:1]
        for index, node in enumerate(piece[1 : _NODES_AHEAD if reorders and piece[0].side != HOST else 1], 1):
            before = piece[index - 1]
            fused = before is taken[-1] and node.in_place and node.weight_bytes is None and before.size == node.size
            waiting = piece[: index - 1] if fused else piece[:index]
            if not any(one in node.sources for one in waiting):
                taken.append(node)
        yield from ((node, node.reads) for node in taken)
        piece = [node for node in piece if node not in taken]


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
    users = Counter(one for _, reads in plan for one in reads)
    buffers, at = {HOST: _Buffer()}, dict[_Node, tuple[_Buffer, int]]()
    for node, reads in plan:
        buffer = buffers.setdefault(HOST if node.side is None else node.side, _Buffer())
        fitting = (one for one in reads if one.size == node.size and users[one] == 1 and one in at)
        if node.in_place and (over := next((one for one in fitting if at[one][0] is buffer), None)):
            at[node] = at.pop(over)
        elif node.size:
            at[node] = buffer, buffer.take(node.size)
        for one in reads:
            users[one] -= 1
            if not users[one] and one in at:
                held, offset = at.pop(one)
                held.give(offset, one.size)
    return {side: buffer.peak_bytes for side, buffer in buffers.items()}


def whole_layout(shape: ModelShape, api: str) -> Layout:
    """All of a model with one engine."""
    side = HOST if api == "cpu" else 0
    return Layout(((side, side, side),) * shape.layer_count, side, reorders=api == "vulkan")


def reserved_compute_bytes(shape: ModelShape, scenario: Scenario, api: str = "cpu") -> int:
    """Bytes of the compute buffer that llama.cpp reserves where all of a model lies with that api's engine."""
    return scratch_bytes(shape, scenario, whole_layout(shape, api))[HOST if api == "cpu" else 0]


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
        scratch = scratch_bytes(shape, replace(s, context_tokens=cells * together), layout, tokens, together)[HOST]
        found = max(found, scratch + int(tokens * (_QUANTISED_BYTES * inner - 4 * shape.hidden_dim)))
    return _FIXED_BYTES + 4 * together * shape.vocab_count + found
