"""Judge values against a limit: pass, fail, or inconclusive, with the margin and what could have been seen.

Everything is judged as a ratio to its limit, so that one rule serves all figures: for a speed the ratio must
stay at or above 1, for a cost at or below. The whole interval inside means pass, the whole interval outside
means fail, and an interval that straddles the limit is inconclusive: noise cannot flip a decision, it can
only postpone it.

The two ends of the interval are no pair: the one that accuses a build errs in 1 of 100 gates of a whole file,
whatever the number of its budgets and looks; the one that acquits it in 5 of 100 gates of a budget.
"""

from collections.abc import Collection, Sequence
from math import log, sqrt
from typing import Any, Final, Literal, NamedTuple, get_args

from harness.core.base import Frozen
from harness.core.budget import Budget
from harness.core.metric import FIGURES
from harness.core.printable import MESSAGE_MAX, clean
from harness.core.stats.intervals import Estimate
from harness.core.stats.runs import Spread, found, runs_needed
from harness.core.units import counted
from harness.gates.budget_file import LIMITS

FALSE_ALARM_RATIO: Final = 0.01
"""Share of gates, each of a whole file, that fail a build which keeps all limits or did not change."""
MISSED_RATIO: Final = 0.05
"""Share of gates that pass a build on a budget whose limit it just misses."""

GateAnswer = Literal["fail", "could not run", "inconclusive", "pass"]
"""The worst first: the order of exit statuses."""


class Errors(NamedTuple):
    """Shares of cases in which one end of one interval may err: to accuse a build, and to acquit it."""

    alarm: float
    missed: float

    @classmethod
    def of(cls, budget_count: int, look_count: int) -> "Errors":
        """Those of each look at each budget of a file, by Bonferroni's inequality: budgets and looks may err together.

        A build is acquitted of a budget at any look, and accused by any budget.
        """
        return cls(FALSE_ALARM_RATIO / max(1, budget_count) / look_count, MISSED_RATIO / look_count)

    def ends(self, *, higher_is_better: bool) -> tuple[float, float]:
        """Of the lower and of the upper end: of a speed the upper one accuses."""
        if higher_is_better:
            return (self.missed, self.alarm)
        return (self.alarm, self.missed)


class Judgement(Frozen):
    """What one budget came to.

    Limit, value and its interval (``low``, ``high``) are in the figure's unit, or ratios to what
    ``relative_to`` names (``baseline``, ``prediction``, ``roofline``). ``margin_ratio`` is how far inside
    (positive) or outside the limit the value lies, as a share of the limit; ``detectable_ratio`` the smallest
    slowdown that so many runs show in 95 of 100 gates, None without an interval of theirs; ``runs_needed``
    with how many an open question is likely to be decided, None where no number is; ``change`` how far the
    value lies from the baseline or from the limit, ``settles`` what would decide an open question, in words.
    Evidence are runs (identifiers) or parts of a prediction; ``line`` is 0 without a file.
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
    runs_needed: int | None = None
    change: str = ""
    settles: str = ""
    reason: str = ""
    evidence: tuple[str, ...] = ()
    file: str = ""
    line: int = 0


def worst_of(answers: Collection[GateAnswer]) -> GateAnswer:
    """The worst of some answers: what a gate as a whole came to."""
    return next((answer for answer in get_args(GateAnswer) if answer in answers), "pass")


def limit_of(budget: Budget) -> tuple[float, str]:
    """A budget's limit in the direction of its figure, and what it is a ratio to.

    Empty for the figure's own unit.
    """
    name, limit = next((name, value) for name in LIMITS if (value := getattr(budget, name)) is not None)
    if name == "slowdown_ratio":
        if FIGURES[budget.metric].higher_is_better:
            limit = 1.0 - limit
        else:
            limit = 1.0 / (1.0 - limit)
        name = "baseline_ratio"
    return limit, name.removesuffix("_ratio") if name.endswith("_ratio") else ""


def judgement_of(budget: Budget, answer: GateAnswer, *, reason: str, **fields: Any) -> Judgement:
    """A judgement in the terms of its budget; the reason, which may hold a stranger's words, on one line."""
    limit, relative_to = limit_of(budget)
    fields["reason"] = clean(reason, MESSAGE_MAX)
    return Judgement(budget=budget, answer=answer, limit=limit, relative_to=relative_to, **fields)


