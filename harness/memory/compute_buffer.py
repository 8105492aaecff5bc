"""Scratch memory of one forward pass: what llama.cpp reserves on each backend, and what a run on a CPU really touches.

A backend's buffer is as long as the fullest moment of its pass: the inputs that it reads, and the activations
that are alive at once. Those moments are few: the attention of a block, its recurrent mixer, its feed-forward
part, its experts, and the logits. Each is a sum of widths, in 32-bit entries of a token, read from the
engine's graphs; which tensor lies in which hole is not followed. From 32 tokens on a product whose weight
lies with the CPU is computed by the first GPU, which gets a copy of that weight, and of the cache of a block
that keeps it with the CPU.

The reserve counts logits for every token of a batch (ubatch x vocabulary x 4 bytes: 297 MiB for 512 tokens of
a 152k vocabulary) where the program does not say that it wants fewer.

Source: llama.cpp, src/llama-graph.cpp, src/models/*.cpp, ggml/src/ggml-backend.cpp
(``ggml_backend_sched_split_graph``), ``llama_context::sched_reserve``; checked on cards that are played to it
(``python -m bench.played_cards``).
"""

from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from harness.core.model import ModelShape
from harness.core.placement import OFFLOAD_TOKENS
from harness.core.scenario import Scenario
from harness.memory.kv_cache import CacheCells, cells_of
from harness.models.facts import Facts, block_facts
from harness.models.ggml import row_bytes

HOST: Final = -1
"""The CPU, where a layout names cards by their numbers."""


class Layout(NamedTuple):
    """Where the parts of a model lie: the number of a card, or ``HOST``.

    Attributes:
        blocks: Of each block its weights, its routed experts and its cache.
        output: Of the output matrix.
        host_bytes: Name and bytes of the largest matrix of each kind that lies with the CPU.
        api: Of the GPUs, which compute long batches though nothing lies with them; ``cpu`` without.
        is_pipelined: Whether batches overlap on several cards.
    """

    blocks: tuple[tuple[int, int, int], ...]
    output: int
    host_bytes: tuple[tuple[str, int], ...] = ()
    api: str = "cpu"
    is_pipelined: bool = False


_FIXED_BYTES: Final = 2_000_000
"""On a CPU: graph, allocator tables and thread scratch."""
_OVERLAPPING_BATCHES: Final = 4
"""On several cards (``GGML_SCHED_MAX_COPIES``)."""
_ATTENDING: Final[set[str]] = {"full", "sliding"}
_QUANTISED_BYTES: Final = 34 / 32
"""Of an entry of the inner activations that a CPU quantises for the product with the down matrix."""
_WARM_TOKENS: Final = 46 * 46
"""Of the image that towers for images of any size reserve their buffer for, when the model is loaded."""
_WIDEST_RATIO: Final = 11.5
"""Entries of a patch in the widest place of a tower's block, over its width: two feed-forward ones, queries
to values, the stream. Published start-ups of Qwen3-VL-235B have 360 and 463 MiB beside the tower's file where
this says 428."""
UNKNOWN_BUFFER_RATIO: Final = 1 / 3
UNKNOWN_BUFFER_SPREAD_RATIO: Final = 0.8
"""Of a tower of unknown widths: its buffer over its file. Towers of known widths have 0.09 to 0.6 of it."""


def tower_buffer_bytes(patch_count: int, token_count: int, hidden_dim: int) -> int:
    """Compute buffer of an image tower, in bytes.

    Its patches and tokens are those of an image of 1024 x 1024 pixels.

    One that merges 2 x 2 patches takes images of any size; others make every image one size.

    Source: llama.cpp, tools/mtmd/clip.cpp (``set_warmup_n_tokens``); start-ups m060 and m061 of published
    logs.
    """
    if patch_count == 4 * token_count:
        patches = 4 * _WARM_TOKENS
    else:
        patches = patch_count
    return round(4 * _WIDEST_RATIO * hidden_dim * patches)


class _Batch(NamedTuple):
    """What is computed at once: tokens, those of them whose logits are wanted, and the cache that it attends to."""

    tokens: int
    outputs: int
    cells: CacheCells
    fused: bool
    api: str

    def mask_bytes(self, cell_count: int) -> tuple[int, int]:
        """Of the attention mask as an input, and of its copy in F16 where fused attention wants one."""
        told = self.cells.program.mask_bytes if self.fused else 4
        return min(told, 4) * self.tokens * cell_count, max(told - 4, 0) * self.tokens * cell_count


