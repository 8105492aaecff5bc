"""Model files with random weights at true shapes: they have the size and the speed of the model, and no meaning.

The tensors are those of the real model, name by name and type by type; their blocks are random but
well-formed: scales are set so that weights have a standard deviation of about 0.02, as trained ones do, and
nothing overflows.

A router of random weights behind random blocks chooses nearly the same experts for every token: nothing like
a trained model. In a mixture of experts the norms before attention and before the experts are therefore
small, and with them what blocks add: a hidden state stays that of its own token, and the router's logits are
standard normal noise, drawn anew for each token of the vocabulary. Experts are chosen evenly, which is the
worst case for a cache of them. Where the token table is the output matrix too, greedy output still repeats
one token.

Source of the blocks: llama.cpp, ggml/src/ggml-common.h and the dequantisation in ggml/src/ggml-quants.c.
"""

from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from harness.arrays import Doubles
from harness.catalog._progress import Progress, no_progress
from harness.catalog.fetch import check_room
from harness.catalog.gguf import SYNTHETIC_KEY
from harness.catalog.gguf_write import header_bytes, metadata_of, padding_bytes, write_gguf
from harness.domain.ggml import BLOCKS
from harness.domain.model import Tensor, Weights
from harness.errors import CouldNotRunError, RefusedError

Bytes = NDArray[np.uint8]
WEIGHT_STD: Final = 0.02
_CHUNK_BYTES: Final = 8 << 20
_MIXTURE_NORM: Final = 1e-3
"""Weights of the norms before attention and experts: over a model's depth blocks then add less than a token's
state."""
_LOG_SPREAD: Final = 0.4
"""Standard deviation of the logarithm of a scale. Scales must differ as trained ones do: where the processor
has no quick way, llama.cpp turns them into 32-bit numbers by a table of 256 KiB, and one scale repeated would
always hit."""
_MXFP4_EXPONENT: Final = 120  # 2**(120 - 128) x values of -12 to 12: about 0.02

SYNTHETIC_TYPES: Final = frozenset({"F32", "F16", "BF16", "MXFP4"}).union(
    name for name, block in BLOCKS.items() if block.scale_at is not None
)
"""Types that random weights can be made of."""


def synthesize(
    weights: Weights, path: Path, *, seed: int = 0, name: str = "", progress: Progress = no_progress
) -> Path:
    """Write a file of random weights that llama.cpp loads as it would the real one.

    Memory: some 10 MiB a type.

    The same seed gives the same bytes.

    Raises:
        RefusedError: No room on the disk, or a type that random weights cannot be made of.
        CouldNotRunError: The file cannot be written.
    """
    for tensor in weights.tensors:
        if tensor.type_name not in SYNTHETIC_TYPES:
            raise RefusedError(f"{tensor.name}: no random weights of type {tensor.type_name}")
    metadata = metadata_of(weights.shape, name=name or path.stem, quant=weights.quant)
    metadata |= {"general.synthetic": True, SYNTHETIC_KEY: "synthetic"}
    total = sum(t.size_bytes + padding_bytes(t.size_bytes) for t in weights.tensors)
    source = BlockSource(seed, total, progress, routed=weights.shape.experts is not None)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_room(path.parent, total + len(header_bytes(metadata, weights.tensors)))
        write_gguf(path, metadata, weights.tensors, source.fill)
    except OSError as error:
        raise CouldNotRunError(f"{path}: cannot be written ({error.strerror})") from error
    return path


class BlockSource:
    """Bytes for tensors: one random chunk a type, entered at another block for each tensor, repeated as needed."""

    def __init__(
        self, seed: int, total_bytes: int, progress: Progress = no_progress, *, routed: bool = False
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.routed = routed
        self.chunks: dict[str, Bytes] = {}
        self.done_bytes = 0
        self.total_bytes = total_bytes
        self.progress = progress

    def fill(self, out: IO[bytes], tensor: Tensor) -> None:
        """Write one tensor."""
        constant = _constant(tensor.name)
        if self.routed and tensor.name.endswith((".attn_norm.weight", ".ffn_norm.weight")):
            constant = _MIXTURE_NORM
        if tensor.type_name == "F32" and constant is not None:
            out.write(np.full(tensor.element_count, constant, np.float32).tobytes())
        elif tensor.type_name == "F32" and tensor.name.endswith(".ffn_gate_inp.weight"):
            rows = self.random.standard_normal(tensor.element_count, np.float32)
            out.write((rows / np.float32(_MIXTURE_NORM * np.sqrt(tensor.dims[0]))).tobytes())
        else:
            self._blocks(out, tensor)
        self.done_bytes += tensor.size_bytes + padding_bytes(tensor.size_bytes)
        self.progress(self.done_bytes, self.total_bytes)

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
