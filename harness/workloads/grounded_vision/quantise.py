"""The grounded graph in fewer bits, by the method that suits its network.

A convolution runs fast in eight bits only with fixed ranges (QDQ, U8 activations, S8 weights): dynamic ranges make
``ConvInteger``, which has no fast kernel. A transformer's products run fast with dynamic ranges, and in blocks of four
bits. Four bits of a convolution the engine does not have.
"""

from pathlib import Path
from typing import Final

from harness.errors import RefusedError
from harness.onnx.quantize import quantize_dynamic, quantize_static, quantize_weights
from harness.workloads.grounded_vision import scenes
from harness.workloads.grounded_vision.encoder import GroundedEncoder
from harness.workloads.grounded_vision.graph import Layout
from harness.workloads.grounded_vision.propose import by_contrast

CALIBRATION_SEED: Final = 77
CALIBRATION_COUNT: Final = 12
BITS: Final = (32, 8, 4)


def quantised(path: Path, layout: Layout, bits: int) -> Path:
    """The graph with weights of ``bits``, made once beside the original; 32 is the original.

    Raises:
        RefusedError: Bits that this network cannot have.
        MissingPackageError: The extra ``quantize`` is not installed (only making needs it, not running).
    """
    if bits == 32:
        return path
    if bits not in BITS:
        raise RefusedError(f"weights of {bits} bits; one of: {', '.join(map(str, BITS))}")
    if bits == 4 and layout.network == "lite0":
        raise RefusedError("four bits are for matrix products: lite0 is made of convolutions, ask for dinov2-s")
    target = path.with_name(f"{path.stem}-int{bits}.onnx")
    if target.exists():
        return target
    if bits == 4:
        return quantize_weights(path, target, bits=4)
    if layout.network == "dinov2-s":
        return quantize_dynamic(path, target, op_types=["MatMul"])
    reader = GroundedEncoder(path, layout)
    made = scenes.scenes(CALIBRATION_SEED, CALIBRATION_COUNT)
    feeds = [reader.pack([s.image], [by_contrast(s.image)]).feeds for s in made]
    reader.close()
    return quantize_static(path, target, feeds, op_types=["Conv", "Clip"])