def _cell_count(shape: ModelShape, cells: CacheCells, kind: str) -> int:
    if kind == "sliding":
        return cells.sliding(shape.sliding_window_tokens)
    return cells.full


def _input_bytes(shape: ModelShape, batch: _Batch, kinds: Collection[str]) -> int:
    """Inputs that a backend with blocks of these kinds has: positions, places in the cache, masks."""
    cells = batch.cells
    tokens = batch.tokens
    size = 4 * tokens + 4 * batch.outputs
    rows = 1
    if cells.program.scattered and not batch.fused:
        rows = shape.kv_head_count * (shape.value_head_dim or shape.head_dim)
    for kind in kinds:
        size += 8 * tokens * (1 + rows) + batch.mask_bytes(_cell_count(shape, cells, kind))[0]
        if shape.indexer_layer_count:  # of the rows that its indexer may choose
            size += 2 * tokens * cells.full
    return size


def _attention_bytes(shape: ModelShape, facts: Facts, batch: _Batch, kind: str, *, is_here: bool) -> int:
    """The fullest moment of a block's attention, with copies of the mask and of a cache that is not here."""
    hidden = facts["hidden_dim"]
    heads = facts["head_count"]
    cell_count = _cell_count(shape, batch.cells, kind)
    if facts["latent"]:
        compressed = facts["latent_kv_rank_dim"]
        rope = facts["latent_rope_head_dim"]
        queries = heads * (compressed + rope)
        widest = 3 * hidden + queries + heads * (compressed + facts["latent_nope_head_dim"] + 2 * rope)
    else:
        queries = facts["query_row_dim"] * (2 if facts["delta_net"] else 1)
        widest = 2 * hidden + queries + facts["key_row_dim"] + facts["value_row_dim"]
    if batch.fused:
        after = hidden + queries + heads * facts["attended_value_dim"]
    else:
        after = 3 * hidden + queries + heads * cell_count
    size = 4 * batch.tokens * max(widest, after) + batch.mask_bytes(cell_count)[1]
    if shape.indexer_layer_count:  # scores of all cells, from which it chooses
        size += 4 * batch.tokens * cell_count
    if not is_here:
        widths = zip(batch.cells.types, (facts["cache_key_dim"], facts["cache_value_dim"]), strict=True)
        row = sum(row_bytes(type_name, width) for type_name, width in widths)
        return size + cell_count * batch.cells.streams * row
    return size + (_fused_bytes(batch, facts, cell_count) if batch.fused else 0)


def _fused_bytes(batch: _Batch, facts: Facts, cell_count: int) -> int:
    """What fused attention takes beside its result on a GPU.

    Keys and values of other types than F16 are copied to F16 (by Metal there is room for it in any case), and
    Metal keeps the results of 32 groups of threads for up to 32 tokens.

    Source: llama.cpp, ``ggml_cuda_flash_attn_ext_get_alloc_size``,
    ``ggml_metal_op_flash_attn_ext_extra_tmp``.
    """
    cells = batch.cells
    size = 0
    if batch.api == "metal":
        tokens = min(batch.tokens, 32 * cells.streams)
        size = 4 * tokens * facts["head_count"] * 32 * (facts["attended_value_dim"] + 2)
    if cells.program.f16_copies and batch.api in {"cuda", "rocm", "metal"}:
        for width, type_name in zip(
            (facts["cache_key_dim"], facts["cache_value_dim"]), cells.types, strict=True
        ):
            if batch.api == "metal" or type_name != "F16":
                size += 2 * cell_count * cells.streams * width
    return size


def _recurrent_bytes(facts: Facts, batch: _Batch, side: int) -> int:
    """The fullest moment of a recurrent mixer: its projections, the convolved rows, the states.

    On a card one row more, since what was copied there first left a hole.
    """
    rows = 2 if side == HOST else 3
    hidden = facts["hidden_dim"]
    inner = facts["ssm_inner_dim"]
    row = facts["ssm_row_dim"]
    if facts["short_convolution"]:
        widest = 7 * hidden
    elif facts["delta_net"]:
        widest = 2 * hidden + rows * row
    elif facts["first_mamba"]:
        widest = 2 * hidden + 5 * inner
    else:
        widest = 2 * hidden + inner + (rows + 1) * row
    states = 2 * batch.cells.sequences * inner * facts["ssm_state_dim"]
    return 4 * (batch.tokens * widest + states)


