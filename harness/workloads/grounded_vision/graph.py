"""The grounded encoder as one ONNX graph: image and crops in, grounded tokens out, any number of crops from none.

    base [b, 3, S, S]  -> network -> features [b, g*g, C] -> W, + position(base_cells)       -> base_tokens [b, g*g, D]
    crops [n, 3, s, s] -> network -> features [n, q*q, C] -> pool, W, + position(crop_cells)-> region_tokens [n, r*r, D]

Both branches share the network's weights. Pooling is a constant matrix, so that n = 0 is a product like any other.
A token's position is that of its cell in the image: p = (cx, cy, w, h) as shares, then sin and cos of 2**k pi p for
k = 0 .. K-1. The rows of W and of the positions' own matrix are orthogonal together while C + 8 K <= D: a token then
holds features and position apart, and neither is lost. Source: the seed's GroundedVisualEncoder, whose one linear map
of the box is replaced by Tancik et al. 2020, "Fourier Features", so that near boxes can be told apart.
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import RefusedError
from harness.onnx.writer import GraphWriter
from harness.workloads.grounded_vision import dinov2, efficientnet

OCTAVES: Final = 8
POSITION_DIM: Final = 4 * 2 * OCTAVES
FEATURE_SCALE: Final = 0.125
"""Makes the networks' features (length 20 to 60) as long as a position, sqrt(4 K) = 5.7: neither drowns the other."""
VERSION: Final = 2
"""Of the graphs written here; part of their files' names."""
STRIDES: Final = {"lite0": efficientnet.STRIDE, "dinov2-s": dinov2.PATCH}
FEATURE_DIMS: Final = {"lite0": efficientnet.FEATURE_DIM, "dinov2-s": dinov2.FEATURE_DIM}


class Layout(NamedTuple):
    """Sizes of a grounded encoder.

    Attributes:
        base_px: Side of the whole image's input.
        crop_px: Side of a region's input.
        region_grid: A region gives region_grid**2 tokens.
        token_dim: Width of a token, the language model's.
        network: ``lite0`` (EfficientNet-Lite0, any sides) or ``dinov2-s`` (224 pixels for both, as the seed has it).
    """

    base_px: int = 224
    crop_px: int = 96
    region_grid: int = 1
    token_dim: int = 576
    network: str = "lite0"

    @property
    def stride(self) -> int:
        """Pixels on a side of one cell."""
        return STRIDES[self.network]

    @property
    def base_grid(self) -> int:
        """Cells on a side of the whole image."""
        return self.base_px // self.stride

    @property
    def crop_grid(self) -> int:
        """Cells on a side of a region before pooling."""
        return self.crop_px // self.stride

    @property
    def base_token_count(self) -> int:
        """Tokens of the whole image."""
        return self.base_grid**2

    @property
    def region_token_count(self) -> int:
        """Tokens of one region."""
        return self.region_grid**2

    def token_count(self, region_count: int) -> int:
        """Tokens of an image with so many regions."""
        return self.base_token_count + region_count * self.region_token_count


class Projections(NamedTuple):
    """Maps [C, D] of features and [8 K, D] of positions into the tokens' space."""

    features: NDArray[np.float32]
    position: NDArray[np.float32]


def checked(layout: Layout) -> Layout:
    """The layout, if the network can have it.

    Raises:
        RefusedError: A side that does not divide by the network's stride, or more tokens than cells.
    """
    if layout.network not in STRIDES:
        raise RefusedError(f"no network {layout.network!r}; one of: {', '.join(STRIDES)}")
    for side in (layout.base_px, layout.crop_px):
        if side < layout.stride or side % layout.stride:
            raise RefusedError(f"an input of {side} pixels: a multiple of {layout.stride}")
        if layout.network == "dinov2-s" and side != dinov2.SIDE:
            raise RefusedError(f"an input of {side} pixels: its graph takes {dinov2.SIDE}")
    if not 1 <= layout.region_grid <= layout.crop_grid:
        raise RefusedError(f"{layout.region_grid} x {layout.region_grid} tokens of {layout.crop_grid}**2 cells")
    if layout.token_dim < 1:
        raise RefusedError(f"tokens of {layout.token_dim} numbers")
    return layout


def projections(feature_dim: int, token_dim: int, seed: int = 0) -> Projections:
    """Projections that nothing was trained for: random and orthogonal, so that they lose as little as may be."""
    rows = feature_dim + POSITION_DIM
    drawn = np.random.default_rng(seed).standard_normal((max(rows, token_dim), min(rows, token_dim)))
    q = np.linalg.qr(drawn)[0]
    table = (q.T if rows <= token_dim else q)[:rows, :token_dim].astype(np.float32)
    return Projections(table[:feature_dim] * np.float32(FEATURE_SCALE), table[feature_dim:])


