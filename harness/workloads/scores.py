"""Scores that several systems give, each with its 95 % interval and beside its nulls."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from harness.domain.result import Score
from harness.stats.intervals import RESAMPLES, share_interval


def share(name: str, hits: Sequence[Any], group: str = "", nulls: Mapping[str, float] | None = None) -> Score:
    """A share of cases, with Wilson's interval; no value without cases."""
    estimate = share_interval(sum(map(bool, hits)), len(hits))
    return Score(
        name=name,
        group=group,
        value=estimate.mid if len(hits) else None,
        low=estimate.low,
        high=estimate.high,
        count=len(hits),
        nulls=dict(nulls or {}),
    )


def mean_of(rows: Any) -> float:
    """Of rows [n]."""
    return float(np.mean(rows))


def resampled(
    name: str,
    rows: Any,
    of: Callable[[Any], float] = mean_of,
    group: str = "",
    nulls: Mapping[str, float] | None = None,
    *,
    more_is_better: bool = True,
) -> Score:
    """A figure of rows ``[n, ...]``, at least one, with the interval of cases drawn with replacement."""
    score = Score(
        name=name,
        value=None,
        group=group,
        count=len(rows),
        nulls=dict(nulls or {}),
        more_is_better=more_is_better,
    )
    table = np.asarray(rows)
    rng = np.random.default_rng(0)
    drawn = [of(table[rng.integers(0, len(table), len(table))]) for _ in range(RESAMPLES // 4)]
    known = [value for value in drawn if isfinite(value)]
    value = of(table)
    if not isfinite(value) or not known:
        return score
    low, high = np.percentile(known, [2.5, 97.5])
    return score.replace(value=float(value), low=float(low), high=float(high))


def f1_score(said: Sequence[bool], true: Sequence[bool], group: str = "", **nulls: float) -> Score:
    """F1 of "yes", beside always saying yes."""
    always = f1_of(np.column_stack([np.ones(len(true)), true]))
    return resampled("f1", np.column_stack([said, true]), f1_of, group, {"always yes": always} | nulls)


def f1_of(rows: Any) -> float:
    """F1 of rows [n, (said, true)]."""
    both = np.logical_and(rows[:, 0], rows[:, 1]).sum()
    return float(2 * both / max(1, rows.sum()))


def auc_score(chances: Sequence[float], true: Sequence[bool], group: str = "", **nulls: float) -> Score:
    """Area under the ROC curve, beside a coin."""
    return resampled("auc", np.column_stack([chances, true]), auc_of, group, {"a coin": 0.5} | nulls)


def auc_of(rows: Any) -> float:
    """Share of pairs of a true and a false row [n, (chance, true)] in which the true one has more.

    NaN without any.
    """
    from scipy.stats import rankdata

    true = rows[:, 1] > 0
    pairs = int(true.sum()) * int((~true).sum())
    if not pairs:
        return float("nan")
    return float((rankdata(rows[:, 0])[true].sum() - true.sum() * (true.sum() + 1) / 2) / pairs)


def always(true: Sequence[bool]) -> float:
    """Accuracy of the commoner answer."""
    return max(mean_of(true), 1 - mean_of(true))


def of_kind(cases: Sequence[Any], answers: Sequence[Any], kind: type) -> list[tuple[Any, Any]]:
    """Cases of one kind with their answers."""
    return [(case, answer) for case, answer in zip(cases, answers, strict=True) if isinstance(case, kind)]
