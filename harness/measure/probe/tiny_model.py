"""Small llama-like models of any type: an engine's costs can be timed on them before a real model is there."""

from pathlib import Path
from typing import Final

from harness.core.model import ModelShape, Tensor
from harness.models.gguf_write import Value, write_gguf
from harness.models.quant import MIXTURES
from harness.models.random_weights import SYNTHETIC_TYPES, BlockSource
from harness.models.weights import tensor_of, tensors_of

_FILE_ORDER: Final = (
    "attn_norm",
    "ffn_down",
    "ffn_gate",
    "ffn_up",
    "ffn_norm",
    "attn_k",
    "attn_output",
    "attn_q",
    "attn_v",
)
"""Tensors of a layer as converters write them: by their names in the original checkpoint, not in the order in
which they are read, so that a tiny model lies in memory as a real one does."""

TINY_TYPES: Final = (
    SYNTHETIC_TYPES - {"MXFP4"} - {one.base for one in MIXTURES.values() if "throughout" in one.flags}
)
"""Types that a tiny model can be made of."""


def tiny_shape(
    layer_count: int,
    hidden_dim: int,
    inner_dim: int,
    head_count: int,
    kv_head_count: int,
    vocab_count: int = 256,
) -> ModelShape:
    """Shape of a llama-like model with heads of 64 numbers, whose output matrix is the token table."""
    return ModelShape(
        architecture="llama",
        layer_count=layer_count,
        hidden_dim=hidden_dim,
        vocab_count=vocab_count,
        head_count=head_count,
        kv_head_count=kv_head_count,
        head_dim=64,
        feed_forward_dim=inner_dim,
        tied_embeddings=True,
        context_max_tokens=1 << 16,
    )


def tiny_tensors(shape: ModelShape, type_name: str) -> list[Tensor]:
    """Its tensors as they lie in the file: all matrices, the tied output matrix among them, are of ``type_name``.

    Raises:
        KeyError: There is no such type.
        ValueError: A row is no whole number of blocks.
    """
    table = tensors_of(shape)
    names = [f"blk.{layer}.{part}" for layer in range(shape.layer_count) for part in _FILE_ORDER]
    dims = {f"{name}.weight": table[f"{name}.weight"] for name in ("token_embd", "output_norm", *names)}
    return [tensor_of(name, of, type_name if len(of) > 1 else "F32") for name, of in dims.items()]


def matrices(shape: ModelShape, type_name: str) -> list[Tensor]:
    """What a pass reads: the matrices of all layers, and the output matrix."""
    return [tensor for tensor in tiny_tensors(shape, type_name) if len(tensor.dims) > 1]


def write_tiny(path: Path, shape: ModelShape, type_name: str) -> None:
    """Write a model of ``tiny_tensors``, without a tokenizer.

    Raises:
        KeyError: No tiny model can be made of that type.
        ValueError: A row is no whole number of blocks.
    """
    tensors = tiny_tensors(shape, type_name)
    sizes: dict[str, Value] = {
        "block_count": shape.layer_count,
        "context_length": shape.context_max_tokens,
        "embedding_length": shape.hidden_dim,
        "feed_forward_length": shape.feed_forward_dim,
        "vocab_size": shape.vocab_count,
        "attention.head_count": shape.head_count,
        "attention.head_count_kv": shape.kv_head_count,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": shape.head_dim,
    }
    metadata = {"general.architecture": "llama", "tokenizer.ggml.model": "none"}
    write_gguf(
        path, metadata | {f"llama.{key}": value for key, value in sizes.items()}, tensors, BlockSource(1).fill
    )
