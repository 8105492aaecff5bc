"""Small llama-like models of any type: an engine's costs can be timed on them before a real model is there."""

from pathlib import Path
from typing import IO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.catalog.gguf_write import Value, write_gguf
from harness.catalog.synthesize import SYNTHETIC_TYPES, random_blocks
from harness.domain.ggml import BLOCKS, row_bytes
from harness.domain.model import Tensor

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
"""Tensors of a layer as converters write them: by their names in the original checkpoint, not in the order in which
they are read, so that a tiny model lies in memory as a real one does."""
_CHUNK_BYTES: Final = 4 << 20

TINY_TYPES: Final = SYNTHETIC_TYPES - {"IQ1_M", "MXFP4", "NVFP4", "Q1_0", "Q2_0"}
"""Types that a tiny model can be made of."""


class TinyShape(NamedTuple):
    """Shape of a llama-like model."""

    layer_count: int
    hidden_dim: int
    feed_forward_dim: int
    head_count: int
    kv_head_count: int
    head_dim: int
    vocab_count: int

    def products(self) -> dict[str, tuple[int, int]]:
        """The matrices of one layer: name to (row length, rows)."""
        h, f = self.hidden_dim, self.feed_forward_dim
        q, kv = self.head_count * self.head_dim, self.kv_head_count * self.head_dim
        return {
            "attn_q": (h, q),
            "attn_k": (h, kv),
            "attn_v": (h, kv),
            "attn_output": (q, h),
            "ffn_gate": (h, f),
            "ffn_up": (h, f),
            "ffn_down": (f, h),
        }

    def layer_rows(self) -> int:
        """Weight rows of one layer."""
        return sum(rows for _, rows in self.products().values())

    def layer_bytes(self, type_name: str) -> int:
        """Weight bytes of one layer's matrices."""
        return sum(rows * row_bytes(type_name, length) for length, rows in self.products().values())


def write_tiny(path: Path, shape: TinyShape, type_name: str) -> None:
    """Write a model whose matrices, the tied output matrix among them, are of ``type_name``.

    Raises:
        KeyError: No tiny model can be made of that type.
        ValueError: A row is no whole number of blocks.
    """
    draw, width, products = np.random.default_rng(1), shape.hidden_dim, shape.products()
    chunks: dict[str, NDArray[np.uint8]] = {}

    def fill(out: IO[bytes], tensor: Tensor) -> None:
        if tensor.type_name == "F32":
            out.write(np.ones(tensor.element_count, np.float32).tobytes())
            return
        if tensor.type_name not in chunks:
            count = _CHUNK_BYTES // BLOCKS[tensor.type_name].size_bytes
            chunks[tensor.type_name] = random_blocks(tensor.type_name, count, draw)
        chunk = chunks[tensor.type_name].data
        for start in range(0, tensor.size_bytes, len(chunk)):
            out.write(chunk[: tensor.size_bytes - start])

    tensors = [_tensor("token_embd", (width, shape.vocab_count), type_name), _tensor("output_norm", (width,), "F32")]
    for layer in range(shape.layer_count):
        for name in _FILE_ORDER:
            kind = type_name if name in products else "F32"
            tensors.append(_tensor(f"blk.{layer}.{name}", products.get(name, (width,)), kind))
    write_gguf(path, _metadata(shape), tensors, fill)


def _tensor(name: str, dims: tuple[int, ...], kind: str) -> Tensor:
    rows = dims[1] if len(dims) > 1 else 1
    return Tensor(name=f"{name}.weight", dims=dims, type_name=kind, size_bytes=row_bytes(kind, dims[0]) * rows)


def _metadata(shape: TinyShape) -> dict[str, Value]:
    numbers: dict[str, Value] = {
        "block_count": shape.layer_count,
        "context_length": 1 << 16,
        "embedding_length": shape.hidden_dim,
        "feed_forward_length": shape.feed_forward_dim,
        "attention.head_count": shape.head_count,
        "attention.head_count_kv": shape.kv_head_count,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": shape.head_dim,
        "vocab_size": shape.vocab_count,
    }
    named: dict[str, Value] = {f"llama.{key}": value for key, value in numbers.items()}
    return {"general.architecture": "llama", "tokenizer.ggml.model": "none"} | named
