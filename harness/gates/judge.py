"""Judge values against a limit: pass, fail, or inconclusive, with the margin and what could have been seen.

Everything is judged as a ratio to its limit, so that one rule serves all metrics: for a speed the ratio must stay at or
above 1, for a cost at or below. The whole interval inside means pass, the whole interval outside means fail, and an
interval that straddles the limit is inconclusive: noise cannot flip a decision, it can only postpone it.
"""

from collections.abc import Sequence
from math import log
from typing import Literal

from msgspec.structs import replace

from harness.domain.base import Frozen
from harness.domain.budget import HIGHER_IS_BETTER, Budget, Metric
from harness.gates.plan import turns_needed
from harness.gates.runs import Spread, detectable, ratio_of_runs, runs_needed, value_of_runs
from harness.stats.intervals import Estimate, detectable_ratio, ratio_interval, spread_of

Answer = Literal["pass", "fail", "inconclusive", "could not run"]


SINGLE_VALUE_SPREAD: dict[Metric, float] = {
    "file_bytes": 0.0,
    "peak_memory_bytes": 0.01,
    "peak_anonymous_bytes": 0.01,
    "acceptance_ratio": 0.0,
    "read_bytes_per_token": 0.02,
    "perplexity": 0.0,
    "kl_divergence_nats": 0.0,
    "longest_context_tokens": 0.0,
    "sustained_tokens_per_s": 0.03,
    "sustained_joules_per_token": 0.05,
    "hottest_celsius": 0.02,
}
"""Metrics that one run settles, with the half width given to one value: peaks of repeated runs differ by under 1 %."""


class Judgement(Frozen, frozen=True, kw_only=True):
    """What one budget came to.

    Limit, value and its interval (``low``, ``high``) are in the metric's unit, or ratios to what ``relative_to`` names
    (``baseline``, ``prediction``, ``roofline``). ``margin_ratio`` is how far inside (positive) or outside the limit the
    value lies, as a share of the limit; ``detectable_ratio`` the smallest slowdown that these turns could have shown
    with a power of 80 %, None unless in turns. Evidence are runs (identifiers) or parts of a prediction; ``line`` is 0
    without a file.
    """

    budget: Budget
    answer: Answer
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


def decide(low: float | None, high: float | None, limit: float, *, higher_is_better: bool) -> Answer:
    """Three answers from an interval and a limit; without an interval, inconclusive."""
    if low is None or high is None:
        return "inconclusive"
    if higher_is_better:
        return "pass" if low >= limit else "fail" if high < limit else "inconclusive"
    return "pass" if high <= limit else "fail" if low > limit else "inconclusive"


def ratio_limit(budget: Budget) -> float:
    """Limit of the ratio candidate / baseline, in the direction of the budget's metric."""
    if budget.slowdown_ratio is None:
        return budget.baseline_ratio or 0.0
    kept = 1.0 - budget.slowdown_ratio
    return kept if budget.metric in HIGHER_IS_BETTER else 1.0 / kept


def decide_slowdown(estimate: Estimate, limit: float, *, higher_is_better: bool) -> Answer:
    """Three answers about a slowdown that must be found, of which ``limit`` is the ratio.

    Broken: the interval leaves out "no change", and the slowdown is more than half of the limit's (in logs). Kept: the
    interval leaves out the limit. So both a broken and a kept answer have the power that the number of runs gives.
    """
    if estimate.low is None or estimate.high is None:
        return "inconclusive"
    sign = -1 if higher_is_better else 1
    slower = sorted(sign * log(ratio) for ratio in (estimate.low, estimate.high))
    least = sign * log(limit)
    if slower[0] > 0 and sign * log(estimate.mid) > least / 2:
        return "fail"
    return "pass" if slower[1] < least else "inconclusive"


def judge_absolute(
    budget: Budget,
    runs: Sequence[Sequence[float]],
    limit: float,
    *,
    relative_to: str,
    evidence: Sequence[str],
    level: float,
    spread: Spread,
) -> Judgement:
    """Judge believed values of runs (or ratios to what ``relative_to`` names) against a limit in the same terms.

    All runs together are judged, and each for itself: one that lies wholly outside the limit is no accident that a
    better run beside it undoes. ``level`` is that of the interval; ``evidence`` are the runs' identifiers, in order.
    """
    half = SINGLE_VALUE_SPREAD.get(budget.metric)
    values = [value for run in runs for value in run]
    if half is not None and len(values) < 3:
        mid = max(values)
        estimate = Estimate(mid, mid * (1 - half), mid * (1 + half), len(values))
        found = _judgement(budget, estimate, limit, 0.0, level)
        return replace(found, relative_to=relative_to, evidence=tuple(evidence))
    higher = budget.metric in HIGHER_IS_BETTER
    found = _judgement(budget, value_of_runs(runs, spread, level), limit, 0.0, level)
    alone = 1.0 - (1.0 - level) / len(runs)
    for run, name in zip(runs, evidence, strict=True):
        one = value_of_runs([run], spread, alone)
        if len(runs) > 1 and decide(one.low, one.high, limit, higher_is_better=higher) == "fail":
            found = replace(_judgement(budget, one, limit, 0.0, alone), evidence=(name,))
            return replace(found, relative_to=relative_to, reason=f"run {name} alone: {found.reason}")
    return replace(
        found,
        relative_to=relative_to,
        evidence=tuple(evidence),
        detectable_ratio=detectable(len(runs), 0, spread, level),
        reason=found.reason + _more(found, limit, 0, spread, level),
    )