def pooling(grid_from: int, grid_to: int) -> NDArray[np.float32]:
    """Matrix [grid_to**2, grid_from**2] of adaptive average pooling.

    Cell i of n out of m averages floor(i m / n) .. ceil((i+1) m / n), as PyTorch's ``adaptive_avg_pool2d`` does.
    """
    line = np.zeros((grid_to, grid_from), np.float32)
    for at in range(grid_to):
        low, high = at * grid_from // grid_to, -(-(at + 1) * grid_from // grid_to)
        line[at, low:high] = 1 / (high - low)
    return np.kron(line, line)


def position_features(boxes: NDArray[Any]) -> NDArray[np.float32]:
    """What the graph makes of boxes [..., 4] before its last product: [..., 8 K]."""
    size = boxes[..., 2:] - boxes[..., :2]
    p = np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, size], axis=-1).astype(np.float32)
    angles = (p[..., None] * _frequencies()).reshape(*p.shape[:-1], -1)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1).astype(np.float32)


def build(weights: efficientnet.Weights, layout: Layout, maps: Projections, path: Path) -> Path:
    """Write the graph of EfficientNet-Lite0 with these projections.

    Raises:
        RefusedError: No such layout.
    """
    checked(layout)
    graph = GraphWriter("grounded_vision")
    base = graph.input("base", ["images", 3, layout.base_px, layout.base_px])
    crops = graph.input("crops", ["regions", 3, layout.crop_px, layout.crop_px])
    whole = efficientnet.add_to(graph, base, weights, layout.base_px, "base_features")
    parts = efficientnet.add_to(graph, crops, weights, layout.crop_px, "crop_features")
    _ground(graph, whole, parts, layout, maps)
    return graph.save(path)


def build_dinov2(source: Path, layout: Layout, maps: Projections, path: Path) -> Path:
    """Write DINOv2-S from the saliency network's file with these projections; the saliency stays an output.

    Image and regions are one batch of one size there; the nodes added here part it again.

    Raises:
        RefusedError: No such layout.
    """
    checked(layout)
    graph = GraphWriter("grounded")
    zero, one = graph.tensor("at_0", np.array([0], np.int64)), graph.tensor("at_1", np.array([1], np.int64))
    end, first = graph.tensor("at_end", np.array([2**62], np.int64)), graph.tensor("axis_0", np.array([0], np.int64))
    count = graph.node("Slice", [graph.node("Shape", ["base_cells"]), zero, one])
    whole = graph.node("Slice", [dinov2.FEATURES, zero, count, first])
    parts = graph.node("Slice", [dinov2.FEATURES, count, end, first])
    _ground(graph, whole, parts, layout, maps)
    partial = path.with_suffix(".partial")
    partial.write_bytes(graph.appended_to(source))
    return partial.replace(path)


def _ground(graph: GraphWriter, whole: str, parts: str, layout: Layout, maps: Projections) -> None:
    """From features of the whole image and of its regions to tokens."""
    dim, cells, tokens = layout.token_dim, layout.base_token_count, layout.region_token_count
    graph.input("base_cells", ["images", cells, 4])
    graph.input("crop_cells", ["regions", tokens, 4])
    pool = graph.tensor("pooling", pooling(layout.crop_grid, layout.region_grid))
    pooled = graph.node("MatMul", [pool, parts])
    for features, boxes, output in ((whole, "base_cells", "base_tokens"), (pooled, "crop_cells", "region_tokens")):
        seen = graph.node("MatMul", [features, graph.tensor("feature_map", maps.features)])
        place = graph.node("MatMul", [_position(graph, boxes), graph.tensor("position_map", maps.position)])
        graph.node("Add", [seen, place], output)
    graph.output("base_tokens", ["images", cells, dim])
    graph.output("region_tokens", ["regions", tokens, dim])


def _position(graph: GraphWriter, boxes: str) -> str:
    # (cx, cy, w, h) times each frequency is linear in (x0, y0, x1, y1): one product gives all angles.
    to_centre = np.array([[0.5, 0, -1, 0], [0, 0.5, 0, -1], [0.5, 0, 1, 0], [0, 0.5, 0, 1]], np.float32)
    spread = np.kron(np.eye(4, dtype=np.float32), _frequencies()[None, :])
    angles = graph.node("MatMul", [boxes, graph.tensor("angles", to_centre @ spread)])
    return graph.node("Concat", [graph.node("Sin", [angles]), graph.node("Cos", [angles])], axis=-1)


def _frequencies() -> NDArray[np.float32]:
    return (np.pi * 2.0 ** np.arange(OCTAVES)).astype(np.float32)