def _feed_bytes(facts: Facts, batch: _Batch, side: int, copied: int) -> int:
    """The fullest moment of a block's feed-forward part, of its experts where it routes its tokens.

    On a card queries that are not turned in place, and states, leave a hole of one row. ``copied`` are the
    bytes of a matrix that the card gets a copy of: at its fullest the last product's, beside what goes in and
    comes out.
    """
    hidden = facts["hidden_dim"]
    matrices = 3 if facts["gated_feed_forward"] else 1
    inner = facts.get("dense", 0)
    joined = hidden
    widest = 0
    if inner:
        has_states = facts["delta_net"] and "ssm_inner_dim" in facts
        has_hole = side != HOST and (facts["post_norms"] or has_states or not facts["qk_norm"])
        widest = (2 + has_hole + facts["parallel"]) * hidden + matrices * inner
    if facts["routed"]:
        inner = facts["moe_used_count"] * facts["moe_feed_forward_dim"]
        joined = facts["moe_used_count"] * facts["moe_width"]
        shared = hidden + matrices * facts.get("moe_shared_dim", 0)
        experts = max(matrices * inner, inner + joined, joined + hidden, shared)
        widest = max(widest, 2 * hidden + facts["moe_expert_count"] + experts)
    if copied:
        beside = 4 * batch.tokens * (2 * hidden + inner + joined)
        return max(4 * batch.tokens * widest, beside + copied)
    return 4 * batch.tokens * widest


