"""Errors on what a fit has not seen: chips, sources, families, runtimes, or all that came later."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.predict.coefficients import Coefficients
from harness.predict.interval import class_scales, scale_classes
from harness.published import fitting
from harness.published.rows import Row, is_trusted, predictable
from harness.published.validation import Judged, judged

Array = NDArray[np.float64]

GROUPS: Final[dict[str, Callable[[Row], str]]] = {
    "chip": lambda row: row.chip,
    "source": lambda row: row.source,
    "family": lambda row: f"{row.machine.traits.family}|{row.machine.side}",
    "runtime": lambda row: row.machine.runtime,
}
"""What is left out of a fit, by the word that asks for it."""
LATER_RATIO: Final = 0.3
"""Share of the rows, the latest, that ``time`` leaves out."""
CALIBRATION_FOLDS: Final = 10
"""Parts of the groups; the intervals of one use the residuals of the others alone."""


class Whole(NamedTuple):
    """Predictable rows and the fit on all of them."""

    rows: list[Row]
    problem: fitting.Problem
    fit: fitting.Fit


def fitted(rows: Sequence[Row]) -> Whole:
    """The fit on all predictable rows."""
    found = predictable(rows)
    problem = fitting.problem_of(found)
    return Whole(found, problem, fitting.fit(problem))


def left_out(whole: Whole, names: Sequence[str]) -> tuple[Array, Array]:
    """Ln t of each row and its expected spread, by a fit without the rows of its name."""
    predicted, spread = np.zeros(len(names)), np.ones(len(names))
    for name in sorted(set(names)):
        out = np.array([one == name for one in names])
        predicted[out], variance = fitting.without(whole.problem, whole.fit, out)
        spread[out] = np.sqrt(variance + whole.fit.noise[out] ** 2)
    return predicted, spread


def scales_of(
    rows: Sequence[Row], weights: Array, errors: Array, spread: Array, keep: NDArray[np.bool_]
) -> dict[str, float]:
    """What the spread expected of the trusted rows marked is to be multiplied with, by phase and class."""
    trusted = keep & np.array([is_trusted(row) for row in rows])
    at = [int(i) for i in np.flatnonzero(trusted if trusted.any() else keep)]
    chosen = [rows[i] for i in at]
    classes = [scale_classes(r.phase, r.work, r.machine) for r in chosen if r.work is not None]
    found = class_scales(classes, [r.source for r in chosen], np.abs(errors[at] / spread[at]), weights[at])
    return {key: round(value, 3) for key, value in found.items()}


def leave_out(rows: Sequence[Row], by: str) -> list[Judged]:
    """Every row predicted by a fit that saw none of its kind, with an interval from the residuals of others.

    ``by`` is a key of ``GROUPS``, or ``time``: the latest ``LATER_RATIO`` of the rows by a fit on those before.
    """
    if by == "time":
        return _later(rows)
    whole = fitted(rows)
    names = [GROUPS[by](row) for row in whole.rows]
    return judge_left_out(whole, range(len(names)), names, *left_out(whole, names))


def _later(rows: Sequence[Row]) -> list[Judged]:
    """The latest rows by a fit on those before; their intervals by what such a fit of the past missed of its future."""
    found = sorted(predictable(rows), key=lambda row: row.machine.build_year)
    years, problem = np.array([row.machine.build_year for row in found]), fitting.problem_of(found)
    cut = years[int((1 - LATER_RATIO) * len(found))]
    past = years[int((1 - LATER_RATIO) * (years < cut).sum())]
    (before, said, spread), (after, predicted, own) = (_ahead(problem, years >= year) for year in (past, cut))
    errors, weights = said - problem.target[before], problem.weight[before]
    scales = scales_of([found[i] for i in before], weights, errors, spread, years[before] < cut)
    return [judged(found[row], float(predicted[i]), float(own[i]), scales) for i, row in enumerate(after)]


def _ahead(problem: fitting.Problem, later: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Array, Array]:
    """Numbers of the rows marked, their ln t by a fit on all others, and its expected spread."""
    early = fitting.fit(problem, ~later)
    predicted, variance = fitting.without(problem, early, later)
    return np.flatnonzero(later), predicted, np.sqrt(variance + early.noise[later] ** 2)


def fit_all(rows: Sequence[Row], source: str) -> Coefficients:
    """Coefficients of a fit on all rows; its intervals by the errors on sources left out."""
    whole = fitted(rows)
    predicted, spread = left_out(whole, [row.source for row in whole.rows])
    everything = np.ones(len(whole.rows), bool)
    scales = scales_of(whole.rows, whole.problem.weight, predicted - whole.problem.target, spread, everything)
    return fitting.coefficients_of(whole.problem, whole.fit, whole.rows, source, scales)


def judge_left_out(
    whole: Whole, at: Sequence[int], names: Sequence[str], predicted: Array, spread: Array
) -> list[Judged]:
    """Rows that fits had not seen, with intervals from the residuals of other names.

    ``at`` numbers those judged; of these are what each was left out by, its ln t and the expected spread of that.
    """
    rows, index = [whole.rows[i] for i in at], np.array(at)
    errors, weights, fold = predicted - whole.problem.target[index], whole.problem.weight[index], folds_of(names)
    scales = [scales_of(rows, weights, errors, spread, fold != number) for number in range(CALIBRATION_FOLDS)]
    return [judged(row, float(predicted[i]), float(spread[i]), scales[fold[i]]) for i, row in enumerate(rows)]


def folds_of(names: Sequence[str]) -> NDArray[np.int64]:
    """Number of each row's part: names, the most frequent first, each to the smallest part."""
    count = Counter(names)
    sizes, part = [0] * CALIBRATION_FOLDS, {}
    for name in sorted(count, key=lambda one: (-count[one], one)):
        part[name] = sizes.index(min(sizes))
        sizes[part[name]] += count[name]
    return np.array([part[name] for name in names])
