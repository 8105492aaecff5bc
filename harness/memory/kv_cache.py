"""Bytes of what a model keeps between tokens: keys and values by kind of layer, and recurrent states.

Source: llama.cpp (release packed in llama-cpp-python 0.3.36), src/llama-kv-cache.cpp,
src/llama-kv-cache-iswa.cpp and src/llama-hparams.cpp (``n_embd_r``, ``n_embd_s``).
"""

from typing import Final, NamedTuple

from harness.core.model import ModelShape
from harness.core.program import Program
from harness.core.scenario import Scenario
from harness.models.architecture import has
from harness.models.facts import block_facts, model_facts
from harness.models.ggml import row_bytes

CELL_PADDING_TOKENS: Final = 256
"""The context, and the cache of sliding layers, are rounded up to this."""

INDEXER_DIM: Final = 128
"""Width of a key of a sparse attention's indexer (DeepSeek V3.2, GLM 5)."""

CELL_RECORD_BYTES: Final = 85
"""Bookkeeping of one cell: position, shift and a bit for each sequence it belongs to (measured growth of
anonymous memory beyond the buffers when the context grows from 4096 to 16384)."""


class CacheCells(NamedTuple):
    """What an engine is told when its context is made.

    Attributes:
        full: Cells of one stream of a layer that looks back at everything.
        streams: Caches beside each other: one that all sequences share, or one for each.
        sequences: Sequences that may be open.
        batch: Tokens of one physical batch.
        outputs: Tokens of it whose logits are reserved.
        state_rows: Recurrent states: one a sequence, and one more for each token drafted.
        extra: What they keep beside their windows: a physical batch, of old builds a logical one.
        types: ggml types of keys and of values.
        program: Whose build decides what else there is.
    """

    full: int
    streams: int
    sequences: int
    batch: int
    outputs: int
    state_rows: int
    extra: int
    types: tuple[str, str]
    program: Program

    def sliding(self, window_tokens: int) -> int:
        """Cells of one stream of a layer that looks back at a window."""
        windows = window_tokens * self.sequences // self.streams
        if self.program.swa_full:
            return self.full
        return padded(min(self.full, windows + self.extra))


