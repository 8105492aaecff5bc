"""What the networks of grounded vision cost, counted from their layers: kernels with their arithmetic and traffic."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from harness.domain.workload import Kernel
from harness.workloads.grounded_vision.encoder import FEATURE_DIM, GRID, LAYER_COUNT, PATCH

_HEAD_COUNT: Final = 6
_HEAD_DIM: Final = 64
_POSITION_SIDE: Final = 37
"""Positions are stored for 37 x 37 patches, and resized in each call."""
RESIZE_STEPS: Final = 90 * FEATURE_DIM * GRID**2
"""Of positions: a value of ONNX Runtime's cubic Resize, which has no vectors, takes as long as 90 steps on values."""


class NetworkCost(NamedTuple):
    """Cost of one session call.

    Attributes:
        activation_bytes: Inputs, outputs and scratch that the engine keeps between calls.
    """

    kernels: tuple[Kernel, ...]
    weight_bytes: int
    activation_bytes: int


def encoder_cost(window_count: int, *, weight_bits: int = 32) -> NetworkCost:
    """DINOv2-S on so many windows (image and regions alike); linear in them."""
    quantised = LAYER_COUNT * 12 * FEATURE_DIM**2
    rows = window_count * (GRID**2 + 1)
    return NetworkCost(
        kernels=tuple(_layers(window_count, weight_bits)),
        weight_bytes=quantised * weight_bits // 8 + 4 * (parameter_count() - quantised),
        # The inner layer twice, scores of all heads, and the images.
        activation_bytes=4 * rows * (8 * FEATURE_DIM + _HEAD_COUNT * (GRID**2 + 1)) + 12 * window_count * (224**2),
    )


def parameter_count() -> int:
    """Weights of DINOv2-S: per layer 12 d^2 and its vectors, patches, positions."""
    d = FEATURE_DIM
    return LAYER_COUNT * (12 * d * d + 15 * d) + (3 * PATCH**2 + _POSITION_SIDE**2 + 1) * d


def finder_cost(pixel_count: int) -> NetworkCost:
    """Detection of text in a copy of so many pixels; FLOP, values and bytes a pixel as shape inference of its file."""
    return NetworkCost(_convolutional(pixel_count, 20_123.0, 1034.0, 28.1, 3000.0), 9_929_594, 600 * pixel_count)


def reader_cost(column_count: int) -> NetworkCost:
    """Recognition of lines of 48 rows and so many columns in all; a column is one of the picture, letters eight."""
    kernels = _convolutional(column_count, 6.7e6, 62_418.0, 6912.0, 500_000.0)
    return NetworkCost(kernels, 21_234_383, 100_000 * column_count)


def _convolutional(count: int, dense: float, depthwise: float, gelu: float, moved: float) -> tuple[Kernel, ...]:
    """A network whose layers all grow with ``count``: FLOP of convolutions of both kinds, values, bytes beside them."""
    return (
        Kernel(kind="convolution", flops_count=dense * count, dim=64),
        Kernel(kind="depthwise", flops_count=depthwise * count, dim=5),
        Kernel(kind="gelu", flops_count=gelu * count),
        Kernel(kind="pass", moved_bytes=moved * count, working_set_bytes=1 << 22),
    )


def _product(rows: int, inner: int, outputs: int, bits: int, *, batch: int = 1) -> Kernel:
    """[rows, inner] by [inner, outputs], ``batch`` times; 4- and 8-bit weights as they are stored."""
    moved = batch * (4.0 * rows * (inner + outputs) + inner * outputs * bits / 8)
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


def _layers(count: int, bits: int) -> Iterator[Kernel]:
    """Patches and 12 layers."""
    d, tokens = FEATURE_DIM, GRID**2 + 1
    rows = count * tokens
    yield _product(count * GRID**2, 3 * PATCH**2, d, 32)
    for _ in range(LAYER_COUNT):
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
