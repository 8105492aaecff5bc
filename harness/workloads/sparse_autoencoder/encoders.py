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

from harness.errors import MissingPackageError, RefusedError
from harness.workloads.sparse_autoencoder.model import Codes, Floats, SparseAutoencoder, empty_rows, largest, positive

NUMPY_KINDS: Final = ("fp32", "fp16", "int8")
ONNX_KINDS: Final = ("ort fp32", "ort int8", "ort int4")
_BLOCK_ELEMENTS: Final = 1 << 16  # widened at once: 256 KiB of float32, which a second-level cache holds
_PROTO_LIMIT_BYTES: Final = 2**31 - 2**20
"""A graph's message may not be larger; the quantizer needs it whole."""


class Encoder(NamedTuple):
    """One way to encode.

    Attributes:
        kind: Of :data:`NUMPY_KINDS` or :data:`ONNX_KINDS`.
        weight_bytes: Bytes of W_enc as stored, scales included.
        top: The k largest activations of x [token_count, input_dim].
    """

    kind: str
    weight_bytes: int
    top: Callable[[Floats], Codes]


def kinds() -> tuple[str, ...]:
    """Those that can run with the packages that are installed."""
    has_onnx = all(find_spec(name) for name in ("onnxruntime", "onnx", "onnx_ir"))
    return (*NUMPY_KINDS, *(ONNX_KINDS if has_onnx else ()))


def weight_bytes(kind: str, input_dim: int, feature_count: int) -> int:
    """Bytes of W_enc: 4, 2 or 1 a weight, a float32 scale for each feature (int8) or block of 32 (ONNX Runtime)."""
    count = input_dim * feature_count
    return {
        "fp32": 4 * count,
        "fp16": 2 * count,
        "int8": count + 4 * feature_count,
        "ort fp32": 4 * count,
        "ort int8": count + 4 * count // 32,
        "ort int4": count // 2 + 4 * count // 32,
    }[kind]


def make_encoder(autoencoder: SparseAutoencoder, kind: str, folder: Path, *, thread_count: int = 1) -> Encoder:
    """Build one; ``folder`` takes the graphs of ONNX Runtime.

    Raises:
        RefusedError: No such kind, no TopK, or a graph beyond two GiB.
        MissingPackageError: ONNX Runtime or its quantizer is not installed.
    """
    if autoencoder.activation != "topk":
        raise RefusedError("only TopK autoencoders have encoders in several precisions")
    size = weight_bytes(kind, autoencoder.input_dim, autoencoder.feature_count) if kind in _MAKERS else 0
    if not size:
        raise RefusedError(f"no encoder {kind!r}; one of: {', '.join(_MAKERS)}")
    return Encoder(kind, size, _MAKERS[kind](autoencoder, folder, thread_count))


# -- numpy ------------------------------------------------------------------------------------------------------


def _fp32(sae: SparseAutoencoder, _folder: Path, _threads: int) -> Callable[[Floats], Codes]:
    # Inputs in rows, as SAELens stores them. Copied only where the rows lie badly; see :func:`~.model.empty_rows`.
    encoder = sae.encoder
    if encoder.strides[0] % 4096 == 0 or encoder.strides[1] != encoder.itemsize:
        encoder = empty_rows(*sae.encoder.shape)
        np.copyto(encoder, sae.encoder)
    return replace(sae, encoder=encoder).encode_sparse


def widen_half(half: NDArray[np.float16], scratch: NDArray[np.int32]) -> Floats:
    """float16 as float32 by integer operations, 4 to 18 times faster than numpy's own cast; infinities are not kept.

    Both formats are sign, exponent, fraction. Sign-extend to 32 bits, shift by the 13 bits that the fraction is longer,
    keep sign, exponent and fraction, and multiply by 2^112, the difference of the exponents' biases (127 - 15).
    """
    np.copyto(scratch, half.view(np.int16))
    np.left_shift(scratch, 13, out=scratch)
    np.bitwise_and(scratch, np.int32(0x8FFFE000 - 2**32), out=scratch)
    wide = scratch.view(np.float32)
    return np.multiply(wide, np.float32(2.0**112), out=wide)


def _fp16(sae: SparseAutoencoder, _folder: Path, _threads: int) -> Callable[[Floats], Codes]:
    weights = np.ascontiguousarray(sae.encoder.T, np.float16)
    scratch = np.empty((_block_rows(sae), sae.input_dim), np.int32)
    return _by_blocks(sae, weights, lambda part: widen_half(part, scratch[: len(part)]), None)


