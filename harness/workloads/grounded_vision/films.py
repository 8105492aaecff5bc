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
    """Scores of identified boxes against the truth, frame by frame.

    Raises:
        ValueError: Films of different lengths.
    """
    overlaps = [iou(a[1], b[1]) for a, b in zip(truth, found, strict=True)]
    names = [sorted({i for ids, _ in side for i in ids}) for side in (truth, found)]
    index = [{name: at for at, name in enumerate(side)} for side in names]
    rows = [np.array([index[0][i] for i in ids], int) for ids, _ in truth]
    columns = [np.array([index[1][i] for i in ids], int) for ids, _ in found]
    totals = [
        np.bincount(np.concatenate(side), minlength=len(n)) for side, n in zip((rows, columns), names, strict=True)
    ]
    shape = (len(names[0]), len(names[1]))
    both, likely = np.zeros(shape), np.zeros(shape)
    for r, c, overlap in zip(rows, columns, overlaps, strict=True):
        np.add.at(both, np.ix_(r, c), overlap >= 0.5)
        shared = overlap.sum(axis=0)[None, :] + overlap.sum(axis=1)[:, None] - overlap
        np.add.at(likely, np.ix_(r, c), np.divide(overlap, shared, out=np.zeros_like(overlap), where=shared > 0))
    true_count, found_count = int(totals[0].sum()), int(totals[1].sum())
    kept = sum(both[r, c] for r, c in cheapest(-both))
    aligned = likely / np.maximum(totals[0][:, None] + totals[1][None, :] - likely, 1e-12)
    matches = [cheapest(-o * aligned[np.ix_(r, c)]) for r, c, o in zip(rows, columns, overlaps, strict=True)]
    hota = []
    for alpha in _ALPHAS:
        hits = np.zeros(shape)
        for r, c, overlap, pairs in zip(rows, columns, overlaps, matches, strict=True):
            for a, b in pairs:
                hits[r[a], c[b]] += overlap[a, b] >= alpha - 1e-12
        total = hits.sum()
        associated = hits / np.maximum(totals[0][:, None] + totals[1][None, :] - hits, 1)
        accuracy = float((hits * associated).sum()) / max(total, 1)
        hota.append(np.sqrt(total / max(true_count + found_count - total, 1) * accuracy))
    return TrackScores(
        float(np.mean(hota)), 2 * float(kept) / max(true_count + found_count, 1), _switches(truth, found)
    )


def _switches(truth: Sequence[Identified], found: Sequence[Identified]) -> int:
    last: dict[int, int] = {}
    count = 0
    for (ids, boxes), (names, others) in zip(truth, found, strict=True):
        overlap = iou(boxes, others)
        for row, column in cheapest(-overlap):
            if overlap[row, column] >= 0.5:
                count += last.get(ids[row], names[column]) != names[column]
                last[ids[row]] = names[column]
    return count
