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

MOST_TURNS: Final = 24
"""Turns of ``gate live`` where nothing else is said."""
_LEVELS: Final = 1.5
_LEVELS_OF_FEW: Final = 3.0
_FEW_RUNS: Final = 3

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
    slowdown that so many runs show in 95 of 100 gates, None without an interval of theirs; ``fails_from_ratio``
    the smallest further slowdown (or rise of a cost) with which these very runs would have failed, None where
    none would; ``runs_needed``
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
    fails_from_ratio: float | None = None
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
    """A budget's limit in the direction of its figure, and the name of what it is a ratio to.

    The name is empty if the limit is in the figure's own unit.
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
    estimate: Estimate,
    limit: float,
    *,
    higher_is_better: bool,
    finds_slowdown: bool = False,
    levels: float = 1.0,
) -> GateAnswer:
    """Three answers from an interval and a limit; without the end that would decide, inconclusive.

    Where a slowdown must be found, of which ``limit`` is the ratio, broken means: the interval leaves out "no
    change", and the slowdown is more than half of the limit's (in logs). So a broken answer and a kept one
    both have the power that the number of runs gives. ``levels``: a change by less than that ratio (below 1)
    accuses nobody, as a machine may do it too.
    """
    sign = -1 if higher_is_better else 1
    kindest = estimate.high if higher_is_better else estimate.low
    harshest = estimate.low if higher_is_better else estimate.high
    if kindest is not None and sign * kindest > sign * fails_beyond(
        limit, higher_is_better=higher_is_better, finds_slowdown=finds_slowdown, levels=levels
    ):
        if not finds_slowdown or sign * estimate.mid > sign * sqrt(limit):
            return "fail"
    elif harshest is not None and sign * harshest <= sign * limit:
        return "pass"
    return "inconclusive"


def fails_beyond(limit: float, *, higher_is_better: bool, finds_slowdown: bool, levels: float = 1.0) -> float:
    """The value that the kind end of an interval must be worse than, for a budget to be broken."""
    edge = 1.0 if finds_slowdown else limit
    if levels < 1.0:
        edge = min(edge, levels) if higher_is_better else max(edge, 1.0 / levels)
    return edge


def levels_of(budget: Budget, spread: Spread, counts: tuple[int, int]) -> float:
    """Change between two blocks of runs that a machine may make by itself, as a ratio; 1 if it makes none.

    Two modes that last, heat, and runs that are like the one before them move a whole block. No test of the
    runs tells that from a change of the build, so that less than 1.5 times the most by which hours were seen
    to differ accuses nobody (3 times, from fewer than three runs). Turns are free of it, and so is a limit
    that is no ratio to a baseline.
    """
    if spread.unit == "turn" or not counts[1]:
        return 1.0
    times = _LEVELS if min(counts) >= _FEW_RUNS else _LEVELS_OF_FEW
    return max(0.4, 1.0 - times * FIGURES[budget.metric].spread)


def turns_command(budget: Budget) -> str:
    """The command that compares two builds in turns."""
    run = f"edge-harness run {budget.model if '*' not in budget.model else 'MODEL'} --json"
    return f"edge-harness gate live --budget FILE --candidate '{run}' --baseline 'OLD/{run}'"


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
    levels = levels_of(budget, spread, counts)
    rule: dict[str, Any] = {
        "higher_is_better": figure.higher_is_better,
        "finds_slowdown": finds_slowdown,
        "levels": levels,
    }
    answer = decide(estimate, limit, **rule)
    moved = levels < 1.0 and decide(estimate, limit, **rule | {"levels": 1.0}) == "fail" != answer
    unsteady = spread.doubt if counts[1] and answer == "pass" else ""
    if moved or unsteady:
        answer = "inconclusive"
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
    if answer == "inconclusive" and (moved or unsteady):
        settles = turns_command(budget)
        why = unsteady or f"a machine may change by {1.0 - levels:.0%} between two blocks of runs"
        reason += f": {why}, and only turns tell that from the build: {settles}"
    elif answer == "inconclusive":
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
        detectable_ratio=_detectable(found(spread, counts, errors.alarm), levels),
        fails_from_ratio=_fails_from(estimate, limit, **rule) if answer == "pass" else None,
        runs_needed=needed,
        change=change,
        settles=settles,
        reason=reason,
        evidence=tuple(evidence),
    )


def _detectable(noise_ratio: float | None, levels: float) -> float | None:
    """What noise hides and what the machine may do by itself, together."""
    return None if noise_ratio is None else 1.0 - (1.0 - noise_ratio) * levels


def _fails_from(estimate: Estimate, limit: float, **rule: Any) -> float | None:
    """The smallest further change for the worse with which the same runs would have failed."""
    higher = rule["higher_is_better"]
    kindest = estimate.high if higher else estimate.low
    if kindest is None or kindest <= 0 or estimate.mid <= 0:
        return None
    ratios = [fails_beyond(limit, **rule) / kindest]
    if rule["finds_slowdown"]:
        ratios.append(sqrt(limit) / estimate.mid)
    return 1.0 - min(ratios) if higher else max(ratios) - 1.0


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
