"""What an encoding costs, counted from the layers: kernels of the engine with their arithmetic and their traffic."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from harness.domain.workload import Kernel
from harness.workloads.grounded_vision import dinov2, efficientnet
from harness.workloads.grounded_vision.graph import FEATURE_DIMS, POSITION_DIM, Layout

_HEAD_COUNT: Final = 6
_HEAD_DIM: Final = 64
_DECODER: Final = ((16, 384, 256), (32, 256, 128), (64, 128, 64))
"""Saliency decoder of DINOv2-S: side of the input, channels in and out of each transposed convolution; as its file."""
_DECODER_TAPS: Final = 16
"""Kernels of 4 x 4, stride 2."""
_LAST_PARAMETERS: Final = 64 + 1
_POSITION_SIDE: Final = 37
"""Positions are stored for 37 x 37 patches, and resized in each call."""
CUBIC_VALUE_STEPS: Final = 90
"""Steps on single values that one value of ONNX Runtime's cubic Resize takes as long as: a loop without vectors."""


class NetworkCost(NamedTuple):
    """Cost of one session call.

    Attributes:
        kernels: The kernels that take time, in the order of the layers.
        weight_bytes: Weights in memory.
        activation_bytes: Inputs, outputs and scratch that the engine keeps between calls.
        node_count: Nodes.
        cubic_values_count: Values made by a cubic resize.
    """

    kernels: tuple[Kernel, ...]
    weight_bytes: int
    activation_bytes: int
    node_count: int
    cubic_values_count: int

    @property
    def flops_count(self) -> float:
        """2 for each multiply-add of products and convolutions."""
        return sum(k.flops_count for k in self.kernels if k.kind not in {"pass", "softmax", "gelu"})