@lru_cache(maxsize=1 << 16)
def scratch_bytes(
    shape: ModelShape, scenario: Scenario, layout: Layout, tokens: int = 0, outputs: int = 0
) -> dict[int, int]:
    """Bytes of the compute buffer of each card and of ``HOST`` for a batch of ``tokens`` with logits for ``outputs``.

    0 tokens: the engine's reserve, a full physical batch with the logits that its program asks for. Of the
    scenario its context, batches, type of cache and flash attention count. Where batches overlap, each
    backend has its inputs, and what comes from the card before it, for as many of them at once.
    """
    cells = cells_of(scenario)
    outputs = outputs or (tokens or cells.outputs)
    tokens = -(-(tokens or cells.batch) // cells.sequences) * cells.sequences
    batch = _Batch(tokens, min(outputs, tokens), cells, scenario.flash_attention, layout.api)
    stream = 4 * tokens * shape.hidden_dim
    at_once = _OVERLAPPING_BATCHES if layout.is_pipelined else 1
    tables = _table_bytes(shape, batch)
    moments = {HOST: stream + tables}
    kinds: dict[int, set[str]] = {HOST: _ATTENDING & set(shape.layer_kinds)}
    for side, size, kind in _moments(shape, batch, layout):
        moments[side] = max(moments.get(side, 0), size)
        kinds.setdefault(side, set()).update(_ATTENDING & {kind})
    last = _computed_at(layout.output, batch)
    end = 4 * batch.outputs * (shape.hidden_dim + shape.vocab_count)
    if last != layout.output:
        end += dict(layout.host_bytes).get("output", 0)
    sizes = {}
    for side, size in moments.items():
        kept = 0
        inputs = at_once * _input_bytes(shape, batch, kinds[side])
        if side == HOST:  # tokens, and room for embeddings in place of them, that is never freed
            kept = at_once * (4 * tokens + stream * cells.program.embeddings)
        elif layout.is_pipelined:  # the stream, and from another card the same once more, normed
            kept = at_once * stream * (1 if side == layout.blocks[0][0] else 2)
            kept += (at_once - 1) * tables - stream  # one of them is alive in any case
        sizes[side] = kept + inputs + size
        if side == last:
            sizes[side] = max(sizes[side], kept + end + (inputs if layout.is_pipelined else 0))
    sizes.setdefault(last, end)
    return sizes


def _moments(shape: ModelShape, batch: _Batch, layout: Layout) -> Iterator[tuple[int, int, str]]:
    """What is alive at once, by backend, and the kind of the block where it attends there."""
    cells = batch.cells
    tokens = batch.tokens
    tables = _table_bytes(shape, batch)
    matrices, experts_away = _copied_bytes(shape, layout)
    for block in _typical(shape, layout):
        weights, experts, cache = layout.blocks[block]
        facts = block_facts(shape, block)
        side = _computed_at(weights, batch)
        copied = matrices * (side != weights)
        if facts["attention"]:
            kind = "sliding" if shape.layer_kind(block) == "sliding" else "full"
            size = _attention_bytes(shape, facts, batch, kind, is_here=cache == side)
            yield cache, 4 * tokens * (facts["cache_key_dim"] + facts["cache_value_dim"]), ""
            yield side, tables + copied + size, kind
        if facts.get("recurrent"):
            if cache != side:  # each state that is kept is written there from a copy of its own
                rows = tokens + cells.sequences * facts["ssm_kept_taps"]
                yield cache, 4 * rows * facts["ssm_row_dim"] * (cells.state_rows // cells.sequences), ""
            yield side, tables + copied + _recurrent_bytes(facts, batch, side), ""
        if facts["routed"]:
            side = _computed_at(experts, batch)
            copied = experts_away * (side != experts)
        yield side, tables + _feed_bytes(facts, batch, side, copied), ""


def _computed_at(side: int, batch: _Batch) -> int:
    """Where a product is computed whose weight lies at ``side``: long batches by the first card, if there is one."""
    if side == HOST and batch.api != "cpu" and batch.tokens >= OFFLOAD_TOKENS:
        return 0
    return side


def _table_bytes(shape: ModelShape, batch: _Batch) -> int:
    """Rows of the token tables of each layer, which stay until the last one (Gemma 3n and 4)."""
    return 4 * batch.tokens * shape.per_layer_input_dim * shape.layer_count


def _copied_bytes(shape: ModelShape, layout: Layout) -> tuple[int, int]:
    """Of the largest matrix that a card gets a copy of, and of the same among the experts.

    Between the recurrent blocks of a hybrid the copies of two matrices of experts do not find the same place.
    """
    experts = sorted(size for name, size in layout.host_bytes if "_exps" in name)
    others = [size for name, size in layout.host_bytes if "_exps" not in name and name != "output"]
    kept = 2 if shape.recurrent else 1
    return max(others, default=0), sum(experts[-kept:])


def _typical(shape: ModelShape, layout: Layout) -> list[int]:
    """A block of each kind."""
    own = shape.layer_count - shape.kv_shared_layer_count
    seen = dict[object, int]()
    for block in range(shape.layer_count):
        kind = shape.layer_kind(block), shape.is_moe_layer(block), block < own, layout.blocks[block]
        seen.setdefault(kind, block)
    return list(seen.values())


def whole_layout(shape: ModelShape, api: str) -> Layout:
    """All of a model with one engine."""
    side = HOST if api == "cpu" else 0
    return Layout(((side, side, side),) * shape.layer_count, side, api=api)


def touched_compute_bytes(shape: ModelShape, scenario: Scenario) -> int:
    """Bytes of scratch that a run makes resident on a CPU.

    The largest batch is a full one of the prompt, or of the tokens that stand before it: they were a prompt
    once. Logits exist only for the last token of each sequence, once in the graph and once in the output
    buffer. Embeddings in place of tokens are never touched; the inner activations are quantised beside the
    buffer.
    """
    prompt = max(scenario.prompt_tokens, 1)
    together = scenario.batch_count
    depth = scenario.depth_tokens
    inner = shape.feed_forward_dim
    if shape.experts is not None:
        inner = max(inner, shape.experts.used_count * shape.experts.feed_forward_dim)
    layout = whole_layout(shape, "cpu")
    most = 0
    for asked, cells in ((max(prompt, together), depth + prompt), (depth, depth)):
        tokens = max(min(asked, scenario.ubatch_tokens), 1)
        holding = scenario.replace(context_tokens=cells * together)
        scratch = scratch_bytes(shape, holding, layout, tokens, together)[HOST]
        most = max(most, scratch + int(tokens * (_QUANTISED_BYTES * inner - 4 * shape.hidden_dim)))
    return _FIXED_BYTES + 4 * together * shape.vocab_count + most