def _int8(sae: SparseAutoencoder, _folder: Path, _threads: int) -> Callable[[Floats], Codes]:
    scales = np.maximum(np.abs(sae.encoder).max(axis=0), np.float32(1e-30)) / np.float32(127)
    weights = np.ascontiguousarray(np.rint(sae.encoder / scales).T, np.int8)
    scratch = np.empty((_block_rows(sae), sae.input_dim), np.float32)

    def widen(part: NDArray[Any]) -> Floats:
        wide = scratch[: len(part)]
        np.copyto(wide, part)
        return wide

    return _by_blocks(sae, weights, widen, scales)


def _block_rows(sae: SparseAutoencoder) -> int:
    return max(1, _BLOCK_ELEMENTS // sae.input_dim)


def _by_blocks(
    sae: SparseAutoencoder, weights: NDArray[Any], widen: Callable[[NDArray[Any]], Floats], scales: Floats | None
) -> Callable[[Floats], Codes]:
    """Encode with weights [feature_count, input_dim] that are widened a few features at a time."""
    rows = _block_rows(sae)

    def top(x: Floats) -> Codes:
        centred = np.ascontiguousarray((x - sae.decoder_bias if sae.centred else x).T)
        h = np.empty((sae.feature_count, len(x)), np.float32)
        for start in range(0, sae.feature_count, rows):
            np.matmul(widen(weights[start : start + rows]), centred, out=h[start : start + rows])
        if scales is not None:
            h *= scales[:, None]
        h += sae.encoder_bias[:, None]
        return largest(h.T, sae.active_count)

    return top


# -- ONNX Runtime -----------------------------------------------------------------------------------------------


def write_graph(sae: SparseAutoencoder, path: Path) -> Path:
    """Sub, MatMul, Add, Relu, TopK as an ONNX file with its weights beside it.

    Raises:
        MissingPackageError: onnx is not installed.
        RefusedError: The weights are more than two GiB.
    """
    try:
        import onnx
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise MissingPackageError("onnx", "quantize") from error
    if sae.encoder.nbytes > _PROTO_LIMIT_BYTES:
        raise RefusedError(f"an encoder of {sae.encoder.nbytes} bytes does not fit one ONNX message (2 GiB)")
    shift = sae.decoder_bias if sae.centred else np.zeros_like(sae.decoder_bias)
    constants: dict[str, NDArray[Any]] = {
        "W_enc": sae.encoder,
        "b_enc": sae.encoder_bias,
        "b_dec": shift,
        "k": np.array([sae.active_count], np.int64),
    }
    nodes = [
        helper.make_node("Sub", ["x", "b_dec"], ["centred"]),
        helper.make_node("MatMul", ["centred", "W_enc"], ["product"], name="encode"),
        helper.make_node("Add", ["product", "b_enc"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("TopK", ["active", "k"], ["values", "indices"], axis=1, largest=1, sorted=0),
    ]
    graph = helper.make_graph(
        nodes,
        "sparse-autoencoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["tokens", sae.input_dim])],
        [
            helper.make_tensor_value_info("values", TensorProto.FLOAT, ["tokens", sae.active_count]),
            helper.make_tensor_value_info("indices", TensorProto.INT64, ["tokens", sae.active_count]),
        ],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)
    onnx.save_model(model, str(path), save_as_external_data=True, location=data.name, size_threshold=1024)
    return path


def _onnx(bits: int) -> Callable[[SparseAutoencoder, Path, int], Callable[[Floats], Codes]]:
    def make(sae: SparseAutoencoder, folder: Path, thread_count: int) -> Callable[[Floats], Codes]:
        from harness.onnx.quantize import quantize_weights
        from harness.onnx.session import OnnxSession

        source = folder / "encoder-fp32.onnx"
        if not source.is_file():
            write_graph(sae, source)
        path = source
        if bits < 32:
            path = quantize_weights(source, folder / f"encoder-int{bits}.onnx", bits=bits)
        session = OnnxSession(path, thread_count=thread_count)

        def top(x: Floats) -> Codes:
            values, indices = session.run({"x": x}, ["values", "indices"])
            return positive(indices, values)

        return top

    return make


_MAKERS: Final[dict[str, Callable[[SparseAutoencoder, Path, int], Callable[[Floats], Codes]]]] = {
    "fp32": _fp32,
    "fp16": _fp16,
    "int8": _int8,
    "ort fp32": _onnx(32),
    "ort int8": _onnx(8),
    "ort int4": _onnx(4),
}
