"""Judge values against a limit: pass, fail, or inconclusive, with the margin and what could have been seen.

Everything is judged as a ratio to its limit, so that one rule serves all metrics: for a speed the ratio must stay at or
above 1, for a cost at or below. The whole interval inside means pass, the whole interval outside means fail, and an
interval that straddles the limit is inconclusive: noise cannot flip a decision, it can only postpone it.
"""

from collections.abc import Sequence
from math import log, sqrt
from typing import Any, Literal

from harness.catalog.budgets import LIMITS
from harness.domain.base import Frozen
from harness.domain.budget import HIGHER_IS_BETTER, Budget, Metric
from harness.stats.intervals import Estimate
from harness.stats.runs import Spread, detectable, runs_needed
from harness.units import counted

GateAnswer = Literal["pass", "fail", "inconclusive", "could not run"]


SINGLE_VALUE_SPREAD: dict[Metric, float] = {
    "file_bytes": 0.0,
    "peak_memory_bytes": 0.01,
    "peak_anonymous_bytes": 0.01,
    "acceptance_ratio": 0.0,
    "read_bytes_per_token": 0.02,
    "perplexity": 0.0,
    "kl_divergence_nats": 0.0,
    "sustained_tokens_per_s": 0.03,
    "sustained_joules_per_token": 0.05,
    "hottest_celsius": 0.02,
}
"""Metrics that one run settles, with the half width given to one value: peaks of repeated runs differ by under 1 %."""


class Judgement(Frozen):
    """What one budget came to.

    Limit, value and its interval (``low``, ``high``) are in the metric's unit, or ratios to what ``relative_to`` names
    (``baseline``, ``prediction``, ``roofline``). ``margin_ratio`` is how far inside (positive) or outside the limit the
    value lies, as a share of the limit; ``detectable_ratio`` the smallest slowdown that these runs show in 95 of 100
    gates, None without an interval of theirs. Evidence are runs (identifiers) or parts of a prediction; ``line`` is 0
    without a file.
    """

    budget: Budget
    answer: GateAnswer
    limit: float
    relative_to: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    sample_count: int = 0
    margin_ratio: float | None = None
    detectable_ratio: float | None = None
    reason: str = ""
    evidence: tuple[str, ...] = ()
    file: str = ""
    line: int = 0


def limit_of(budget: Budget) -> tuple[float, str]:
    """A budget's limit in the direction of its metric, and what it is a ratio to; empty for the metric's own unit."""
    name, limit = next((name, value) for name in LIMITS if (value := getattr(budget, name)) is not None)
    if name == "slowdown_ratio":
        limit = 1.0 - limit if budget.metric in HIGHER_IS_BETTER else 1.0 / (1.0 - limit)
        name = "baseline_ratio"
    return limit, name.removesuffix("_ratio") if name.endswith("_ratio") else ""


def judgement_of(budget: Budget, answer: GateAnswer, **fields: Any) -> Judgement:
    """A judgement in the terms of its budget."""
    limit, relative_to = limit_of(budget)
    return Judgement(budget=budget, answer=answer, limit=limit, relative_to=relative_to, **fields)


def decide(estimate: Estimate, limit: float, *, higher_is_better: bool, finds_slowdown: bool = False) -> GateAnswer:
    """Three answers from an interval and a limit; without an interval, inconclusive.

    Where a slowdown must be found, of which ``limit`` is the ratio, broken means: the interval leaves out "no change",
    and the slowdown is more than half of the limit's (in logs). So a broken answer and a kept one both have the power
    that the number of runs gives.
    """
    if estimate.low is None or estimate.high is None:
        return "inconclusive"
    sign = -1 if higher_is_better else 1
    best, worst = sorted((sign * estimate.low, sign * estimate.high))
    is_broken = best > sign * limit
    if finds_slowdown:
        is_broken = best > sign and sign * estimate.mid > sign * sqrt(limit)
    return "fail" if is_broken else "pass" if worst <= sign * limit else "inconclusive"


def judge(
    budget: Budget,
    estimate: Estimate,
    spread: Spread,
    counts: tuple[int, int],
    *,
    level: float,
    evidence: Sequence[str],
) -> Judgement:
    """Judge an estimate, which is in the terms of the budget's limit.

    ``counts`` are the runs of the build and of its baseline (0: a fixed limit, or turns, each of which is one ratio),
    ``spread`` is that from run to run, ``level`` that of the interval.
    """
    higher, finds_slowdown = budget.metric in HIGHER_IS_BETTER, budget.slowdown_ratio is not None
    limit, _ = limit_of(budget)
    answer = decide(estimate, limit, higher_is_better=higher, finds_slowdown=finds_slowdown)
    margin = (estimate.mid / limit - 1.0) * (1 if higher else -1)
    reason = f"{abs(margin):.1%} {'inside' if margin >= 0 else 'outside'} the limit"
    if budget.slowdown_ratio is not None:
        change = 1.0 - min(estimate.mid, 1.0 / estimate.mid)
        side = "slower" if (estimate.mid < 1.0) == higher else "faster"
        reason = f"{change:.1%} {side} than the baseline, where {budget.slowdown_ratio:.0%} slower must be found"
    if estimate.low is None:
        reason += f", but {counted(estimate.sample_count, 'sample')} give no interval: at least 3 are needed"
    elif answer == "inconclusive":
        distance = log(limit if finds_slowdown else estimate.mid / limit) if estimate.mid > 0 else 0.0
        count = runs_needed(distance, counts[1], spread, level)
        settled = f"{count} {spread.unit}s would settle it in 95 of 100 gates"
        if count is None or not counts[0] < count < 1000:
            settled = f"more {spread.unit}s, or a quieter machine, would settle it"
        reason += f", but the interval holds the limit; {spread.words}; {settled}"
    elif finds_slowdown:
        reason += f": {'beyond noise' if answer == 'fail' else 'the interval leaves that out'}"
    else:
        reason += ", with the whole interval on that side"
    return judgement_of(
        budget,
        answer,
        value=estimate.mid,
        low=estimate.low,
        high=estimate.high,
        sample_count=estimate.sample_count,
        margin_ratio=margin,
        detectable_ratio=detectable(estimate, spread, level) if estimate.sample_count > 2 else None,
        reason=reason,
        evidence=tuple(evidence),
    )
