"""Encode images with regions into grounded tokens: one session, one call, from no region to sixteen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import BadDataError
from harness.onnx.session import OnnxSession
from harness.workloads.grounded_vision import boxes as box
from harness.workloads.grounded_vision import dinov2, efficientnet, graph
from harness.workloads.grounded_vision.images import Image, Placement, checked_image, place, widened

MARGIN_RATIO: Final = 0.15
"""Share of a region's size that is shown around it: an outline touching the edge is hard to see."""

_WHOLE: Final = (0.0, 0.0, 1.0, 1.0)


class GroundedTokens(NamedTuple):
    """Tokens of a batch of images, padded to the longest.

    Attributes:
        tokens: [images, length, token_dim]; zeros where the mask is False.
        mask: [images, length]; False for padding of the batch and for cells of the base that show no image.
        boxes: [images, length, 4], the part of its image that each token is of.
        regions: [images, length], the region's index, -1 for the whole image's tokens and for padding.
    """

    tokens: NDArray[np.float32]
    mask: NDArray[np.bool_]
    boxes: box.Boxes
    regions: NDArray[np.int64]


class Packed(NamedTuple):
    """What one session call gets, and where each row comes from."""

    feeds: dict[str, NDArray[np.float32]]
    placements: list[Placement]
    base_masks: NDArray[np.bool_]
    region_counts: list[int]


class GroundedEncoder:
    """Image and regions to tokens.

    Args:
        path: Graph written by ``graph.build``, or a quantized copy of it.
        layout: The layout it was built with.
        thread_count: Threads of one call.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        EngineError: The engine would not load the graph.
    """

    def __init__(self, path: Path, layout: graph.Layout, *, thread_count: int = 1) -> None:
        self.layout = graph.checked(layout)
        self.session = OnnxSession(path, thread_count=thread_count)

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
        return self.unpack(packed, *self.run(packed))

    def pack(self, images: Sequence[Image], regions: Sequence[ArrayLike]) -> Packed:
        """Cut, resize and normalise: everything before the session call."""
        if len(images) != len(regions):
            raise BadDataError("regions", "", f"{len(regions)} lists for {len(images)} images", "one list an image")
        many = len(images) > 1
        base, crops, cells, crop_cells, masks, placements = [], [], [], [], [], []
        counts = []
        for at, (image, wanted) in enumerate(zip(images, regions, strict=True)):
            checked_image(image, source=f"image {at}" if many else "image")
            table = box.checked(wanted, source=f"boxes of image {at}" if many else "boxes")
            pixels, placement = place(image, _WHOLE, self.layout.base_px)
            grid, inside = placement.grid(self.layout.base_grid)
            base.append(pixels)
            cells.append(grid)
            masks.append(inside)
            placements.append(placement)
            counts.append(len(table))
            for window in widened(table, MARGIN_RATIO):
                pixels, placement = place(image, window, self.layout.crop_px)
                crops.append(pixels)
                crop_cells.append(placement.grid(self.layout.region_grid)[0])
        side, tokens = self.layout.crop_px, self.layout.region_token_count
        feeds = {
            "base": np.stack(base),
            "crops": np.stack(crops) if crops else np.empty((0, 3, side, side), np.float32),
            "base_cells": np.stack(cells).astype(np.float32),
            "crop_cells": (np.stack(crop_cells) if crop_cells else np.empty((0, tokens, 4))).astype(np.float32),
        }
        return Packed(feeds, placements, np.stack(masks), counts)

    def run(self, packed: Packed) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The session call alone: base tokens [images, cells, D] and region tokens [regions, tokens, D]."""
        feeds = dict(packed.feeds)
        if self.layout.network == "dinov2-s":
            feeds[dinov2.INPUT] = np.concatenate([feeds.pop("base"), feeds.pop("crops")])
        base, regions = self.session.run(feeds, ["base_tokens", "region_tokens"])
        return base, regions

    def unpack(self, packed: Packed, base: NDArray[np.float32], regions: NDArray[np.float32]) -> GroundedTokens:
        """One padded table for the batch, with mask, boxes and region numbers."""
        images, cell_count, dim = base.shape
        per_region = self.layout.region_token_count
        length = cell_count + per_region * max(packed.region_counts)
        tokens = np.zeros((images, length, dim), np.float32)
        mask = np.zeros((images, length), np.bool_)
        where = np.zeros((images, length, 4))
        numbers = np.full((images, length), -1, np.int64)
        tokens[:, :cell_count] = base * packed.base_masks[:, :, None]
        mask[:, :cell_count] = packed.base_masks
        where[:, :cell_count] = packed.feeds["base_cells"]
        start = 0
        for at, count in enumerate(packed.region_counts):
            end = cell_count + count * per_region
            tokens[at, cell_count:end] = regions[start : start + count].reshape(-1, dim)
            where[at, cell_count:end] = packed.feeds["crop_cells"][start : start + count].reshape(-1, 4)
            mask[at, cell_count:end] = True
            numbers[at, cell_count:end] = np.repeat(np.arange(count), per_region)
            start += count
        return GroundedTokens(tokens, mask, where, numbers)

    def close(self) -> None:
        """Free the session."""
        self.session.close()


def prepared(folder: Path, layout: graph.Layout = graph.Layout(), *, seed: int = 0) -> Path:  # noqa: B008  a tuple
    """The graph with ImageNet weights in ``folder``, fetched and built when it is not there.

    Raises:
        FetchError: The weights could not be had.
        RefusedError: No such layout.
    """
    graph.checked(layout)
    sizes = (layout.base_px, layout.crop_px, layout.region_grid, layout.token_dim, seed)
    name = f"{layout.network}-{'-'.join(map(str, sizes))}-v{graph.VERSION}.onnx"
    path = folder / name
    if not path.exists():
        maps = graph.projections(graph.FEATURE_DIMS[layout.network], layout.token_dim, seed)
        if layout.network == "dinov2-s":
            graph.build_dinov2(dinov2.fetch(folder), layout, maps, path)
        else:
            graph.build(efficientnet.folded(efficientnet.fetch(folder)), layout, maps, path)
    return path


def identity(encoder: GroundedEncoder) -> dict[str, Any]:
    """What ran: engine, providers, threads, quantization."""
    return encoder.session.identity()
