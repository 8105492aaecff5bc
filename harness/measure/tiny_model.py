"""Small GGUF files with random weights of any type: they have size and speed, and no meaning.

They let an engine's costs be timed before a real model is there. Scales are small numbers, so that no product
overflows; everything else in a block is random. Sources: GGUF specification (docs/gguf.md of the ggml repository);
places of the scales: ggml/src/ggml-common.h.
"""

import struct
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.domain.ggml import BLOCKS, row_bytes

_ALIGNMENT: Final = 32
_SCALE_OFFSETS: Final[dict[str, tuple[int, ...]]] = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "IQ2_XXS": (0,),
    "IQ2_XS": (0,),
    "IQ2_S": (0,),
    "IQ3_XXS": (0,),
    "IQ3_S": (0,),
    "IQ1_S": (0,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
}
"""Bytes of a block at which its half-precision scales stand."""

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

TINY_TYPES: Final = frozenset(_SCALE_OFFSETS) | {"F32", "F16", "BF16"}
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

    def products(self) -> tuple[tuple[str, int, int], ...]:
        """The matrices of one layer: (name, row length, rows)."""
        h, f = self.hidden_dim, self.feed_forward_dim
        q, kv = self.head_count * self.head_dim, self.kv_head_count * self.head_dim
        return (
            ("attn_q", h, q),
            ("attn_k", h, kv),
            ("attn_v", h, kv),
            ("attn_output", q, h),
            ("ffn_gate", h, f),
            ("ffn_up", h, f),
            ("ffn_down", f, h),
        )

    def layer_rows(self) -> int:
        """Weight rows of one layer."""
        return sum(rows for _, _, rows in self.products())

    def layer_bytes(self, type_name: str) -> int:
        """Weight bytes of one layer's matrices."""
        return sum(rows * row_bytes(type_name, length) for _, length, rows in self.products())


def write_tiny(path: Path, shape: TinyShape, type_name: str) -> None:
    """Write a model whose matrices, the tied output matrix among them, are of ``type_name``.

    Raises:
        KeyError: No tiny model can be made of that type.
        ValueError: A row is no whole number of blocks.
    """
    draw = np.random.default_rng(1)
    h = shape.hidden_dim
    tensors: list[tuple[str, tuple[int, ...], str]] = [
        ("token_embd.weight", (h, shape.vocab_count), type_name),
        ("output_norm.weight", (h,), "F32"),
    ]
    products = {name: (k, n) for name, k, n in shape.products()}
    for layer in range(shape.layer_count):
        for name in _FILE_ORDER:
            kind = "F32" if name.endswith("norm") else type_name
            tensors.append((f"blk.{layer}.{name}.weight", products.get(name, (h,)), kind))
    records, offset, sizes = b"", 0, []
    for name, dims, kind in tensors:
        size = row_bytes(kind, dims[0]) * (dims[1] if len(dims) > 1 else 1)
        records += _text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        records += struct.pack("<IQ", BLOCKS[kind].type_id, offset)
        sizes.append(size)
        offset += -(-size // _ALIGNMENT) * _ALIGNMENT
    meta = _metadata(shape)
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta)) + b"".join(meta) + records
    with path.open("wb") as out:
        out.write(header + bytes(-len(header) % _ALIGNMENT))
        for (_, _, kind), size in zip(tensors, sizes, strict=True):
            _write_random(out, kind, size, draw)
            out.write(bytes(-size % _ALIGNMENT))


def _metadata(shape: TinyShape) -> list[bytes]:
    numbers = {
        "block_count": shape.layer_count,
        "context_length": 1 << 16,
        "embedding_length": shape.hidden_dim,
        "feed_forward_length": shape.feed_forward_dim,
        "attention.head_count": shape.head_count,
        "attention.head_count_kv": shape.kv_head_count,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "rope.dimension_count": shape.head_dim,
        "vocab_size": shape.vocab_count,
    }
    found = [_text("general.architecture") + struct.pack("<I", 8) + _text("llama")]
    found += [_text("tokenizer.ggml.model") + struct.pack("<I", 8) + _text("none")]
    found += [_text(f"llama.{key}") + struct.pack("<II", 4, value) for key, value in numbers.items()]
    found += [_text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5)]
    return found


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _write_random(out: Any, kind: str, size: int, draw: np.random.Generator) -> None:
    """Write ``size`` bytes of valid random blocks, some megabytes at a time."""
    block = BLOCKS[kind]
    count = size // block.size_bytes
    part = min(count, max((4 << 20) // block.size_bytes, 1))
    data = _random_blocks(kind, part, draw)
    while count > 0:
        take = min(count, part)
        out.write(data[:take].tobytes())
        count -= take


def _random_blocks(kind: str, count: int, draw: np.random.Generator) -> NDArray[Any]:
    if kind == "F32":
        return np.ones(count, np.float32)
    if kind == "F16":
        return (draw.standard_normal(count, dtype=np.float32) * 0.02).astype(np.float16)
    if kind == "BF16":
        return (draw.standard_normal(count, dtype=np.float32) * 0.02).view(np.uint32).__rshift__(16).astype(np.uint16)
    data = draw.integers(0, 256, (count, BLOCKS[kind].size_bytes), dtype=np.uint8)
    for offset in _SCALE_OFFSETS[kind]:
        # Scales differ as trained ones do: engines may look halves up in a table, and equal ones would stay in cache.
        scales = (1e-3 * np.exp(0.5 * draw.standard_normal(count))).astype(np.float16)
        data[:, offset : offset + 2] = scales.view(np.uint8).reshape(count, 2)
    return data
