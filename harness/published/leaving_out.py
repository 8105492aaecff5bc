"""Errors on chips that a fit has not seen: one left out at a time, or a random share of all chips at once.

One left out keeps its siblings in the fit, as a file with about as many chips again would find them; half left out
halves what there is to learn from. A new chip is somewhere between.
"""

import math
import random
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.predict.coefficients import Coefficient, Coefficients, Covariance
from harness.predict.interval import expected_spread, grouped
from harness.published import fitting
from harness.published.rows import Row, predictable
from harness.published.validation import Judged, is_trusted, judged, residual_key

CALIBRATION_RATIO: Final = 0.33
"""Share of chips left out at once for the residuals that intervals are made of."""
CALIBRATION_SPLITS: Final = 32


class _Left(NamedTuple):
    """A left-out row: predicted speed, standard error in ln, weight, split."""

    row: Row
    speed_tokens_per_s: float
    standard_error: float
    weight: float
    split: int


class _Fitted(NamedTuple):
    rows: list[Row]
    problem: fitting.Problem
    theta: NDArray[np.float64]


def _fitted(rows: Sequence[Row]) -> dict[str, _Fitted]:
    result = {}
    for phase in ("decode", "prefill"):
        part = [r for r in predictable(rows) if r.phase == phase]
        if part:
            problem = fitting.problem_of(part, phase)
            result[phase] = _Fitted(part, problem, fitting.fit(problem))
    return result


def splits_of(chips: Iterable[str], ratio: float, count: int) -> list[set[str]]:
    """Sets of chips to leave out: random, and the same each time."""
    names = sorted(set(chips))
    size = max(1, round(ratio * len(names)))
    return [set(random.Random(seed).sample(names, size)) for seed in range(count)]


def _left(fitted: Iterable[_Fitted], splits: Sequence[set[str]]) -> list[_Left]:
    result = []
    for rows, problem, _ in fitted:
        for number, chips in enumerate(splits):
            out = np.array([r.chip in chips for r in rows])
            if not out.any():
                continue
            predicted, errors = fitting.without(problem, out)
            part = [r for r in rows if r.chip in chips]
            for row, ln_t, target, error, weight in zip(
                part, predicted, problem.target[out], errors, problem.weight[out], strict=True
            ):
                speed = row.tokens_per_s * math.exp(target - ln_t)
                result.append(_Left(row, speed, float(error), float(weight), number))
    return result


def _residuals(left: Sequence[_Left]) -> dict[str, tuple[float, float]]:
    trusted = [item for item in left if is_trusted(item.row)] or list(left)
    repeats: dict[int, int] = {}
    for item in trusted:
        repeats[item.row.line] = repeats.get(item.row.line, 0) + 1
    result = grouped(
        (
            residual_key(item.row),
            item.row.chip,
            math.log(item.row.tokens_per_s / item.speed_tokens_per_s)
            / expected_spread(item.standard_error, item.row.machine.api),
            item.weight / repeats[item.row.line],
        )
        for item in trusted
    )
    return {key: (round(low, 4), round(high, 4)) for key, (low, high) in result.items()}


def leave_out(rows: Sequence[Row], ratio: float, count: int) -> list[Judged]:
    """Rows of random shares of the chips, each share predicted by a fit on the others.

    Its intervals use the residuals of chips outside it alone.

    Args:
        rows: Published measurements.
        ratio: Share of the chips left out at once, above 0 and below 1.
        count: Repetitions.
    """
    fitted = _fitted(rows)
    splits = splits_of((r.chip for r in predictable(rows)), ratio, count)
    left = _left(fitted.values(), splits)
    result = []
    for number, chips in enumerate(splits):
        others = _residuals([item for item in left if item.row.chip not in chips])
        result += [
            judged(i.row, i.speed_tokens_per_s, i.standard_error, others, number) for i in left if i.split == number
        ]
    return result


def fit_all(rows: Sequence[Row], source: str) -> tuple[Coefficients, list[Judged]]:
    """Fit both laws on all rows, and judge each chip by fits without it.

    The interval of a left-out chip uses only the residuals of other chips, which were left out many at a time.
    """
    fitted = _fitted(rows)
    chips = sorted({r.chip for r in predictable(rows)})
    many = _left(fitted.values(), splits_of(chips, CALIBRATION_RATIO, CALIBRATION_SPLITS))
    result = []
    by_chip: dict[str, list[_Left]] = {}
    for item in _left(fitted.values(), [{chip} for chip in chips]):
        by_chip.setdefault(item.row.chip, []).append(item)
    for chip, items in by_chip.items():
        others = _residuals([item for item in many if item.row.chip != chip])
        result += [judged(i.row, i.speed_tokens_per_s, i.standard_error, others) for i in items]
    terms: dict[str, dict[str, Coefficient]] = {"decode": {}, "prefill": {}}
    spread = {"decode": Covariance(), "prefill": Covariance()}
    for phase, (_, problem, theta) in fitted.items():
        terms[phase] = fitting.as_coefficients(problem, theta)
        spread[phase] = fitting.as_covariance(problem, theta)
    coefficients = Coefficients(
        source=source,
        decode=terms["decode"],
        prefill=terms["prefill"],
        residuals=_residuals(many),
        decode_covariance=spread["decode"],
        prefill_covariance=spread["prefill"],
    )
    return coefficients, result
