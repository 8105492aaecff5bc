"""Scores that several systems give, each with its 95 % interval and beside its nulls."""

from collections.abc import Callable, Sequence
from math import isnan
from typing import Any

import numpy as np

from harness.core.result import Score
from harness.core.stats.intervals import RESAMPLES, share_interval

Nulls = dict[str, float]
_NONE: Nulls = {}


def figure(name: str, value: float, group: str, count: int, *, more_is_better: bool = True) -> Score:
    """A figure of so many cases without an interval."""
    return Score(name=name, value=float(value), group=group, count=count, more_is_better=more_is_better)


def share(name: str, hits: Sequence[Any], group: str = "", nulls: Nulls = _NONE) -> Score:
    """A share of cases, with Wilson's interval; no value without cases."""
    estimate = share_interval(sum(hits), len(hits))
    score = figure(name, estimate.mid, group, len(hits)).replace(
        low=estimate.low, high=estimate.high, nulls=nulls
    )
    return score if hits else score.replace(value=None)


def mean_of(rows: Any) -> float:
    """Of rows [n]."""
    return float(np.mean(rows))


def resampled(name: str, rows: Any, group: str, nulls: Nulls, of: Callable[[Any], float] = mean_of) -> Score:
    """A figure of rows ``[n, ...]``, at least one, with the interval of cases drawn with replacement."""
    table = np.asarray(rows)
    count = len(table)
    score = figure(name, of(table), group, count).replace(nulls=nulls)
    if isnan(of(table)):
        return score.replace(value=None)
    draws = np.random.default_rng(0).integers(0, count, (RESAMPLES // 4, count))
    low, high = np.nanpercentile([of(table[draw]) for draw in draws], [2.5, 97.5]).tolist()
    return score.replace(low=low, high=high)


def f1_score(said: Sequence[bool], true: Sequence[bool], group: str) -> Score:
    """F1 of "yes", beside always saying yes."""
    always = 2 * mean_of(true) / (1 + mean_of(true))
    return resampled("f1", np.column_stack([said, true]), group, {"always yes": always}, f1_of)


def f1_of(rows: Any) -> float:
    """F1 of rows [n, (said, true)]."""
    both = np.logical_and(rows[:, 0], rows[:, 1]).sum()
    return float(2 * both / max(1, rows.sum()))


def auc_score(chances: Sequence[float], true: Sequence[bool], group: str, nulls: Nulls = _NONE) -> Score:
    """Area under the ROC curve, beside a coin."""
    return resampled("auc", np.column_stack([chances, true]), group, {"a coin": 0.5, **nulls}, auc_of)


def auc_of(rows: Any) -> float:
    """Share of pairs of a true and a false row [n, (chance, true)] in which the true one has more.

    The result is NaN if there is no such pair.
    """
    from scipy.stats import rankdata

    true = rows[:, 1] > 0
    if true.all() or not true.any():
        return float("nan")
    return float((rankdata(rows[:, 0])[true].mean() - (true.sum() + 1) / 2) / (~true).sum())


def always(true: Sequence[bool]) -> float:
    """Accuracy of the commoner answer."""
    return max(mean_of(true), 1 - mean_of(true))


def of_kind(cases: Sequence[Any], answers: Sequence[Any], kind: type) -> list[tuple[Any, Any]]:
    """Cases of one kind with their answers."""
    return [(case, answer) for case, answer in zip(cases, answers, strict=True) if isinstance(case, kind)]
