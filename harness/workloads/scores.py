"""Scores that several systems give, each with its 95 % interval and beside its nulls."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import Any

import numpy as np

from harness.arrays import Doubles
from harness.domain.result import Score
from harness.stats.intervals import RESAMPLES, share_interval


def share(name: str, hits: Sequence[Any], group: str = "", nulls: Mapping[str, float] | None = None) -> Score:
    """A share of cases, with Wilson's interval; no value without cases."""
    count = len(hits)
    estimate = share_interval(sum(map(bool, hits)), count)
    value = None
    if count:
        value = estimate.mid
    return Score(
        name=name,
        group=group,
        value=value,
        low=estimate.low,
        high=estimate.high,
        count=count,
        nulls=dict(nulls or {}),
    )


def resampled(
    name: str,
    rows: Any,
    of: Callable[[Any], float],
    group: str = "",
    nulls: Mapping[str, float] | None = None,
    **more: Any,
) -> Score:
    """A figure of rows ``[n, ...]`` with the interval of cases drawn with replacement.

    No value without rows.
    """
    told: dict[str, Any] = {
        "name": name,
        "group": group,
        "nulls": dict(nulls or {}),
        "count": len(rows),
    } | more
    if not len(rows):
        return Score(value=None, **told)
    table = np.asarray(rows)
    rng = np.random.default_rng(0)
    drawn = [of(table[rng.integers(0, len(table), len(table))]) for _ in range(RESAMPLES // 4)]
    known = [value for value in drawn if isfinite(value)]
    value = of(table)
    if not isfinite(value) or not known:
        return Score(value=None, **told)
    low, high = np.percentile(known, [2.5, 97.5])
    return Score(value=float(value), low=float(low), high=float(high), **told)


def mean_score(
    name: str, values: Sequence[float], group: str = "", nulls: Mapping[str, float] | None = None
) -> Score:
    """The mean of a value of each case."""
    return resampled(name, values, lambda rows: float(np.mean(rows)), group, nulls)


def f1_score(said: Sequence[bool], true: Sequence[bool], group: str = "", **nulls: float) -> Score:
    """F1 of "yes", beside always saying yes."""
    always = f1_of(np.column_stack([np.ones(len(true), np.bool_), np.asarray(true, np.bool_)]))
    return resampled("f1", list(zip(said, true, strict=True)), f1_of, group, {"always yes": always} | nulls)


def f1_of(rows: Any) -> float:
    """F1 of rows [n, (said, true)]."""
    said = rows[:, 0].astype(np.bool_)
    true = rows[:, 1].astype(np.bool_)
    return float(2 * (said & true).sum() / max(1, said.sum() + true.sum()))


def auc_score(chances: Sequence[float], true: Sequence[bool], group: str = "", **nulls: float) -> Score:
    """Area under the ROC curve, beside a coin."""
    return resampled("auc", list(zip(chances, true, strict=True)), auc_of, group, {"a coin": 0.5} | nulls)


def auc_of(rows: Any) -> float:
    """Share of pairs of a true and a false row [n, (chance, true)] in which the true one has more.

    NaN without any.
    """
    from scipy.stats import rankdata

    true = rows[:, 1] > 0
    pairs = int(true.sum()) * int((~true).sum())
    if not pairs:
        return float("nan")
    ranks = rankdata(rows[:, 0])
    return float((ranks[true].sum() - true.sum() * (true.sum() + 1) / 2) / pairs)


def always(true: Sequence[bool]) -> float:
    """Accuracy of the commoner answer."""
    if len(true):
        return max(fmean(true), 1 - fmean(true))
    return 0.0


def rows_of(cases: Sequence[Any], answers: Sequence[Any], kind: type) -> list[tuple[Any, Any]]:
    """Cases of one kind with their answers."""
    return [(case, answer) for case, answer in zip(cases, answers, strict=True) if isinstance(case, kind)]


def scaled_by_halves(confidences: Sequence[float], right: Sequence[bool]) -> Doubles:
    """Confidences scaled by halves (Platt, each half by the other)."""
    from harness.stats.logistic import platt

    p = np.asarray(confidences, np.float64)
    y = np.asarray(right, np.bool_)
    first = np.arange(len(p)) % 2 == 0
    scaled = np.empty_like(p)
    for part in (first, ~first):
        scaled[part] = platt(p[~part], y[~part])(p[part])
    return scaled
