"""Bytes of what a model keeps between tokens: keys and values by kind of layer, and recurrent states.

Source: llama.cpp (release packed in llama-cpp-python 0.3.36), src/llama-kv-cache.cpp, src/llama-kv-cache-iswa.cpp and
src/llama-hparams.cpp (``n_embd_r``, ``n_embd_s``).
"""

from typing import Final

from harness.domain.ggml import row_bytes
from harness.domain.model import ModelShape, Recurrent

CELL_PADDING_TOKENS: Final = 256
"""The context, and the cache of sliding layers, are rounded up to this."""

CELL_RECORD_BYTES: Final = 85
"""Bookkeeping of one cell: position, shift and a bit for each sequence it belongs to (measured growth of anonymous
memory beyond the buffers when the context grows from 4096 to 16384)."""


def padded(token_count: int) -> int:
    """``token_count`` rounded up to whole paddings."""
    return -(-token_count // CELL_PADDING_TOKENS) * CELL_PADDING_TOKENS


def row_pair_bytes(shape: ModelShape, kv_type: str, *, sliding: bool = False) -> int:
    """Bytes that one token takes in one attention layer, of the full or of the sliding ones.

    K + V rows of ``kv_heads x head_dim`` entries; with latent attention one row of ``kv_rank + rope`` entries and no V.
    Gemma 4's full layers have other heads than its sliding ones.

    Raises:
        ValueError: The type's blocks do not divide the row.
    """
    if shape.latent is not None and shape.architecture != "minicpm3":
        return row_bytes(kv_type, shape.latent.kv_rank_dim + shape.latent.rope_head_dim)
    if sliding and shape.sliding_head_dim:
        return 2 * row_bytes(kv_type, (shape.sliding_kv_head_count or shape.kv_head_count) * shape.sliding_head_dim)
    key = shape.kv_head_count * shape.head_dim
    value = shape.kv_head_count * (shape.value_head_dim or shape.head_dim)
    return row_bytes(kv_type, key) + row_bytes(kv_type, value)


def layer_counts(shape: ModelShape) -> tuple[int, int, int]:
    """Layers with a full cache, with a sliding one, and with a recurrent state."""
    kinds = [shape.layer_kind(layer) for layer in range(shape.layer_count)]
    own = kinds[: shape.layer_count - shape.kv_shared_layer_count]
    recurrent = shape.layer_count if shape.architecture == "falcon-h1" else kinds.count("recurrent")
    return own.count("full"), own.count("sliding"), recurrent


def recurrent_ratio(shape: ModelShape) -> float:
    """Share of the layers that keep a recurrent state."""
    return layer_counts(shape)[2] / max(shape.layer_count, 1)


def state_bytes(shape: ModelShape, recurrent: Recurrent) -> int:
    """Bytes of one layer's recurrent state for one sequence, in F32.

    Convolution: (conv - 1) x (inner + 2 x groups x state); state: inner x state. Mamba-1 has no groups in its
    convolution, and LFM2 has a short convolution over the hidden width alone.
    """
    if shape.architecture in {"lfm2", "lfm2moe"}:
        return 4 * (recurrent.conv_dim - 1) * shape.hidden_dim
    groups = 0 if shape.architecture in {"mamba", "jamba"} else recurrent.group_count
    convolution = (recurrent.conv_dim - 1) * (recurrent.inner_dim + 2 * groups * recurrent.state_dim)
    return 4 * (convolution + recurrent.inner_dim * recurrent.state_dim)


def full_cells(context_tokens: int, sequence_count: int = 1) -> int:
    """Cells of a layer that looks back at everything: each sequence has a part of its own, rounded up."""
    return sequence_count * padded(-(-context_tokens // sequence_count))


def kv_cache_bytes(
    shape: ModelShape, context_tokens: int, kv_type: str = "F16", *, ubatch_tokens: int = 512, sequence_count: int = 1
) -> int:
    """Bytes of the whole cache as llama.cpp allocates it (and zeroes, so all of it is resident from the start).

    Of the context each sequence gets an equal part, beside a recurrent state of its own; sliding layers must hold a
    physical batch beside their window.

    Raises:
        ValueError: The type's blocks do not divide the row.
    """
    return sum(block_cache_bytes(shape, context_tokens, kv_type, ubatch_tokens, sequence_count))


def block_cache_bytes(
    shape: ModelShape, context_tokens: int, kv_type: str, ubatch_tokens: int, sequence_count: int
) -> list[int]:
    """Bytes of each block's part of ``kv_cache_bytes``, with its arguments and errors."""
    state = sequence_count * state_bytes(shape, shape.recurrent) if shape.recurrent is not None else 0
    kinds = [shape.layer_kind(block) for block in range(shape.layer_count - shape.kv_shared_layer_count)]
    of = {"recurrent": state}
    if "full" in kinds:
        of["full"] = full_cells(context_tokens, sequence_count) * row_pair_bytes(shape, kv_type)
    if "sliding" in kinds:
        own = full_cells(context_tokens, sequence_count) // sequence_count  # a sequence's part of the context
        cells = padded(min(own, shape.sliding_window_tokens + ubatch_tokens))
        of["sliding"] = sequence_count * cells * row_pair_bytes(shape, kv_type, sliding=True)
    both = state if shape.architecture == "falcon-h1" else 0  # attention and a state in every block
    return [both + of.get(kind, 0) for kind in kinds] + [both] * shape.kv_shared_layer_count


def kv_read_bytes(shape: ModelShape, depth_tokens: float, kv_type: str = "F16") -> float:
    """Bytes of cache read to decode one token with ``depth_tokens`` before it: rows in view, and every state.

    Layers without rows of their own (Gemma 3n and 4) read those of an earlier layer once more.
    """
    kinds = [shape.layer_kind(layer) for layer in range(shape.layer_count)]
    full, sliding, recurrent = kinds.count("full"), kinds.count("sliding"), layer_counts(shape)[2]
    total = 0.0
    if full:
        total += full * depth_tokens * row_pair_bytes(shape, kv_type)
    if sliding:
        seen = min(depth_tokens, shape.sliding_window_tokens)
        total += sliding * seen * row_pair_bytes(shape, kv_type, sliding=True)
    if recurrent and shape.recurrent is not None:
        total += recurrent * state_bytes(shape, shape.recurrent)
    return total