def cells_of(scenario: Scenario) -> CacheCells:
    """The context that a program makes for a scenario.

    Raises:
        UnknownNameError: No such program.
    """
    program = scenario.served
    sequences = max(program.slots, scenario.batch_count, 1)
    if program.unified:
        streams = 1
    else:
        streams = sequences
    full = padded(-(-scenario.context_tokens // streams), program.context_padding)
    batch = max(1, min(scenario.ubatch_tokens, full * streams))
    if program.outputs == "ubatch":
        outputs = batch
    else:
        outputs = min(batch, sequences * (1 + scenario.draft_tokens))
    values = scenario.value_type or scenario.kv_type
    return CacheCells(
        full=full,
        streams=streams,
        sequences=sequences,
        batch=batch,
        outputs=outputs,
        state_rows=sequences * (1 + scenario.draft_tokens),
        extra=program.batch_tokens if program.sliding_extra == "batch" else scenario.ubatch_tokens,
        types=(scenario.kv_type, values),
        program=program,
    )


def padded(token_count: int, padding: int = CELL_PADDING_TOKENS) -> int:
    """``token_count`` rounded up to whole paddings."""
    return -(-token_count // padding) * padding


def row_pair_bytes(shape: ModelShape, kv_type: str, value_type: str = "", *, sliding: bool = False) -> int:
    """Bytes that one token takes in one attention layer, of the full or of the sliding ones.

    K + V rows of ``kv_heads x head_dim`` entries; with latent attention one row of ``kv_rank + rope`` entries
    and no V. Gemma 4's full layers have other heads than its sliding ones.

    Raises:
        ValueError: The type's blocks do not divide the row.
    """
    kind = "full"
    if sliding:
        kind = "sliding"
    kinds = shape.layer_kinds
    if kind not in kinds:
        return 0
    facts = block_facts(shape, kinds.index(kind))
    return row_bytes(kv_type, facts["cache_key_dim"]) + row_bytes(
        value_type or kv_type, facts["cache_value_dim"]
    )


def layer_counts(shape: ModelShape) -> tuple[int, int, int]:
    """Layers with a full cache, with a sliding one, and with a recurrent state."""
    kinds = shape.layer_kinds
    own = kinds[: shape.layer_count - shape.kv_shared_layer_count]
    if has(shape.architecture, "state_beside_attention"):
        recurrent = shape.layer_count
    else:
        recurrent = kinds.count("recurrent")
    return own.count("full"), own.count("sliding"), recurrent


def recurrent_ratio(shape: ModelShape) -> float:
    """Share of the layers that keep a recurrent state."""
    return layer_counts(shape)[2] / max(shape.layer_count, 1)


def state_bytes(shape: ModelShape) -> int:
    """Bytes of one layer's recurrent state for one sequence, in F32; 0 for a model without.

    Convolution: (conv - 1) x (inner + 2 x groups x state); state: inner x state. Mamba-1 has no groups in its
    convolution, and LFM2 has a short convolution over the hidden width alone.
    """
    if shape.recurrent is None:
        return 0
    facts = model_facts(shape)
    return 4 * (
        facts["ssm_kept_taps"] * facts["ssm_row_dim"] + facts["ssm_inner_dim"] * facts["ssm_state_dim"]
    )


def kv_cache_bytes(shape: ModelShape, scenario: Scenario) -> int:
    """Bytes of the whole cache as llama.cpp allocates it (and zeroes, so all of it is resident from the start).

    Of the context each sequence gets an equal part, beside a recurrent state of its own; sliding layers must
    hold a physical batch beside their window.

    Raises:
        ValueError: The KV type's blocks do not divide the row.
    """
    return sum(block_cache_bytes(shape, cells_of(scenario)))


def block_cache_bytes(shape: ModelShape, cells: CacheCells) -> list[int]:
    """Bytes of each block's part of the cache: keys and values, recurrent states.

    Raises:
        ValueError: A type's blocks do not divide the row.
    """
    state = cells.state_rows * state_bytes(shape)
    kinds = shape.layer_kinds[: shape.layer_count - shape.kv_shared_layer_count]
    if not cells.program.latent_cache:
        shape = shape.replace(latent=None)
    # An indexer's row of keys of its own in so many of the layers, spread over all here.
    index = cells.streams * cells.full * shape.indexer_layer_count * row_bytes(cells.types[0], INDEXER_DIM)
    of = {
        "recurrent": state,
        "full": cells.streams * cells.full * row_pair_bytes(shape, *cells.types) + index // shape.layer_count,
        "sliding": cells.streams
        * cells.sliding(shape.sliding_window_tokens)
        * row_pair_bytes(shape, *cells.types, sliding=True),
    }
    both = (
        state if has(shape.architecture, "state_beside_attention") else 0
    )  # attention and a state in every block
    return [both + of.get(kind, 0) for kind in kinds] + [both] * shape.kv_shared_layer_count


def kv_read_bytes(shape: ModelShape, depth_tokens: float, kv_type: str = "F16") -> float:
    """Bytes of cache read to decode one token with ``depth_tokens`` before it: rows in view, and every state.

    Layers without rows of their own (Gemma 3n and 4) read those of an earlier layer once more.
    """
    kinds = shape.layer_kinds
    rows = kinds.count("full") * depth_tokens * row_pair_bytes(shape, kv_type)
    seen = min(depth_tokens, shape.sliding_window_tokens)
    rows += kinds.count("sliding") * seen * row_pair_bytes(shape, kv_type, sliding=True)
    return float(rows + layer_counts(shape)[2] * state_bytes(shape))
