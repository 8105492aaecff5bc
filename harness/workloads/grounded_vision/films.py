"""Films of boxes whose identities are known, detections of them that err, and scores of what a tracker makes of those.

A detector misses, sees boxes shifted, sees what is not there, and takes one thing's looks for its neighbour's. Scores:
IDF1 (Ristani et al. 2016): 2 IDTP / (objects + detections) under the one-to-one pairing of identities that makes IDTP
largest; HOTA (Luiten et al. 2021): mean over overlaps a = .05 .. .95 of sqrt(DetA AssA), DetA = TP / (TP + FN + FP),
AssA the mean over TP of TPA / (TPA + FNA + FPA), detections matched in each frame so that both are as large as may be.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.workloads.grounded_vision.boxes import Boxes, iou, shared_area
from harness.workloads.grounded_vision.tracks import cheapest

LOOKS_DIM: Final = 32
_HIDDEN_RATIO: Final = 0.6
_SAME: Final = 0.5
"""Least overlap of a box that shows the same thing."""
_ALPHAS: Final = np.arange(0.05, 0.99, 0.05)

Identified = tuple[Sequence[int], Boxes]
"""Identities and boxes [N, 4] of one frame."""
Detected = tuple[Boxes, NDArray[np.float64]]
"""Boxes [N, 4] and looks [N, LOOKS_DIM] of one frame, as a detector sees them."""


class Errors(NamedTuple):
    """How a detector errs.

    Attributes:
        miss_ratio: Share of things not seen.
        jitter_ratio: Standard deviation of an edge, in shares of the box's side.
        false_ratio: Things seen that are not there, for each that is.
        swap_ratio: Share of things with the looks of another one of the frame.
    """

    miss_ratio: float = 0.0
    jitter_ratio: float = 0.0
    false_ratio: float = 0.0
    swap_ratio: float = 0.0


class TrackScores(NamedTuple):
    """Shares, 1 is perfect; ``switch_count`` counts objects that are followed by another identity than before."""

    hota: float
    idf1: float
    switch_count: int


def film(seed: int, *, frame_count: int = 60, thing_count: int = 8) -> list[Identified]:
    """Things that move straight, bounce off the edges, pass behind each other, come late and go early.

    A thing is not there in a frame where a later one covers more than 60 % of its box.
    """
    rng = np.random.default_rng(seed)
    half = rng.uniform(0.018, 0.035, (thing_count, 1)) * (1, 4 / 3)
    place = rng.uniform(0.1, 0.9, (thing_count, 2))
    angle, speed = rng.uniform(0, 2 * np.pi, thing_count), rng.uniform(0.003, 0.01, thing_count)
    step = np.stack([np.cos(angle), np.sin(angle) * 4 / 3], axis=1) * speed[:, None]
    begin = np.where(rng.random(thing_count) < 0.3, rng.integers(1, frame_count // 2, thing_count), 0)
    end = np.where(rng.random(thing_count) < 0.3, rng.integers(frame_count // 2, frame_count, thing_count), frame_count)
    frames: list[Identified] = []
    for at in range(frame_count):
        boxes = np.concatenate([place - half, place + half], axis=1)
        there = (begin <= at) & (at < end)
        covered = shared_area(boxes, boxes) / np.prod(2 * half, axis=1)[:, None]
        hidden = (np.triu(covered, 1) * there > _HIDDEN_RATIO).any(axis=1)
        seen = np.flatnonzero(there & ~hidden)
        frames.append((seen.tolist(), boxes[seen]))
        place = place + step
        step[(place < half) | (place > 1 - half)] *= -1
        place = np.clip(place, half, 1 - half)
    return frames


def detected(frames: Sequence[Identified], errors: Errors, seed: int) -> list[Detected]:
    """What a detector that errs sees of a film; a thing's looks are a direction of its own with a little noise."""
    rng = np.random.default_rng(seed)
    count = 1 + max((i for ids, _ in frames for i in ids), default=0)
    looks = rng.standard_normal((count, LOOKS_DIM))
    found = []
    for ids, boxes in frames:
        row = []
        for at, number in enumerate(ids):
            if rng.random() < errors.miss_ratio:
                continue
            side = np.tile(boxes[at, 2:] - boxes[at, :2], 2)
            box = boxes[at] + rng.standard_normal(4) * errors.jitter_ratio * side
            shown = int(rng.choice(ids)) if rng.random() < errors.swap_ratio else number
            row.append((box, looks[shown] + 0.3 * rng.standard_normal(LOOKS_DIM)))
        for _ in range(rng.binomial(len(ids), errors.false_ratio)):
            corner = rng.uniform(0, 0.9, 2)
            row.append((np.concatenate([corner, corner + 0.06]), rng.standard_normal(LOOKS_DIM)))
        seen = np.clip(np.array([box for box, _ in row]).reshape(-1, 4), 0, 1)
        seen[:, 2:] = np.maximum(seen[:, 2:], seen[:, :2] + 1e-3)
        found.append((seen, np.array([looks for _, looks in row]).reshape(-1, LOOKS_DIM)))
    return found


def scored(truth: Sequence[Identified], found: Sequence[Identified]) -> TrackScores:
    """Scores of identified boxes against the truth, frame by frame; ValueError for films of different lengths."""
    (names, totals), (other_names, other_totals) = (
        np.unique(np.concatenate([[], *(ids for ids, _ in side)]), return_counts=True) for side in (truth, found)
    )
    overlaps = np.zeros((len(truth), len(names), len(other_names)))
    for frame, (ids, boxes), (others, found_boxes) in zip(overlaps, truth, found, strict=True):
        frame[np.ix_(np.searchsorted(names, ids), np.searchsorted(other_names, others))] = iou(boxes, found_boxes)
    box_count = int(totals.sum() + other_totals.sum())
    in_either = totals[:, None] + other_totals
    both = (overlaps >= _SAME).sum(axis=0)
    kept = sum(both[pair] for pair in cheapest(-both))
    shared = overlaps.sum(axis=1, keepdims=True) + overlaps.sum(axis=2, keepdims=True) - overlaps
    likely = np.divide(overlaps, shared, out=np.zeros_like(overlaps), where=shared > 0).sum(axis=0)
    matched = _matched(overlaps * (likely / np.maximum(in_either - likely, 1e-12)))
    hota = []
    for alpha in _ALPHAS:
        hits = (matched & (overlaps >= alpha - 1e-12)).sum(axis=0)
        accuracy = float((hits * (hits / np.maximum(in_either - hits, 1))).sum()) / max(hits.sum(), 1)
        hota.append(np.sqrt(hits.sum() / max(box_count - hits.sum(), 1) * accuracy))
    switches = 0
    for followed in (_matched(overlaps) & (overlaps >= _SAME)).transpose(1, 0, 2):
        identities = followed.nonzero()[1]
        switches += int((np.diff(identities) != 0).sum())
    return TrackScores(float(np.mean(hota)), 2 * float(kept) / max(box_count, 1), switches)


def _matched(worth: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Pairs of the greatest total worth in each frame [frames, objects, identities]."""
    found = np.zeros(worth.shape, np.bool_)
    for frame, own in zip(found, worth, strict=True):
        for pair in cheapest(-own):
            frame[pair] = True
    return found