def judge_in_turns(
    budget: Budget, candidate: Sequence[float], baseline: Sequence[float], *, evidence: Sequence[str], level: float
) -> Judgement:
    """Judge the ratio candidate / baseline of sides with one value a turn against the budget's ``baseline_ratio``."""
    limit = ratio_limit(budget)
    estimate = ratio_interval(candidate, baseline, confidence=level)
    visible = detectable_ratio(candidate, baseline, confidence=level) if len(candidate) > 2 else None
    found = _judgement(budget, estimate, limit, spread_of(candidate, baseline), level)
    return replace(found, relative_to="baseline", detectable_ratio=visible, evidence=tuple(evidence))


def judge_runs(
    budget: Budget,
    candidate: Sequence[Sequence[float]],
    baseline: Sequence[Sequence[float]],
    *,
    evidence: Sequence[str],
    level: float,
    spread: Spread,
) -> Judgement:
    """The same of runs that were not measured in turns."""
    limit = ratio_limit(budget)
    found = _judgement(budget, ratio_of_runs(candidate, baseline, spread, level), limit, 0.0, level)
    return replace(
        found,
        relative_to="baseline",
        detectable_ratio=detectable(len(candidate), len(baseline), spread, level),
        evidence=tuple(evidence),
        reason=found.reason + _more(found, limit, len(baseline), spread, level),
    )


def _more(judged: Judgement, limit: float, baseline_count: int, spread: Spread, level: float) -> str:
    """What to add of an answer that is open: the spread, and how many runs would settle it."""
    if judged.answer != "inconclusive" or judged.value is None or judged.low is None:
        return ""
    is_open = judged.budget.slowdown_ratio is None
    distance = log(judged.value / limit) if is_open else log(limit)
    count = runs_needed(distance, baseline_count, spread, level) if distance else None
    if count is None or count >= 1000:
        return f"; {spread.words}; it lies too near to its limit for any number of runs"
    return f"; {spread.words}; {count} runs would settle it in 95 of 100 gates"


def _judgement(budget: Budget, estimate: Estimate, limit: float, spread: float, level: float) -> Judgement:
    higher = budget.metric in HIGHER_IS_BETTER
    if budget.slowdown_ratio is not None:
        answer = decide_slowdown(estimate, limit, higher_is_better=higher)
    else:
        answer = decide(estimate.low, estimate.high, limit, higher_is_better=higher)
    margin = (estimate.mid / limit - 1.0) * (1 if higher else -1)
    return Judgement(
        budget=budget,
        answer=answer,
        limit=limit,
        value=estimate.mid,
        low=estimate.low,
        high=estimate.high,
        sample_count=estimate.sample_count,
        margin_ratio=margin,
        reason=_reason(answer, estimate, limit, margin, spread, level, budget.slowdown_ratio),
    )


def _reason(
    answer: Answer,
    estimate: Estimate,
    limit: float,
    margin: float,
    spread: float,
    level: float,
    slowdown: float | None,
) -> str:
    side = f"{abs(margin):.1%} {'inside' if margin >= 0 else 'outside'} the limit"
    if slowdown is not None:
        worse = estimate.mid if estimate.mid > 1 else 1 / estimate.mid
        side = f"{worse - 1:.1%} off the baseline, where {slowdown:.0%} must be found"
    if estimate.low is None:
        return f"{side}, but {estimate.sample_count} sample(s) give no interval: at least 3 are needed"
    if answer != "inconclusive" and slowdown is not None:
        return f"{side}: {'slower beyond noise' if answer == 'fail' else 'the interval leaves that out'}"
    if answer != "inconclusive":
        return f"{side}, with the whole interval on that side"
    if not spread:
        return f"{side}, but the interval holds the limit"
    needed = turns_needed(spread, log(estimate.mid / limit), level)
    more = (
        f"about {needed} samples at this spread ({spread:.1%})"
        if estimate.sample_count < needed < 1000
        else "more runs"
    )
    return f"{side}, but the interval holds the limit: {more}, or a quieter machine, would settle it"
