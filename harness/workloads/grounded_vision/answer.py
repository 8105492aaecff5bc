"""Answer questions from grounded tokens by small linear heads, the same for every way of making the tokens.

Two ridge regressions read one token each: how many objects of each class it stands for, and where the nearest of them
lies in it. A token of the whole image stands for the objects whose centre is in its cell, a region's token for the
objects whose centre is in its box. What is compared is only which tokens there are: the whole image's, or the regions'.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.stats.intervals import share_interval
from harness.workloads.grounded_vision.boxes import Boxes, centres, iou
from harness.workloads.grounded_vision.scenes import CLASS_COUNT, Question, Scene

PENALTIES: Final = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
KINDS: Final = ("count", "left_right", "above_below", "box")
BOX_OVERLAP: Final = 0.5
_VALIDATION_SHARE: Final = 0.2


class View(NamedTuple):
    """Tokens [T, D] of one scene that may be answered from, and the part [T, 4] of the image each is of."""

    tokens: NDArray[np.float32]
    boxes: Boxes


class Heads(NamedTuple):
    """Trained heads: tokens are centred and scaled, then two linear maps [D + 1, classes] and [D + 1, 4]."""

    mean: NDArray[np.float64]
    scale: float
    classes: NDArray[np.float64]
    places: NDArray[np.float64]
    threshold: float


class Score(NamedTuple):
    """How often a kind of question was answered right, with its 95 % Wilson interval."""

    right_count: int
    question_count: int
    share: float
    low: float
    high: float


def train(views: Sequence[View], scenes: Sequence[Scene], questions: Sequence[Sequence[Question]]) -> Heads:
    """Heads for these views: penalty and threshold are those that answer the last fifth of the scenes best.

    The final heads are then fitted to all scenes with that penalty.
    """
    cut = len(views) - max(1, int(len(views) * _VALIDATION_SHARE))
    best: tuple[float, float, float] | None = None
    moments = _Moments(views[:cut], scenes[:cut])
    for penalty in PENALTIES:
        heads = moments.solve(penalty)
        for threshold in (0.3, 0.4, 0.5, 0.6):
            tried = heads._replace(threshold=threshold)
            found = evaluate(tried, views[cut:], scenes[cut:], questions[cut:])
            mean = float(np.mean([s.share for s in found.values()]))
            if best is None or mean > best[0]:
                best = (mean, penalty, threshold)
    assert best is not None
    return _Moments(views, scenes).solve(best[1])._replace(threshold=best[2])


def evaluate(
    heads: Heads, views: Sequence[View], scenes: Sequence[Scene], questions: Sequence[Sequence[Question]]
) -> dict[str, Score]:
    """Score of each kind of question."""
    found = outcomes(heads, views, scenes, questions)
    return {kind: scored(sum(found[kind]), len(found[kind])) for kind in KINDS if found[kind]}


def outcomes(
    heads: Heads, views: Sequence[View], scenes: Sequence[Scene], questions: Sequence[Sequence[Question]]
) -> dict[str, list[bool]]:
    """Right or wrong for each question of each kind, in order: two ways of seeing can be compared in pairs."""
    found: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for view, scene, asked in zip(views, scenes, questions, strict=True):
        counts, boxes = read(heads, view)
        for question in asked:
            found[question.kind].append(_is_right(question, scene, counts, boxes, heads.threshold))
    return found


def read(heads: Heads, view: View) -> tuple[NDArray[np.float64], Boxes]:
    """Objects of each class [T, classes] that each token seems to stand for, and the box [T, 4] of its nearest one."""
    rows = _rows(view.tokens, heads.mean, heads.scale)
    offsets = rows @ heads.places
    size = view.boxes[:, 2:] - view.boxes[:, :2]
    middle = centres(view.boxes) + offsets[:, :2] * size
    half = np.exp(np.clip(offsets[:, 2:], -4, 4)) * size / 2
    return rows @ heads.classes, np.concatenate([middle - half, middle + half], axis=1)


def answer(question: Question, counts: NDArray[np.float64], boxes: Boxes, threshold: float) -> int | Boxes:
    """The number, 1 or 0 for left or right (above or below), or the box [4]."""
    if not len(counts):
        return 0 if question.kind != "box" else np.zeros(4)
    if question.kind == "count":
        scores = counts[:, question.subject]
        # A token counts for a class when it is the likeliest there; more than once when it seems to hold several.
        likeliest = counts.argmax(axis=1) == question.subject
        return int(np.maximum(1, np.round(scores[likeliest & (scores > threshold)])).sum())
    subject = int(counts[:, question.subject].argmax())
    if question.kind == "box":
        return np.asarray(boxes[subject])
    other = int(counts[:, question.other].argmax())
    axis = 0 if question.kind == "left_right" else 1
    middle = centres(boxes)
    return int(middle[subject, axis] < middle[other, axis])


def scored(right_count: int, question_count: int) -> Score:
    """A share with its 95 % Wilson interval; ``question_count`` is at least 1."""
    found = share_interval(right_count, question_count)
    return Score(right_count, question_count, found.mid, found.low or 0.0, 1.0 if found.high is None else found.high)


def paired_difference(
    a: Sequence[bool], b: Sequence[bool], *, groups: Sequence[int], seed: int = 0, draws: int = 2000
) -> tuple[float, float, float]:
    """Mean of a - b with its 95 % bootstrap interval; whole groups are drawn: questions of one scene hang together."""
    sums: Mapping[int, list[float]] = {g: [0.0, 0.0] for g in groups}
    for g, x, y in zip(groups, a, b, strict=True):
        sums[g][0] += float(x) - float(y)
        sums[g][1] += 1
    table = np.array(list(sums.values()))
    chosen = np.random.default_rng(seed).integers(0, len(table), (draws, len(table)))
    drawn = table[chosen].sum(axis=1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    return float(table[:, 0].sum() / table[:, 1].sum()), float(low), float(high)


class _Moments:
    """Sums that every penalty's solution is made from: tokens are read once."""

    def __init__(self, views: Sequence[View], scenes: Sequence[Scene]) -> None:
        tokens = np.concatenate([v.tokens for v in views])
        targets = [_targets(v, s) for v, s in zip(views, scenes, strict=True)]
        self._mean = tokens.mean(axis=0, dtype=np.float64)
        # One scale for all: the tokens' axes are a rotation's, none of them means anything by itself.
        self._scale = float(np.sqrt(((tokens - self._mean) ** 2).mean())) or 1.0
        rows = _rows(tokens, self._mean, self._scale)
        counts = np.concatenate([t[0] for t in targets])
        seen = np.concatenate([t[2] for t in targets])
        self._all = rows.T @ rows
        self._class_side = rows.T @ counts
        some = rows[seen]
        self._some = some.T @ some
        self._place_side = some.T @ np.concatenate([t[1] for t in targets])[seen]
        self._row_count, self._some_count = len(rows), max(1, len(some))

    def solve(self, penalty: float) -> Heads:
        """Ridge: (X'X + l n I) w = X'y, the last column (the constant) not shrunk."""
        ridge = np.eye(len(self._all)) * penalty
        ridge[-1, -1] = 1e-9
        classes = np.linalg.solve(self._all + ridge * self._row_count, self._class_side)
        places = np.linalg.solve(self._some + ridge * self._some_count, self._place_side)
        return Heads(self._mean, self._scale, classes, places, 0.5)


