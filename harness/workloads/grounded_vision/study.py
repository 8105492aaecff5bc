"""Do regions show more than the whole image at the same cost? Reading small words on photographs.

    regions   text is looked for in a copy of ``FIND_PX`` pixels and read from the picture itself
    base      text is looked for, and read, in one copy that has as many pixels as that copy and the lines read together
    twice     the same at twice that side: four times the pixels
    whole     the same in the picture as it is

A word is read when a box that overlaps its card says it, letter for letter. Beside it a projection that is trained: a
ridge map from tokens of the whole image to whether text lies in their cell, learnt on one half of the photographs and
judged on the other by the area under the ROC curve. No threshold was chosen on these pictures. Tracking: films with
detections that err, eight films for each kind of error.
"""

from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.stats.intervals import cluster_interval, share_interval
from harness.workloads.grounded_vision.boxes import Boxes, iou
from harness.workloads.grounded_vision.encoder import GroundedEncoder, prepared
from harness.workloads.grounded_vision.films import Detected, Errors, Identified, TrackScores, detected, film, scored
from harness.workloads.grounded_vision.images import Image, resize
from harness.workloads.grounded_vision.photographs import PHOTOGRAPHS, Written, pictures
from harness.workloads.grounded_vision.reading import LINE_PX, TextReader
from harness.workloads.grounded_vision.tracks import Tracker

FIND_PX: Final = 640
PICTURE_SEED: Final = 12
_PENALTY: Final = 1.0
KINDS: Final = {
    "none": Errors(),
    "misses": Errors(miss_ratio=0.2),
    "jitter": Errors(jitter_ratio=0.1),
    "swaps": Errors(swap_ratio=0.2),
    "all": Errors(miss_ratio=0.2, jitter_ratio=0.05, false_ratio=0.1, swap_ratio=0.1),
}


class Seen(NamedTuple):
    """What one way of seeing read and where, and the pixels that its networks were given."""

    boxes: Boxes
    texts: list[str]
    pixel_count: float


def compare(folder: Path, *, picture_count: int = 48, thread_count: int = 1) -> dict[str, Any]:
    """Share of words read by each way of seeing, paired differences, the trained projection, and tracking.

    Networks are kept in ``folder``; a picture has four words. MissingPackageError where scikit-image is not installed,
    FetchError where a network could not be had.
    """
    reader = TextReader(folder, thread_count=thread_count)
    right: dict[str, list[list[bool]]] = {}
    pixels: dict[str, float] = {}
    for made in pictures(PICTURE_SEED, picture_count):
        for name, seen in ways(reader, made.image).items():
            right.setdefault(name, []).append(words_read(made, seen))
            pixels[name] = pixels.get(name, 0.0) + seen.pixel_count / picture_count
    reader.close()
    shares = {}
    for name, rows in right.items():
        flat = [word for row in rows for word in row]
        found = share_interval(sum(flat), len(flat))
        shares[name] = {"share": found.mid, "low": found.low, "high": found.high, "pixel_count": pixels[name]}
    return {
        "word_count": sum(map(len, right["regions"])),
        "read": shares,
        "regions_less_base": paired_difference(right["regions"], right["base"]),
        "whole_less_regions": paired_difference(right["whole"], right["regions"]),
        "cell_auroc": trained_cells(folder, thread_count=thread_count),
        "tracking": {name: tracking(errors)._asdict() for name, errors in KINDS.items()},
    }


def ways(reader: TextReader, image: Image) -> dict[str, Seen]:
    """Every way of seeing one picture."""
    height, width = image.shape[:2]
    boxes = reader.find(image, FIND_PX)
    across, down = ((boxes[:, 2:] - boxes[:, :2]) * (width, height)).T
    copy = height * width * (FIND_PX / max(height, width)) ** 2
    total = copy + float((LINE_PX**2 * across / down).sum())
    scale = FIND_PX * sqrt(total / copy) / max(height, width)
    return {
        "regions": Seen(boxes, reader.read(image, boxes), total),
        "base": _one_copy(reader, image, min(1.0, scale)),
        "twice": _one_copy(reader, image, min(1.0, 2 * scale)),
        "whole": _one_copy(reader, image, 1.0),
    }


def _one_copy(reader: TextReader, image: Image, scale: float) -> Seen:
    """Text found and read in a copy; it is charged for its pixels once."""
    height, width = (round(side * scale) for side in image.shape[:2])
    copy = image if scale == 1.0 else np.clip(np.rint(resize(image, height, width)), 0, 255).astype(np.uint8)
    boxes = reader.find(copy, max(height, width))
    return Seen(boxes, reader.read(copy, boxes), height * width)


def words_read(made: Written, seen: Seen) -> list[bool]:
    """For each word, whether some reading whose middle is on its card says it."""
    middles = (seen.boxes[:, :2] + seen.boxes[:, 2:]) / 2
    said = [(text.strip(), x, y) for text, (x, y) in zip(seen.texts, middles, strict=True)]
    return [
        any(text == word and x0 <= x <= x1 and y0 <= y <= y1 for text, x, y in said)
        for word, (x0, y0, x1, y1) in zip(made.words, made.boxes, strict=True)
    ]


def paired_difference(a: Sequence[Sequence[bool]], b: Sequence[Sequence[bool]]) -> dict[str, float | None]:
    """Mean of a - b over words with its 95 % bootstrap interval; whole pictures are drawn."""
    found = cluster_interval([sum(x) - sum(y) for x, y in zip(a, b, strict=True)], [len(x) for x in a])
    return {"mean": found.mid, "low": found.low, "high": found.high}


def trained_cells(folder: Path, *, picture_count: int = 24, thread_count: int = 1) -> float:
    """Area under the ROC curve of a ridge map from the whole image's tokens to text in their cell."""
    encoder = GroundedEncoder(prepared(folder), thread_count=thread_count)
    sides = []
    for at, names in enumerate((PHOTOGRAPHS[::2], PHOTOGRAPHS[1::2])):
        rows, targets = [], []
        for made in pictures(PICTURE_SEED + 1 + at, picture_count, names):
            found = encoder.encode(made.image)
            rows.append(found.tokens[found.mask])
            targets.append((iou(found.boxes[found.mask], made.boxes) > 0).any(axis=1))
        sides.append((np.concatenate(rows).astype(float), np.concatenate(targets)))
    encoder.close()
    (x, y), (held_x, held_y) = sides
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
    x = (x - mean) / deviation
    weights = np.linalg.solve(x.T @ x + _PENALTY * len(x) * np.eye(x.shape[1]), x.T @ (y - y.mean()))
    return auroc((held_x - mean) / deviation @ weights, held_y)


def auroc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Chance that a positive scores above a negative, ties counted half (Mann and Whitney 1947)."""
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(scores[labels], scores[~labels]).statistic / (labels.sum() * (~labels).sum()))


def tracking(errors: Errors, film_count: int = 8) -> TrackScores:
    """Mean HOTA and IDF1 and all switches over films seen with those errors."""
    found = [
        scored(made, followed(detected(made, errors, seed))) for seed, made in enumerate(map(film, range(film_count)))
    ]
    means = np.mean([(s.hota, s.idf1) for s in found], axis=0)
    return TrackScores(float(means[0]), float(means[1]), sum(s.switch_count for s in found))


def followed(detections: Sequence[Detected]) -> list[Identified]:
    """What a new tracker calls each detection."""
    tracker = Tracker()
    return [(tracker.step(boxes, looks), boxes) for boxes, looks in detections]
