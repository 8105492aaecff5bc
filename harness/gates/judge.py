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
from harness.stats.intervals import Estimate, detectable_ratio, ratio_interval, spread_of, unpaired_ratio_interval

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


def judge_absolute(
    budget: Budget, values: Sequence[float], limit: float, *, relative_to: str, evidence: Sequence[str], level: float
) -> Judgement:
    """Judge believed values (or ratios to what ``relative_to`` names) against a positive limit in the same terms.

    ``level`` is that of the interval; ``evidence`` are identifiers of the runs.
    """
    half = SINGLE_VALUE_SPREAD.get(budget.metric)
    if half is not None and len(values) < 3:
        mid = max(values)
        estimate = Estimate(mid, mid * (1 - half), mid * (1 + half), len(values))
    else:
        ratio = ratio_interval(values, [limit] * len(values), confidence=level)
        low, high = (None if end is None else end * limit for end in (ratio.low, ratio.high))
        estimate = Estimate(ratio.mid * limit, low, high, ratio.sample_count)
    found = _judgement(budget, estimate, limit, spread_of(values, [limit] * len(values)), level)
    return replace(found, relative_to=relative_to, evidence=tuple(evidence))


def judge_against_baseline(
    budget: Budget,
    candidate: Sequence[float],
    baseline: Sequence[float],
    *,
    in_turns: bool,
    evidence: Sequence[str],
    level: float,
) -> Judgement:
    """Judge the ratio candidate / baseline against the budget's ``baseline_ratio``.

    In turns each side has one value a turn, and they pair up; otherwise all its values. The rest is as in
    :func:`judge_absolute`.
    """
    limit = budget.baseline_ratio
    assert limit is not None
    visible, spread = None, 0.0
    if in_turns:
        estimate = ratio_interval(candidate, baseline, confidence=level)
        visible = detectable_ratio(candidate, baseline, confidence=level) if len(candidate) > 2 else None
        spread = spread_of(candidate, baseline)
    else:
        estimate = unpaired_ratio_interval(candidate, baseline, confidence=level)
    found = _judgement(budget, estimate, limit, spread, level)
    return replace(found, relative_to="baseline", detectable_ratio=visible, evidence=tuple(evidence))


def _judgement(budget: Budget, estimate: Estimate, limit: float, spread: float, level: float) -> Judgement:
    higher = budget.metric in HIGHER_IS_BETTER
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
        reason=_reason(answer, estimate, limit, margin, spread, level),
    )


def _reason(answer: Answer, estimate: Estimate, limit: float, margin: float, spread: float, level: float) -> str:
    side = f"{abs(margin):.1%} {'inside' if margin >= 0 else 'outside'} the limit"
    if estimate.low is None:
        return f"{side}, but {estimate.sample_count} sample(s) give no interval: at least 3 are needed"
    if answer != "inconclusive":
        return f"{side}, with the whole interval on that side"
    needed = turns_needed(spread, log(estimate.mid / limit), level) if spread else estimate.sample_count
    more = (
        f"about {needed} samples at this spread ({spread:.1%})"
        if estimate.sample_count < needed < 1000
        else "more runs"
    )
    return f"{side}, but the interval holds the limit: {more}, or a quieter machine, would settle it"