def _rows(tokens: NDArray[np.float32], mean: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    return np.concatenate([(tokens - mean) / scale, np.ones((len(tokens), 1))], axis=1)


def _targets(view: View, scene: Scene) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Objects of each class [T, classes], place of the nearest [T, 4], and whether there is one [T]."""
    counts = np.zeros((len(view.boxes), CLASS_COUNT))
    places = np.zeros((len(view.boxes), 4))
    middle, own = centres(scene.boxes), centres(view.boxes)
    inside = np.all((middle[None] >= view.boxes[:, None, :2]) & (middle[None] < view.boxes[:, None, 2:]), axis=2)
    for at, thing in enumerate(scene.things):
        counts[:, thing.class_index] += inside[:, at]
    nearest = np.where(inside, np.linalg.norm(middle[None] - own[:, None], axis=2), np.inf).argmin(axis=1)
    size = view.boxes[:, 2:] - view.boxes[:, :2]
    wide = scene.boxes[:, 2:] - scene.boxes[:, :2]
    places[:, :2] = (middle[nearest] - own) / size
    places[:, 2:] = np.log(wide[nearest] / size)
    return counts, places, inside.any(axis=1)


def _is_right(question: Question, scene: Scene, counts: NDArray[np.float64], boxes: Boxes, threshold: float) -> bool:
    given = answer(question, counts, boxes, threshold)
    if question.kind == "box":
        wanted = scene.boxes[question.answer][None]
        return bool(iou(np.asarray(given, np.float64)[None], wanted)[0, 0] >= BOX_OVERLAP)
    return bool(given == question.answer)
