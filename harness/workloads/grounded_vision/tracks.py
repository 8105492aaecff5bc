"""Objects over frames: detections in, one identity for each object out, by overlap and looks.

A track's box is carried on by its last speed; a detection may continue a track when its cost is below a gate:

    cost = w (1 - IoU) + (1 - w) (1 - cos(appearance))

and all are assigned together at the least total cost. Source: Bewley et al. 2016 (SORT) and Wojke et al. 2017
(DeepSORT), with the constant-speed carry in place of their Kalman filter.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.domain.base import Frozen
from harness.errors import BadDataError, MissingPackageError
from harness.workloads.grounded_vision.boxes import checked, iou

MAX_DETECTIONS: Final = 256
_FAR: Final = 1e3


class Detection(Frozen, frozen=True, kw_only=True):
    """Something seen in one frame.

    Attributes:
        box: Normalised (x0, y0, x1, y1).
        label: What it is; a track takes the label most often seen.
        appearance: Vector of its looks (a region's token, say); all of one length, or all empty.
    """

    box: tuple[float, float, float, float]
    label: str = ""
    appearance: tuple[float, ...] = ()


class Track(Frozen, frozen=True, kw_only=True):
    """One object: its number in order of appearance, most frequent label, and box by frame where it was seen."""

    track_id: int
    label: str
    boxes: dict[int, tuple[float, float, float, float]]

    @property
    def first_frame(self) -> int:
        """Frame where it was seen first."""
        return min(self.boxes)

    @property
    def last_frame(self) -> int:
        """Frame where it was seen last."""
        return max(self.boxes)


class Settings(Frozen, frozen=True, kw_only=True):
    """How a track is continued.

    Attributes:
        overlap_weight: Weight of overlap against looks, where there are looks.
        gate: Highest cost of a continuation.
        patience_frames: Frames that an object may go unseen and keep its identity.
        min_frames: Tracks seen in fewer frames are taken for false alarms.
        memory: Share of a track's looks that one more detection leaves.
    """

    overlap_weight: float = 0.5
    gate: float = 0.6
    patience_frames: int = 12
    min_frames: int = 1
    memory: float = 0.8


class Tracker:
    """Builds tracks frame by frame."""

    def __init__(self, settings: Settings = Settings()) -> None:  # noqa: B008  immutable
        self.settings = settings
        self._live: list[_State] = []
        self._ended: list[_State] = []
        self._frame = -1

    def step(self, detections: Sequence[Detection]) -> list[int]:
        """The track of each detection of the next frame.

        Raises:
            BadDataError: A box outside the image or empty, or appearances of different lengths.
        """
        self._frame += 1
        source = f"frame {self._frame}"
        boxes = checked([d.box for d in detections], source=source, limit=MAX_DETECTIONS)
        looks = _looks(detections, source)
        live = self._live
        chosen: dict[int, _State] = {}
        if live and len(boxes):
            costs = self._costs(boxes, looks)
            # What may not be is made dear, not impossible: the assignment stays defined, and is dropped afterwards.
            for row, column in cheapest(np.where(costs <= self.settings.gate, costs, _FAR)):
                if costs[row, column] <= self.settings.gate:
                    chosen[column] = live[row]
        found = []
        for at, detection in enumerate(detections):
            state = chosen.get(at)
            if state is None:
                state = _State(len(self._live) + len(self._ended))
                self._live.append(state)
            state.see(self._frame, detection, boxes[at], looks[at] if len(looks) else None, self.settings.memory)
            found.append(state.track_id)
        gone = [s for s in self._live if self._frame - s.last_frame > self.settings.patience_frames]
        self._ended += gone
        self._live = [s for s in self._live if s not in gone]
        return found

    def tracks(self) -> list[Track]:
        """Every track so far, in order of appearance."""
        states = sorted(self._live + self._ended, key=lambda s: s.track_id)
        return [s.track() for s in states if len(s.boxes) >= self.settings.min_frames]

    @property
    def frame_count(self) -> int:
        """Frames so far."""
        return self._frame + 1

    def _costs(self, boxes: NDArray[np.float64], looks: NDArray[np.float64]) -> NDArray[np.float64]:
        carried = np.stack([s.carried(self._frame) for s in self._live])
        apart = 1 - iou(carried, boxes)
        if not len(looks):
            return apart
        known = np.stack([s.looks for s in self._live])
        if known.shape[1] != looks.shape[1]:
            found = f"appearances of {looks.shape[1]} numbers"
            raise BadDataError(f"frame {self._frame}", "appearance", found, f"{known.shape[1]}, as in earlier frames")
        different = 1 - known @ looks.T
        w = self.settings.overlap_weight
        return np.asarray(w * apart + (1 - w) * different)


class _State:
    def __init__(self, track_id: int) -> None:
        self.track_id = track_id
        self.boxes: dict[int, NDArray[np.float64]] = {}
        self.labels: dict[str, int] = {}
        self.looks = np.empty(0)
        self.last_frame = -1
        self._speed = np.zeros(4)

    def see(
        self,
        frame: int,
        detection: Detection,
        box: NDArray[np.float64],
        looks: NDArray[np.float64] | None,
        memory: float,
    ) -> None:
        if self.boxes:
            self._speed = (box - self.boxes[self.last_frame]) / (frame - self.last_frame)
        self.boxes[frame], self.last_frame = box, frame
        self.labels[detection.label] = self.labels.get(detection.label, 0) + 1
        if looks is not None:
            mixed = looks if not len(self.looks) else memory * self.looks + (1 - memory) * looks
            self.looks = mixed / max(float(np.linalg.norm(mixed)), 1e-12)

    def carried(self, frame: int) -> NDArray[np.float64]:
        """Where the box would be now at its last speed."""
        return self.boxes[self.last_frame] + self._speed * (frame - self.last_frame)

    def track(self) -> Track:
        boxes = {f: (float(b[0]), float(b[1]), float(b[2]), float(b[3])) for f, b in self.boxes.items()}
        label = max(self.labels, key=lambda name: (self.labels[name], name))
        return Track(track_id=self.track_id, label=label, boxes=boxes)


def cheapest(costs: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs (row, column) of least total cost, min(rows, columns) of them.

    Raises:
        MissingPackageError: scipy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingPackageError("scipy", "vision") from error
    rows, columns = linear_sum_assignment(costs)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _looks(detections: Sequence[Detection], source: str) -> NDArray[np.float64]:
    """Appearances [N, D] of unit length; no rows where there are none."""
    lengths = {len(d.appearance) for d in detections}
    if len(lengths) > 1:
        raise BadDataError(source, "appearance", f"lengths {sorted(lengths)}", "one length in a frame, or none at all")
    if not lengths or lengths == {0}:
        return np.empty((0, 0))
    table = np.array([d.appearance for d in detections], np.float64)
    return np.asarray(table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12))
