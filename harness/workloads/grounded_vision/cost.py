"""What an encoding costs, counted from the layers: arithmetic, bytes through memory, tokens."""

from collections.abc import Iterator
from typing import NamedTuple

from harness.workloads.grounded_vision import dinov2, efficientnet
from harness.workloads.grounded_vision.graph import FEATURE_DIMS, POSITION_DIM, Layout


class NetworkCost(NamedTuple):
    """Cost of one session call.

    Attributes:
        flops_count: 2 for each multiply-add.
        moved_bytes: Inputs and outputs of every layer, and its weights once.
        working_set_bytes: Weights and the largest layer's input and output.
        product_dim: Half the arithmetic is in products whose smallest dimension is at least this.
        weight_bytes: Weights in memory.
        node_count: Kernels.
    """

    flops_count: float
    moved_bytes: float
    working_set_bytes: float
    product_dim: int
    weight_bytes: int
    node_count: int


class _Step(NamedTuple):
    mac_count: float
    value_count: float
    product_dim: int


def session_cost(layout: Layout, image_count: int, region_count: int, *, weight_bits: int = 32) -> NetworkCost:
    """Cost of encoding so many images with so many regions in all; linear in both."""
    network = _lite0 if layout.network == "lite0" else _dinov2
    steps: list[_Step] = []
    for side, count in ((layout.base_px, image_count), (layout.crop_px, region_count)):
        steps += [_Step(m * count, v * count, d) for m, v, d in network(side)] if count else []
    width, dim = FEATURE_DIMS[layout.network], layout.token_dim
    rows = image_count * layout.base_token_count + region_count * layout.region_token_count
    steps.append(_Step(rows * (width + POSITION_DIM) * dim, rows * (width + POSITION_DIM + 3 * dim), min(64, rows)))
    weights = (
        sum(layer.parameter_count for layer in efficientnet.layers())
        if layout.network == "lite0"
        else dinov2_parameters()
    )
    weights += (width + POSITION_DIM) * dim
    weight_bytes = weights * weight_bits // 8
    value_bytes = 4 if weight_bits == 32 or layout.network != "lite0" else 1
    nodes_each = 58 if layout.network == "lite0" else 24 * dinov2.LAYER_COUNT
    branches = (1 + (region_count > 0)) if layout.network == "lite0" else 1
    return NetworkCost(
        flops_count=2.0 * sum(s.mac_count for s in steps),
        moved_bytes=float(weight_bytes + value_bytes * sum(s.value_count for s in steps)),
        working_set_bytes=float(weight_bytes + value_bytes * max(s.value_count for s in steps)),
        product_dim=_median_dim(steps),
        weight_bytes=weight_bytes,
        node_count=nodes_each * branches + 14,
    )


def dinov2_parameters() -> int:
    """Weights of DINOv2-S: per layer 12 d^2 and its vectors, patches, positions; the decoder's 2 million beside."""
    d = dinov2.FEATURE_DIM
    return dinov2.LAYER_COUNT * (12 * d * d + 15 * d) + (3 * dinov2.PATCH**2 + 1370) * d + 2_000_000


def _lite0(side: int) -> Iterator[_Step]:
    for layer in efficientnet.layers():
        before, side = side, side // layer.stride
        values = before**2 * layer.inputs + side**2 * layer.outputs * (2 if layer.adds else 1)
        inner = layer.kernel**2 * (1 if layer.is_depthwise else layer.inputs)
        yield _Step(layer.mac_count(side), values, min(side * side, layer.outputs, inner))


def _dinov2(side: int) -> Iterator[_Step]:
    d, tokens = dinov2.FEATURE_DIM, (side // dinov2.PATCH) ** 2 + 1
    yield _Step(tokens * 3 * dinov2.PATCH**2 * d, 3 * side * side + tokens * d, min(tokens, d))
    for _ in range(dinov2.LAYER_COUNT):
        # Three projections, scores and mixing of 6 heads of 64, the output, and a widening by four and back.
        yield _Step(4 * tokens * d * d, 8 * tokens * d, min(tokens, d))
        yield _Step(2 * tokens * tokens * d, 6 * 3 * tokens * tokens, 64)
        yield _Step(8 * tokens * d * d, 14 * tokens * d, min(tokens, d))


def _median_dim(steps: list[_Step]) -> int:
    total, at = sum(s.mac_count for s in steps), 0.0
    for step in sorted(steps, key=lambda s: s.product_dim):
        at += step.mac_count
        if at >= total / 2:
            return max(1, step.product_dim)
    return 1
