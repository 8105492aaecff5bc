"""Objects over frames: detections in, one identity for each object out, by overlap and looks.

A track's box is carried on by its last speed; a detection may continue a track when its cost is below a gate:

    cost = (1 - IoU) / 2 + (1 - cos(looks)) / 2      1 - IoU where there are no looks

and all are assigned together at the least total cost. Source: Bewley et al. 2016 (SORT) and Wojke et al. 2017
(DeepSORT), with the constant-speed carry in place of their Kalman filter.
"""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import BadDataError
from harness.workloads.grounded_vision.boxes import Boxes, checked, iou

MAX_DETECTIONS: Final = 256
PATIENCE_FRAMES: Final = 12
"""Frames that an object may go unseen and keep its identity."""
_OVERLAP_WEIGHT: Final = 0.5
_GATE: Final = 0.6
_MEMORY: Final = 0.8
"""Share of a track's looks that one more detection leaves."""
_FAR: Final = 1e3


class _Track:
    """An object: its number in order of appearance, and its box, speed and looks where it was seen last."""

    def __init__(self, number: int, frame: int, box: NDArray[np.float64], looks: NDArray[np.float64]) -> None:
        self.number, self.frame, self.box, self.looks = number, frame, box, looks
        self.speed = np.zeros(4)

    def see(self, frame: int, box: NDArray[np.float64], looks: NDArray[np.float64]) -> None:
        self.speed = (box - self.box) / (frame - self.frame)
        self.frame, self.box = frame, box
        self.looks = _unit(_MEMORY * self.looks + (1 - _MEMORY) * looks)


class Tracker:
    """Names the detections of a film, frame by frame."""

    def __init__(self) -> None:
        self._live: list[_Track] = []
        self._count = 0
        self._frame = -1
        self._looks_dim: int | None = None

    def step(self, boxes: ArrayLike, looks: ArrayLike = ()) -> list[int]:
        """The track of each detection of the next frame, whose boxes are normalised (x0, y0, x1, y1), [N, 4].

        Looks are a vector for each (a region's token, say), [N, dim] with one dim for the whole film; or none at all.
        BadDataError for a box outside the image or empty, or looks of another number or length.
        """
        self._frame += 1
        table = checked(boxes, source=f"frame {self._frame}", limit=MAX_DETECTIONS)
        vectors = self._checked_looks(looks, len(table))
        continued: dict[int, _Track] = {}
        if self._live and len(table):
            costs = self._costs(table, vectors)
            # What may not be is made dear, not impossible: the assignment stays defined, and is dropped afterwards.
            pairs = cheapest(np.where(costs <= _GATE, costs, _FAR))
            continued = {column: self._live[row] for row, column in pairs if costs[row, column] <= _GATE}
        found = []
        for at, (box, vector) in enumerate(zip(table, vectors, strict=True)):
            track = continued.get(at)
            if track is None:
                track = _Track(self._count, self._frame, box, vector)
                self._live.append(track)
                self._count += 1
            else:
                track.see(self._frame, box, vector)
            found.append(track.number)
        self._live = [t for t in self._live if self._frame - t.frame <= PATIENCE_FRAMES]
        return found

    def _checked_looks(self, looks: ArrayLike, count: int) -> NDArray[np.float64]:
        """Looks [count, dim] of unit length; dim is 0 where there are none."""
        source = f"frame {self._frame}"
        try:
            table = np.asarray(looks, np.float64)
        except ValueError as error:
            raise BadDataError(source, "looks", str(error), "one length for all, or none at all") from error
        if not count:
            return np.empty((0, 0))
        table = table if table.size else np.empty((count, 0))
        if self._looks_dim is None:
            self._looks_dim = table.shape[-1]
        if table.shape != (count, self._looks_dim):
            expected = f"[{count}, {self._looks_dim}], as in earlier frames"
            raise BadDataError(source, "looks", f"an array of shape {table.shape}", expected)
        return _unit(table)

    def _costs(self, boxes: Boxes, looks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of each live track for each detection."""
        carried = np.stack([t.box + t.speed * (self._frame - t.frame) for t in self._live])
        apart = 1 - iou(carried, boxes)
        if not looks.size:
            return apart
        different = 1 - np.stack([t.looks for t in self._live]) @ looks.T
        return np.asarray(_OVERLAP_WEIGHT * apart + (1 - _OVERLAP_WEIGHT) * different)


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))


def cheapest(costs: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs (row, column) of least total cost, min(rows, columns) of them."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(costs)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))