def decide(
    estimate: Estimate, limit: float, *, higher_is_better: bool, finds_slowdown: bool = False
) -> GateAnswer:
    """Three answers from an interval and a limit; without an interval, inconclusive.

    Where a slowdown must be found, of which ``limit`` is the ratio, broken means: the interval leaves out "no
    change", and the slowdown is more than half of the limit's (in logs). So a broken answer and a kept one
    both have the power that the number of runs gives.
    """
    if estimate.low is None or estimate.high is None:
        return "inconclusive"
    sign = -1 if higher_is_better else 1
    best, worst = sorted((sign * estimate.low, sign * estimate.high))
    is_broken = best > sign * limit
    if finds_slowdown:
        is_broken = best > sign and sign * estimate.mid > sign * sqrt(limit)
    if is_broken:
        return "fail"
    if worst <= sign * limit:
        return "pass"
    return "inconclusive"


def judge(
    budget: Budget,
    estimate: Estimate,
    spread: Spread,
    counts: tuple[int, int],
    *,
    errors: Errors,
    evidence: Sequence[str],
) -> Judgement:
    """Judge an estimate, which is in the terms of the budget's limit.

    ``counts`` are the runs of the build and of its baseline (0: a fixed limit, or turns, each of which is one
    ratio), ``spread`` is that from run to run.
    """
    figure = FIGURES[budget.metric]
    finds_slowdown = budget.slowdown_ratio is not None
    limit, relative_to = limit_of(budget)
    answer = decide(estimate, limit, higher_is_better=figure.higher_is_better, finds_slowdown=finds_slowdown)
    margin = (estimate.mid / limit - 1.0) * (1 if figure.higher_is_better else -1)
    if relative_to:
        change = f"{abs(estimate.mid - 1.0):.1%} {figure.words[estimate.mid > 1.0]} than the {relative_to}"
    else:
        change = f"{abs(margin):.1%} {'inside' if margin >= 0 else 'outside'} the limit"
    reason = change
    settles = ""
    needed: int | None = None
    if budget.slowdown_ratio is not None:
        reason += f", where {budget.slowdown_ratio:.0%} must be found"
    if answer == "inconclusive":
        distance = limit if finds_slowdown else estimate.mid / limit  # a ratio
        if spread.told is None and spread.unit == "run":  # two more tell how much they differ
            needed = counts[0] + 2
        elif spread.unit != "sitting":  # more runs of this hour tell nothing of others
            needed = runs_needed(log(distance), counts, spread, errors.alarm)
        settles = _settled(needed, counts, spread)
        reason += f": the interval holds the limit; {spread.words()}; {settles}"
    elif finds_slowdown and answer == "fail":
        reason += ": beyond noise"
    elif finds_slowdown:
        reason += ": the interval leaves that out"
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
        detectable_ratio=found(spread, counts, errors.alarm),
        runs_needed=needed,
        change=change,
        settles=settles,
        reason=reason,
        evidence=tuple(evidence),
    )


def _settled(needed: int | None, counts: tuple[int, int], spread: Spread) -> str:
    """What would settle a budget that is undecided, in words."""
    if spread.unit == "sitting":
        return "measure the baseline beside it (gate live), or keep runs of more days as the baseline"
    if spread.told is None:
        return f"{needed} runs, which tell how much they differ"
    if needed is not None:
        return f"{needed} {spread.unit}s would settle it in 95 of 100 gates"
    if counts[1]:
        kept = counted(counts[1], spread.unit)
        return f"no number of {spread.unit}s is enough beside {kept} of the baseline: keep more of them"
    return f"no number of {spread.unit}s is sure to settle it"
