"""Fewer bits for an ONNX graph, by ONNX Runtime's own quantizers; results always store weights as external data.

Which one suits what (measured, x86 with VNNI): weights in blocks (``MatMulNBits``) for language models and encoders.
Dynamic int8 has one activation scale for a tensor: it costs a small language model 0.6 nats a token where 8-bit blocks
cost 0.006, and ``ConvInteger`` has no fast kernel (12 times slower than float): it is for the products of encoders.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from harness.errors import BadDataError, EngineError, MissingPackageError, RefusedError

BLOCK_SIZE: Final = 32
"""Weights that share a scale."""


def quantize_weights(source: Path, target: Path, *, bits: int = 4) -> Path:
    """Weights of constant matrix products in blocks of 32 along the input dimension (``MatMulNBits``).

    Computed with int8 activations (accuracy level 4), the only fast kernels. Weights go to
    ``<target>.data``. RefusedError for bits that the engine does not have,
    MissingPackageError where onnx, onnx-ir or onnxruntime is not installed, BadDataError where the source cannot be
    read, EngineError where the quantizer failed.
    """
    if bits not in {4, 8}:
        raise RefusedError(f"weights of {bits} bits: 4 or 8")
    _need("onnx", "onnx_ir")
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    def make(scratch: Path) -> None:
        # The quantizer looks at matrices of the main graph only, and leaves what it does not know.
        quantizer = MatMulNBitsQuantizer(
            load(source),
            bits=bits,
            block_size=BLOCK_SIZE,
            is_symmetric=True,
            accuracy_level=4,
        )
        quantizer.process()
        save(quantizer.model.model, scratch)

    return _made(source, target, make)


def quantize_dynamic(source: Path, target: Path) -> Path:
    """Weights of matrix products as int8, a scale for each output channel; activations at run time, one for a tensor.

    Errors as :func:`quantize_weights`.
    """
    _need("onnx")
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as engine

    def make(scratch: Path) -> None:
        engine(
            str(source),
            str(scratch),
            per_channel=True,
            reduce_range=True,  # without it 8-bit products overflow on processors with AVX2 and no VNNI
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            use_external_data_format=True,
        )

    return _made(source, target, make)


def load(path: Path, *, with_weights: bool = True) -> Any:
    """A model as the package ``onnx`` has it (BadDataError), without what lies outside the file, when asked."""
    import onnx

    try:
        return onnx.load(str(path), load_external_data=with_weights)
    except Exception as error:  # the parser's errors share no base below Exception
        raise BadDataError(path, "", str(error).splitlines()[0][:200], "an ONNX model") from error


def save(model: Any, path: Path) -> None:
    """Write a model with all weights of a kilobyte or more in ``<path>.data``; replaces what is there."""
    import onnx

    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)  # the writer appends
    onnx.save_model(
        model, str(path), save_as_external_data=True, all_tensors_to_one_file=True, location=data.name,
        size_threshold=1024,
    )  # fmt: skip
    if data.exists():
        data.chmod(path.stat().st_mode)  # the writer makes it for its owner alone


def _made(source: Path, target: Path, make: Callable[[Path], None]) -> Path:
    """Make the target apart and move it to its place when it is whole; its data file has the name it will keep."""
    if not source.is_file():
        raise BadDataError(source, "", "no such file", "an ONNX model")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".quantize-", dir=target.parent) as folder:
        scratch = Path(folder) / target.name
        muted = logging.root.manager.disable
        logging.disable(logging.WARNING)  # the quantizers tell every step to the root logger
        try:
            make(scratch)
        except (BadDataError, RefusedError, MissingPackageError):
            raise
        except Exception as error:
            raise EngineError(f"{source.name} could not be quantized: {error}") from error
        finally:
            logging.disable(muted)
        data = scratch.with_name(scratch.name + ".data")
        if data.exists():
            shutil.move(data, target.with_name(data.name))
        shutil.move(scratch, target)
    return target


def _need(*modules: str) -> None:
    from importlib.util import find_spec

    for module in (*modules, "onnxruntime"):
        if find_spec(module) is None:
            raise MissingPackageError(module.replace("_", "-"), "quantize")
