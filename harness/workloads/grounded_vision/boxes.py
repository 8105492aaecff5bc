"""Normalised boxes: what is refused, how much two of them overlap, how cells of a grid lie in the image.

A box is (x0, y0, x1, y1) as shares of the image's width and height, origin at its upper left corner.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import BadDataError

MAX_REGIONS: Final = 16
EXPECTED: Final = "0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, shares of the image's width and height"

Boxes = NDArray[np.float64]


def checked(boxes: ArrayLike | Sequence[Sequence[float]], *, source: str = "boxes", limit: int = MAX_REGIONS) -> Boxes:
    """Boxes [N, 4] as an array, N from 0 to ``limit``.

    Raises:
        BadDataError: Not a table of four numbers a row, too many rows, or a row that is no box inside the image: it
            leaves [0, 1] (pixels instead of shares, say), is empty or turned around, or holds no number.
    """
    try:
        table = np.asarray(boxes, np.float64)
    except (TypeError, ValueError) as error:
        raise BadDataError(source, "", str(error), "four numbers a row") from error
    if table.size == 0:
        return np.empty((0, 4))
    if table.ndim != 2 or table.shape[1] != 4:
        raise BadDataError(source, "", f"an array of shape {table.shape}", "[N, 4]")
    if len(table) > limit:
        raise BadDataError(source, "", f"{len(table)} boxes", f"at most {limit}")
    low, high = table[:, :2], table[:, 2:]
    # Written so that a comparison with NaN, which is false, refuses.
    fine = np.all((low >= 0) & (low < high) & (high <= 1), axis=1)
    if not fine.all():
        row = int(np.argmin(fine))
        found = ", ".join(f"{v:g}" for v in table[row])
        raise BadDataError(source, f"[{row}]", f"({found})", EXPECTED)
    return table


def iou(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Intersection over union [len(a), len(b)]; 0 where both are empty."""
    shared = shared_area(a, b)
    own, other = (np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (a, b))
    union = own[:, None] + other[None, :] - shared
    ratio: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


def shared_area(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Share of the image that each of a has in common with each of b, [len(a), len(b)]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    size: NDArray[np.float64] = np.prod(np.clip(high - low, 0, None), axis=2)
    return size


def cells(grid_count: int) -> Boxes:
    """Cells [grid_count**2, 4] of a square grid over the unit square, row by row."""
    edge = np.arange(grid_count) / grid_count
    y, x = np.meshgrid(edge, edge, indexing="ij")
    low = np.stack([x.ravel(), y.ravel()], axis=1)
    return np.concatenate([low, low + 1 / grid_count], axis=1)