def session_cost(layout: Layout, image_count: int, region_count: int, *, weight_bits: int = 32) -> NetworkCost:
    """Cost of encoding so many images with so many regions in all; linear in both."""
    is_lite0 = layout.network == "lite0"
    value_bytes = weight_bits // 8
    kernels: list[Kernel] = []
    if is_lite0:
        for side, count in ((layout.base_px, image_count), (layout.crop_px, region_count)):
            if count:
                kernels += _lite0(side, count, weight_bits)
        weight_bytes = sum(layer.parameter_count for layer in efficientnet.layers()) * value_bytes
        activation_bytes = 3 * int(max(k.moved_bytes for k in kernels))
    else:
        count = image_count + region_count
        kernels += _dinov2(count, weight_bits)
        quantised = dinov2.LAYER_COUNT * 12 * dinov2.FEATURE_DIM**2
        weight_bytes = quantised * weight_bits // 8 + 4 * (dinov2_parameters() - quantised)
        side, _, outputs = _DECODER[-1]
        # Twice the last layer of the decoder, and the taps of one image.
        activation_bytes = 4 * (2 * count * 4 * side**2 * outputs + side**2 * _DECODER_TAPS * outputs)
    width, dim = FEATURE_DIMS[layout.network], layout.token_dim
    for rows in (image_count * layout.base_token_count, region_count * layout.region_token_count):
        if rows:
            for inner in (width, POSITION_DIM):
                kernels.append(_product(rows, inner, dim, 32))
    weight_bytes += 4 * (width + POSITION_DIM) * dim
    branches = 1 + (region_count > 0)
    return NetworkCost(
        kernels=tuple(kernels),
        weight_bytes=weight_bytes,
        activation_bytes=activation_bytes,
        node_count=48 * branches + 19 if is_lite0 else 400,
        cubic_values_count=0 if is_lite0 else dinov2.FEATURE_DIM * (layout.base_px // dinov2.PATCH) ** 2,
    )


def dinov2_parameters() -> int:
    """Weights of DINOv2-S: per layer 12 d^2 and its vectors, patches, positions, and those of its saliency decoder."""
    d = dinov2.FEATURE_DIM
    decoder = sum(_DECODER_TAPS * inputs * outputs + outputs for _, inputs, outputs in _DECODER) + _LAST_PARAMETERS
    own = dinov2.LAYER_COUNT * (12 * d * d + 15 * d) + (3 * dinov2.PATCH**2 + _POSITION_SIDE**2 + 1) * d
    return own + decoder


def _lite0(side: int, count: int, bits: int) -> Iterator[Kernel]:
    """A kernel for each convolution (its bias, clip and sum are part of it)."""
    value_bytes = bits // 8
    for layer in efficientnet.layers():
        before, side = side, side // layer.stride
        values = before**2 * layer.inputs + side**2 * layer.outputs * (2 if layer.adds else 1)
        moved = float(value_bytes * (count * values + layer.parameter_count))
        yield Kernel(
            kind="depthwise" if layer.is_depthwise else "convolution",
            dtype="fp32" if bits == 32 else "int8",
            flops_count=2.0 * count * layer.mac_count(side),
            moved_bytes=moved,
            working_set_bytes=moved,
            dim=layer.kernel if layer.is_depthwise else min(layer.inputs * layer.kernel**2, layer.outputs),
        )


def _product(rows: int, inner: int, outputs: int, bits: int, *, batch: int = 1) -> Kernel:
    """[rows, inner] by [inner, outputs], ``batch`` times; 4- and 8-bit weights as they are stored."""
    weights = inner * outputs * bits / 8
    moved = batch * (4.0 * rows * (inner + outputs) + weights)
    return Kernel(
        kind="product",
        dtype={32: "fp32", 8: "int8", 4: "int4"}[bits],
        flops_count=2.0 * batch * rows * inner * outputs,
        moved_bytes=moved,
        working_set_bytes=moved,
        dim=min(rows, inner, outputs),
    )


def _values(kind: str, count: float, passes: float = 1.0) -> Kernel:
    """Functions of single values, float32 read and written."""
    moved = 8.0 * count * passes
    return Kernel(kind=kind, flops_count=count * passes, moved_bytes=moved, working_set_bytes=8.0 * count)


def _dinov2(count: int, bits: int) -> Iterator[Kernel]:
    """Patches, 12 layers, and the saliency decoder, which runs too since its output stays one."""
    d, side = dinov2.FEATURE_DIM, dinov2.SIDE // dinov2.PATCH
    tokens = side**2 + 1
    rows = count * tokens
    yield _product(count * side**2, 3 * dinov2.PATCH**2, d, 32)
    for _ in range(dinov2.LAYER_COUNT):
        for _ in range(4):  # query, key, value, output
            yield _product(rows, d, d, bits)
        # Scores and mixing: what both sides are is known only then, so they stay in float32.
        yield _product(tokens, _HEAD_DIM, tokens, 32, batch=count * _HEAD_COUNT)
        yield _product(tokens, tokens, _HEAD_DIM, 32, batch=count * _HEAD_COUNT)
        yield _values("softmax", count * _HEAD_COUNT * tokens**2)
        yield _product(rows, d, 4 * d, bits)
        yield _values("gelu", rows * 4 * d)
        yield _product(rows, 4 * d, d, bits)
        yield _values("softmax", rows * d, 4)  # two norms, two values each
        yield _values("pass", rows * d, 12)  # four transposed copies, four biases, two sums, two scales
    yield _values("softmax", rows * d, 2)
    for before, inputs, outputs in _DECODER:
        # A product gives every tap of every pixel; they are written, read and added into the output.
        columns = _DECODER_TAPS * outputs
        product = _product(before**2, inputs, columns, 32, batch=count)
        yield product
        yield _values("pass", count * before**2 * columns, 1.5)
        yield _values("pass", count * 4 * before**2 * outputs)
    last = 2 * _DECODER[-1][0]
    yield Kernel(
        kind="convolution",
        flops_count=2.0 * count * last**2 * _DECODER[-1][2] * 16,  # one channel, padded to a block of 16
        moved_bytes=4.0 * count * last**2 * (_DECODER[-1][2] * 2 + 16),  # reordered first
        working_set_bytes=4.0 * count * last**2 * _DECODER[-1][2],
        dim=16,
    )
    yield _values("pass", count * dinov2.SIDE**2, 2)
