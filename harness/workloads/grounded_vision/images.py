"""Parts of an image as an encoder's input: any size in, a square out, aspect kept, smoothed when it shrinks."""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, floor
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadDataError
from harness.workloads.grounded_vision.boxes import Boxes, cells

BAND: Final = 64
"""Rows that are resized at once."""

Image = NDArray[np.uint8]
Pixels = NDArray[np.float32]


class Placement(NamedTuple):
    """Where a window of the image lies in an encoder's square input.

    Attributes:
        window: (x0, y0, x1, y1) in the image, normalised.
        content: (x0, y0, x1, y1) of that window in the square, normalised; the rest is padding.
    """

    window: tuple[float, float, float, float]
    content: tuple[float, float, float, float]

    def to_image(self, boxes: Boxes) -> Boxes:
        """Boxes given in the square, in the image's coordinates (padding lies outside the window)."""
        wx, wy, wx1, wy1 = self.window
        cx, cy, cx1, cy1 = self.content
        scale = np.array([(wx1 - wx) / (cx1 - cx), (wy1 - wy) / (cy1 - cy)] * 2)
        moved: Boxes = (boxes - np.array([cx, cy] * 2)) * scale + np.array([wx, wy] * 2)
        return moved

    def grid(self, grid_count: int) -> tuple[Boxes, NDArray[np.bool_]]:
        """Cells of a square grid in the image's coordinates, and which of them show any of the window."""
        own = cells(grid_count)
        cx, cy, cx1, cy1 = self.content
        inside = (own[:, 2] > cx) & (own[:, 0] < cx1) & (own[:, 3] > cy) & (own[:, 1] < cy1)
        return self.to_image(own), inside


IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of each channel, of bytes as shares of 255: what the encoder was trained with."""


def checked_image(image: Image, *, source: str = "image") -> Image:
    """The image, if it is [height, width, 3] bytes with at least one pixel; BadDataError where it is not."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}".strip()
        raise BadDataError(source, "", found, "uint8 [height, width, 3], RGB")
    if 0 in image.shape:
        raise BadDataError(source, "", f"an empty image {image.shape}", "at least one pixel")
    return image


@lru_cache(maxsize=256)
def resize_weights(size_from: int, size_to: int) -> NDArray[np.float32]:
    """Weights [size_to, size_from] of a linear resize that smooths when it shrinks.

    A triangle of half-width s = max(1, size_from / size_to) around each target's centre (i + 1/2) size_from / size_to,
    rows scaled to sum 1; cut at the edges. That is the filter of Pillow's ``BILINEAR``.
    """
    scale = size_from / size_to
    reach = max(1.0, scale)
    weights = np.zeros((size_to, size_from), np.float32)
    for row in range(size_to):
        centre = (row + 0.5) * scale
        low, high = max(0, floor(centre - reach)), min(size_from, ceil(centre + reach))
        taps = np.maximum(0.0, 1 - np.abs(np.arange(low, high) + 0.5 - centre) / reach)
        weights[row, low:high] = taps / taps.sum()
    weights.flags.writeable = False
    return weights


def resize(image: Image, height: int, width: int) -> Pixels:
    """The image as float32 [height, width, 3], still 0 to 255."""
    rows, columns, channels = image.shape
    down = _along(image.reshape(rows, columns * channels), height)
    turned = down.reshape(height, columns, channels).transpose(1, 0, 2).reshape(columns, height * channels)
    return _along(turned, width).reshape(width, height, channels).transpose(1, 0, 2)


def _along(table: NDArray[np.generic], size_to: int) -> Pixels:
    """Rows resized to ``size_to``: a product for each band of rows with the few target rows that it reaches.

    The whole product would be mostly zeros, and the whole table as float32 would leave the cache.
    """
    weights = resize_weights(len(table), size_to)
    out = np.zeros((size_to, table.shape[1]), np.float32)
    reach = max(1.0, len(table) / size_to)
    for begin in range(0, len(table), BAND):
        end = min(begin + BAND, len(table))
        low = max(0, floor((begin - reach) * size_to / len(table) - 0.5))
        high = min(size_to, ceil((end + reach) * size_to / len(table) + 0.5))
        out[low:high] += weights[low:high, begin:end] @ table[begin:end].astype(np.float32)
    return out


def place(image: Image, window: Sequence[float], side: int) -> tuple[Pixels, Placement]:
    """One window of the image in a square [3, side, side], aspect kept, centred, padded with the encoder's mean.

    ``window`` is a normalised box; it is widened to whole pixels, at least one.
    """
    height, width = image.shape[:2]
    left, top = min(floor(window[0] * width), width - 1), min(floor(window[1] * height), height - 1)
    right, bottom = max(left + 1, ceil(window[2] * width - 1e-9)), max(top + 1, ceil(window[3] * height - 1e-9))
    part = image[top:bottom, left:right]
    scale = side / max(part.shape[:2])
    tall, wide = (max(1, round(s * scale)) for s in part.shape[:2])
    pixels = np.zeros((3, side, side), np.float32)
    y, x = (side - tall) // 2, (side - wide) // 2
    mean, deviation = (np.array(v, np.float32) for v in IMAGENET)
    scaled = (resize(part, tall, wide) / np.float32(255) - mean) / deviation
    pixels[:, y : y + tall, x : x + wide] = scaled.transpose(2, 0, 1)
    where = (left / width, top / height, right / width, bottom / height)
    return pixels, Placement(where, (x / side, y / side, (x + wide) / side, (y + tall) / side))


def widened(boxes: Boxes, margin_ratio: float) -> Boxes:
    """Boxes with ``margin_ratio`` of their size added on each side, cut at the image's edges."""
    margin = (boxes[:, 2:] - boxes[:, :2]) * margin_ratio
    return np.asarray(np.clip(np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1), 0, 1))
