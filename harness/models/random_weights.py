"""Random weights in well-formed blocks of every type, for tiny models on which an engine is timed.

Scales are set so that weights have a standard deviation of about 0.02, as trained ones do, and nothing overflows.

Source of the blocks: llama.cpp, ggml/src/ggml-common.h and the dequantisation in ggml/src/ggml-quants.c.
"""

from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from harness.core.arrays import Doubles
from harness.core.model import Tensor
from harness.models.ggml import BLOCKS

Bytes = NDArray[np.uint8]
WEIGHT_STD: Final = 0.02
_CHUNK_BYTES: Final = 8 << 20
_LOG_SPREAD: Final = 0.4
"""Standard deviation of the logarithm of a scale. Scales must differ as trained ones do: where the processor
has no quick way, llama.cpp turns them into 32-bit numbers by a table of 256 KiB, and one scale repeated would
always hit."""
_MXFP4_EXPONENT: Final = 120  # 2**(120 - 128) x values of -12 to 12: about 0.02

SYNTHETIC_TYPES: Final = frozenset({"F32", "F16", "BF16", "MXFP4"}).union(
    name for name, block in BLOCKS.items() if block.scale_at is not None
)
"""Types that random weights can be made of."""


class BlockSource:
    """Bytes for tensors: one random chunk a type, entered at another block for each tensor, repeated as needed."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.chunks: dict[str, Bytes] = {}

    def fill(self, out: IO[bytes], tensor: Tensor) -> None:
        """Write one tensor."""
        constant = _constant(tensor.name)
        if tensor.type_name == "F32" and constant is not None:
            out.write(np.full(tensor.element_count, constant, np.float32).tobytes())
        else:
            self._blocks(out, tensor)

    def _blocks(self, out: IO[bytes], tensor: Tensor) -> None:
        kind = tensor.type_name
        if kind not in self.chunks:
            self.chunks[kind] = random_blocks(kind, _CHUNK_BYTES // BLOCKS[kind].size_bytes, self.random)
        chunk = self.chunks[kind]
        block = BLOCKS[kind].size_bytes
        start = int(self.random.integers(len(chunk) // block)) * block
        left = tensor.size_bytes
        view = chunk.data
        while left > 0:
            part = view[start : start + left]
            out.write(part)
            left -= len(part)
            start = 0


def _constant(name: str) -> float | None:
    """Value of a vector that must not be random: norms are 1, biases 0, decay rates negative."""
    if "norm" in name or name.endswith(("ssm_d", "_scale.weight")):
        return 1.0
    if name.endswith("ssm_a"):
        return -1.0
    if name.endswith(".bias"):
        return 0.0
    return None


def random_blocks(type_name: str, count: int, random: "np.random.Generator") -> Bytes:
    """``count`` well-formed blocks of random weights, as bytes."""
    if type_name in {"F32", "F16", "BF16"}:
        return _floats(type_name, count, random)
    block = BLOCKS[type_name]
    data = random.integers(0, 256, (count, block.size_bytes), dtype=np.uint8)
    if type_name == "MXFP4":
        data[:, 0] = _MXFP4_EXPONENT - random.integers(0, 2, count)
    elif block.scale_at is not None:
        values = _scales(count, block.spread, random)
        if block.is_signed:
            values *= random.choice((-1.0, 1.0), count)
        data[:, block.scale_at : block.scale_at + 2] = _halves(values)
        if block.offset_at is not None:
            data[:, block.offset_at : block.offset_at + 2] = _halves(values * block.offset_ratio)
    return data.reshape(-1)


def _floats(type_name: str, count: int, random: "np.random.Generator") -> Bytes:
    values = random.standard_normal(count, dtype=np.float32) * np.float32(WEIGHT_STD)
    if type_name == "F16":
        return values.astype(np.float16).view(np.uint8)
    if type_name == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    return values.view(np.uint8)


def _scales(count: int, spread: float, random: "np.random.Generator") -> Doubles:
    """Log-normal scales; their root mean square times ``spread`` is ``WEIGHT_STD``."""
    # The mean square of exp(s x), x standard normal, is exp(2 s**2).
    return np.exp(_LOG_SPREAD * random.standard_normal(count) - _LOG_SPREAD**2) * (WEIGHT_STD / spread)


def _halves(values: Doubles) -> Bytes:
    """Half-precision numbers as bytes, [count, 2]."""
    return values.astype(np.float16).view(np.uint8).reshape(-1, 2)
