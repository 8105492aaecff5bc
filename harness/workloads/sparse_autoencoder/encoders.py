"""The encoder on a device: numpy with FP32, FP16 or INT8 weights, and ONNX Runtime with FP32, 8-bit or 4-bit weights.

At batch 1 an encoder is a matrix-vector product: every weight is read once, so its time is weight bytes over bandwidth,
and fewer bits are faster only where the kernel reads them as they are. numpy computes in float32 alone: FP16 and INT8
weights are widened block by block in the cache, which saves memory and costs time. ONNX Runtime's ``MatMulNBits`` with
``accuracy_level=4`` multiplies int8 by int8.
"""

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.onnx.quantize import quantize_weights, save
from harness.onnx.session import OnnxSession
from harness.workloads.sparse_autoencoder.model import Codes, Floats, SparseAutoencoder, empty_rows, largest

_ONNX_BITS: Final = {"ort fp32": 32, "ort int8": 8, "ort int4": 4}
KINDS: Final = {"fp32": 32, "fp16": 16, "int8": 8, **_ONNX_BITS}
"""Bits of a weight by the way to encode."""
_BLOCK_ELEMENTS: Final = 1 << 16  # widened at once: 256 KiB of float32, which a second-level cache holds
_PROTO_LIMIT_BYTES: Final = 2**31 - 2**20
"""A graph's message may not be larger; the quantizer needs it whole."""
_GRAPH: Final = """<ir_version: 9, opset_import: ["" : 18]>
sparse_autoencoder (float[tokens, {input_dim}] x) => (float[tokens, {count}] values, int64[tokens, {count}] indices) {{
  centred = Sub(x, b_dec)
  product = MatMul(centred, W_enc)
  hidden = Add(product, b_enc)
  active = Relu(hidden)
  values, indices = TopK<axis = 1, largest = 1, sorted = 0>(active, k)
}}"""


class Encoder(NamedTuple):
    """One way to encode.

    Attributes:
        kind: Of :data:`KINDS`.
        weight_bytes: Bytes of W_enc as stored, scales included.
        top: The k largest activations of x [token_count, input_dim].
    """

    kind: str
    weight_bytes: int
    top: Callable[[Floats], Codes]


def kinds(input_dim: int, feature_count: int) -> list[str]:
    """Those that can run at a size (one ONNX message holds two GiB) with the packages that are installed."""
    has_onnx = all(find_spec(name) for name in ("onnxruntime", "onnx", "onnx_ir"))
    fits = has_onnx and 4 * input_dim * feature_count < _PROTO_LIMIT_BYTES
    return [kind for kind in KINDS if fits or kind not in _ONNX_BITS]


def weight_bytes(kind: str, input_dim: int, feature_count: int) -> int:
    """Bytes of W_enc: 4, 2 or 1 a weight, a float32 scale for each feature (int8) or block of 32 (ONNX Runtime)."""
    count, bits = input_dim * feature_count, KINDS[kind]
    scale_count = 0 if bits > 8 else count // 32 if kind in _ONNX_BITS else feature_count
    return count * bits // 8 + 4 * scale_count


def make_encoder(autoencoder: SparseAutoencoder, kind: str, folder: Path, *, thread_count: int = 1) -> Encoder:
    """Build one of :func:`kinds`; ``folder`` takes the graphs of ONNX Runtime."""
    if kind in _ONNX_BITS:
        top = _onnx(autoencoder, _ONNX_BITS[kind], folder, thread_count)
    else:
        top = {"fp32": _fp32, "fp16": _fp16, "int8": _int8}[kind](autoencoder)
    return Encoder(kind, weight_bytes(kind, autoencoder.input_dim, autoencoder.feature_count), top)


# -- numpy ------------------------------------------------------------------------------------------------------


def _fp32(sae: SparseAutoencoder) -> Callable[[Floats], Codes]:
    # Inputs in rows, as SAELens stores them. Copied only where the rows lie badly; see :func:`~.model.empty_rows`.
    encoder = sae.encoder
    if encoder.strides[0] % 4096 == 0 or encoder.strides[1] != encoder.itemsize:
        encoder = empty_rows(*sae.encoder.shape)
        np.copyto(encoder, sae.encoder)
    return replace(sae, encoder=encoder).encode_sparse


def widen_half(half: NDArray[np.float16], wide: Floats) -> None:
    """float16 as float32 by integer operations, 4 to 18 times faster than numpy's own cast; infinities are not kept.

    Both formats are sign, exponent, fraction. Sign-extend to 32 bits, shift by the 13 bits that the fraction is longer,
    keep sign, exponent and fraction, and multiply by 2^112, the difference of the exponents' biases (127 - 15).
    """
    bits = wide.view(np.int32)
    np.copyto(bits, half.view(np.int16))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, np.int32(0x8FFFE000 - 2**32), out=bits)
    np.multiply(wide, np.float32(2.0**112), out=wide)


def _fp16(sae: SparseAutoencoder) -> Callable[[Floats], Codes]:
    return _by_blocks(sae, np.ascontiguousarray(sae.encoder.T, np.float16), widen_half, None)


def _int8(sae: SparseAutoencoder) -> Callable[[Floats], Codes]:
    scales = np.maximum(np.abs(sae.encoder).max(axis=0), np.float32(1e-30)) / np.float32(127)
    weights = np.ascontiguousarray(np.rint(sae.encoder / scales).T, np.int8)
    return _by_blocks(sae, weights, lambda part, wide: np.copyto(wide, part), scales)


def _by_blocks(
    sae: SparseAutoencoder, weights: NDArray[Any], widen: Callable[[NDArray[Any], Floats], None], scales: Floats | None
) -> Callable[[Floats], Codes]:
    """Encode with weights [feature_count, input_dim] that are widened a few features at a time."""
    rows = max(1, _BLOCK_ELEMENTS // sae.input_dim)
    scratch = np.empty((rows, sae.input_dim), np.float32)

    def top(x: Floats) -> Codes:
        centred = np.ascontiguousarray((x - sae.decoder_bias).T)
        h = np.empty((sae.feature_count, len(x)), np.float32)
        for start in range(0, sae.feature_count, rows):
            part = weights[start : start + rows]
            wide = scratch[: len(part)]
            widen(part, wide)
            np.matmul(wide, centred, out=h[start : start + rows])
        if scales is not None:
            h *= scales[:, None]
        h += sae.encoder_bias[:, None]
        return largest(h.T, sae.active_count)

    return top


# -- ONNX Runtime -----------------------------------------------------------------------------------------------


def write_graph(sae: SparseAutoencoder, path: Path) -> None:
    """Sub, MatMul, Add, Relu, TopK as an ONNX file with its weights beside it."""
    import onnx
    import onnx.parser

    model = onnx.parser.parse_model(_GRAPH.format(input_dim=sae.input_dim, count=sae.active_count))
    constants: dict[str, NDArray[Any]] = {
        "W_enc": sae.encoder,
        "b_enc": sae.encoder_bias,
        "b_dec": sae.decoder_bias,
        "k": np.array([sae.active_count], np.int64),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in constants.items())
    save(model, path)


def _onnx(sae: SparseAutoencoder, bits: int, folder: Path, thread_count: int) -> Callable[[Floats], Codes]:
    path = folder / "encoder-fp32.onnx"
    if not path.is_file():
        write_graph(sae, path)
    if bits < 32:
        path = quantize_weights(path, folder / f"encoder-int{bits}.onnx", bits=bits)
    session = OnnxSession(path, thread_count=thread_count)

    def top(x: Floats) -> Codes:
        return Codes(*session.run({"x": x}, ["indices", "values"]))

    return top
