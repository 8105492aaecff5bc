"""Bring budgets and records together: which runs match which budget, and how they are judged."""

from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from statistics import median
from typing import Final, NamedTuple

from harness.answer.answer import answer
from harness.core.budget import Budget
from harness.core.errors import BadDataError, Exit
from harness.core.foreign import typed
from harness.core.grouping import grouped
from harness.core.metric import FIGURES, latency_values, metric_values
from harness.core.placement import Placement
from harness.core.prediction import Interval, Prediction
from harness.core.question import Question
from harness.core.record import Record, Validity
from harness.core.scenario import Scenario
from harness.core.stats.intervals import Estimate
from harness.core.stats.runs import Runs, Spread, estimate, spread_of
from harness.core.units import counted, format_bytes
from harness.gates.judge import Errors, GateAnswer, Judgement, judge, judgement_of, limit_of, worst_of
from harness.gates.pins import anchor, difference, kind_of, newest_build, unlike
from harness.gates.sittings import alternate, comparable, time_of

_FASTEST: Final = 0.2
"""Quantile of a run's token times that a neighbour leaves alone as long as it hits fewer than four in five of
them."""
_APART: Final = 0.025
"""Share of cases in which each end of the interval errs that says whether two ways to read a turn agree."""
_WELL: Final = frozenset({"ok", "inconclusive"})
"""Outcomes of runs that measured something."""
_ENDS: Final[dict[GateAnswer, Exit]] = {
    "fail": Exit.BROKEN,
    "could not run": Exit.COULD_NOT_RUN,
    "inconclusive": Exit.INCONCLUSIVE,
    "pass": Exit.OK,
}


class _Judging(NamedTuple):
    """A budget with the runs that it judges, the earlier ones that it may compare them with, and how it may err.

    ``in_turns``: both sides were measured so by this gate, beside each other. ``differs`` names the pins that may
    differ, and ``uncovered`` holds the runs that no budget of the file judges.
    """

    budget: Budget
    runs: Sequence[Record]
    earlier: Sequence[Record]
    errors: Errors
    in_turns: bool = False
    differs: frozenset[str] = frozenset()
    uncovered: Sequence[Record] = ()

    @property
    def compares(self) -> bool:
        """Whether the limit is a ratio to the baseline."""
        return limit_of(self.budget)[1] == "baseline"

    @property
    def evidence(self) -> tuple[str, ...]:
        """The runs that decide."""
        return tuple(record.run_id for record in (*self.runs, *(self.earlier if self.compares else ())))

    def could_not_run(self, reason: str) -> Judgement:
        """The answer where there is no evidence."""
        return judgement_of(self.budget, "could not run", reason=reason, evidence=self.evidence)


def evaluate(
    budgets: Sequence[Budget],
    records: Sequence[Record],
    *,
    baseline: Sequence[Record] = (),
    looks: int = 1,
    in_turns: bool = False,
    differs: frozenset[str] = frozenset(),
    faults: Sequence[str] = (),
) -> list[Judgement]:
    """Judge every budget: one judgement each, in their order.

    ``baseline`` is for budgets that compare with one, and tells the others how much runs differ. A budget
    that no run matches could not be judged, and no gate passes that. Nor does a run that failed and that no
    budget names: it may be the one that was meant. ``looks`` is how often the decision is looked at while
    more runs are made; ``in_turns`` that both sides were measured so by this gate. ``differs`` names pins in
    which a run may differ from its budget. ``faults`` are commands that were meant to measure and made no
    record: while there is one, nothing measured passes.

    Raises:
        UnknownNameError: A budget that is ``predicted`` names no known device or model.
        BadDataError: Its figure is not predicted.
    """
    measured = [budget for budget in budgets if not budget.predicted]
    errors = Errors.of(len(measured), looks)
    failed = [record for record in records if record.outcome not in _WELL]
    astray = [record for record in failed if not any(matches(budget, record) for budget in measured)]
    uncovered = [] if in_turns else [one for one in records if not _is_covered(one, measured, differs)]
    judgements = []
    for budget in budgets:
        if budget.predicted:
            judgements.append(_judge_prediction(budget))
            continue
        given = _Judging(budget, records, baseline, errors, in_turns, differs, uncovered)
        judged = _judge_measured(given, astray)
        if faults and judged.answer in {"pass", "inconclusive"}:
            judged = given.could_not_run(faults[0])
        judgements.append(judged)
    return judgements


def _is_covered(record: Record, budgets: Sequence[Budget], differs: frozenset[str]) -> bool:
    """Whether some budget judges a run."""
    return any(matches(budget, record) and not difference(budget, record, differs) for budget in budgets)


def exit_code(judgements: Sequence[Judgement]) -> Exit:
    """Exit status of a gate: broken before could-not-run before inconclusive before well."""
    return _ENDS[worst_of([judgement.answer for judgement in judgements])]


def matches(budget: Budget, record: Record) -> bool:
    """Whether a run matches the names in a budget.

    ``*`` and shell patterns match names, without regard to case.

    A run that could not have its model counts by the name of what was asked for.
    """
    return (
        budget.workload == record.workload
        and fnmatchcase(record.machine.device.lower(), budget.device.lower())
        and fnmatchcase(record.name.lower(), budget.model.lower())
    )


def _judge_measured(given: _Judging, astray: Sequence[Record]) -> Judgement:
    """The answer of a budget from all that is ``given``: it takes what matches."""
    budget = given.budget
    runs, earlier = (
        [
            record
            for record in side
            if matches(budget, record) and not difference(budget, record, given.differs)
        ]
        for side in (given.runs, given.earlier)
    )
    broken = [record for record in (*astray, *runs) if record.outcome not in _WELL]
    if broken:
        return given._replace(runs=broken, earlier=()).could_not_run(_how_it_broke(broken[-1], astray))
    if not runs:
        return given._replace(runs=(), earlier=()).could_not_run(_what_is_there(budget, given.runs))
    newest = max(time_of(record) for record in runs)
    for record in given.uncovered:
        if matches(budget, record) and time_of(record) >= newest:
            return given._replace(runs=[record], earlier=()).could_not_run(
                _newer(budget, record, given.differs)
            )
    kinds = grouped(runs, kind_of)
    baselines = grouped(earlier, kind_of)
    shared = given.errors._replace(alarm=given.errors.alarm / len(kinds))
    judged: dict[GateAnswer, Judgement] = {}
    for kind, alike in kinds.items():
        own, older = (alike, 0) if given.in_turns else newest_build(alike)
        case = given._replace(runs=own, earlier=baselines.get(kind, earlier), errors=shared)
        found = _judge_kind(case)
        if older:
            found = found.replace(reason=f"{found.reason}; {counted(older, 'run')} of older builds left out")
        if len(kinds) > 1:
            found = found.replace(reason=f"{alike[0].name}, of {len(kinds)} kinds of runs: {found.reason}")
        judged.setdefault(found.answer, found)
    return judged[worst_of(judged)]


def _judge_kind(case: _Judging) -> Judgement:
    """The answer from runs that differ in nothing but build and day."""
    shown = list(case.runs)
    build_count = 1
    if case.compares:
        if fault := _baseline_fault(case):
            return case.could_not_run(fault)
        if not case.in_turns:
            best, build_count = anchor(case.earlier, case.budget.metric, case.budget.label)
            case = case._replace(earlier=best)
        shown += case.earlier
    if case.compares and (case.in_turns or alternate(case.runs, case.earlier)):
        judged = _judge_turns(case)
    else:
        judged = _judge_runs(case)
    if judged is None:
        judged = _without_clean(case, shown)
    elif judged.answer == "inconclusive":
        judged = judged.replace(reason=judged.reason + _disturbance(shown))
    if build_count > 1:
        judged = judged.replace(
            reason=f"{judged.reason}; beside the best of {build_count} builds of the baseline"
        )
    return judged


def _baseline_fault(case: _Judging) -> str:
    """Why the baseline is none for these runs, in words; empty where it is one.

    In turns the two sides are whatever their commands make: two settings may be what is compared.
    """
    if not case.earlier:
        return "no baseline run matches this budget: name some with --baseline"
    if worse := [record for record in case.earlier if record.outcome not in _WELL]:
        return f"the baseline's run {worse[-1].run_id} ended as {worse[-1].outcome}: take it out"
    if not case.in_turns and (apart := unlike(case.runs[-1], case.earlier[-1], case.differs)):
        return f"the baseline's runs are of another kind: {apart}"
    return ""


def _how_it_broke(record: Record, astray: Sequence[Record]) -> str:
    detail = record.detail.partition("\n")[0]
    reason = f"{record.run_id}: {record.outcome}" + (f" ({detail})" if detail else "")
    if record in astray:
        reason += f"; no budget names {record.name}, which may be the run that was meant"
    return reason


def _newer(budget: Budget, record: Record, differs: frozenset[str]) -> str:
    """A run newer than those that match, in words: it may be the one that was meant."""
    said = f"{record.run_id} is newer than every run that matches, and no budget judges it: "
    return f"{said}{difference(budget, record, differs)} (--differs names what may differ)"


def _what_is_there(budget: Budget, records: Sequence[Record]) -> str:
    if named := [record for record in records if matches(budget, record)]:
        return f"no run matches this budget: {difference(budget, named[-1])}"
    there = sorted({f"{record.workload} {record.name} on {record.machine.device}" for record in records})
    if not there:
        return "no run matches this budget: there is no run at all"
    more = ""
    if len(there) > 3:
        more = f" and {len(there) - 3} more"
    return f"no run matches this budget: there is {'; '.join(there[:3])}{more}"


def _judge_runs(case: _Judging) -> Judgement | None:
    """Judge runs against a fixed limit, or against a baseline that was not measured in turns.

    The result is None if no sample is free of disturbance.
    """
    budget = case.budget
    figure = FIGURES[budget.metric]
    new_side, old_side = (
        [(record, taken) for record, taken in zip(side, _values(budget, side), strict=True) if taken]
        for side in (case.runs, case.earlier)
    )
    if not new_side or (case.compares and not old_side):
        return None
    new: Runs = [taken for _, taken in new_side]
    before: Runs = [taken for _, taken in old_side]
    if min(min(taken) for taken in (*new, *before)) <= 0:
        return _judge_nothing(case, new)
    unit = "run"
    if case.compares:
        unit, new, before = comparable(new_side, old_side)
    spread = spread_of([new, before] if before else [new], figure.spread, unit)
    if not case.compares:
        before = []
    return _judged(case, new, spread, sum(len(taken) for _, taken in new_side), before)


def _judged(case: _Judging, new: Runs, spread: Spread, sample_count: int, before: Runs = ()) -> Judgement:
    """The answer from values of the build, or from their ratio to those of ``before``."""
    ends = case.errors.ends(higher_is_better=FIGURES[case.budget.metric].higher_is_better)
    value = estimate(new, spread, *ends, before)._replace(sample_count=sample_count)
    counts = (len(new), len(before))
    return judge(case.budget, value, spread, counts, errors=case.errors, evidence=case.evidence)


def _judge_nothing(case: _Judging, runs: Runs) -> Judgement:
    """Runs with a value of 0, which has no logarithm and of which nothing is a ratio: the worst of them counts."""
    if case.compares:
        return case.could_not_run(
            "a value is 0, of which nothing is a ratio: give the budget a ceiling or a floor"
        )
    if FIGURES[case.budget.metric].higher_is_better:
        worst = min
    else:
        worst = max
    value = worst(map(worst, runs))
    exact = Estimate(value, value, value, sum(map(len, runs)))
    spread = spread_of([[[1.0]]], 0.0)
    return judge(case.budget, exact, spread, (len(runs), 0), errors=case.errors, evidence=case.evidence)


def _without_clean(case: _Judging, runs: Sequence[Record]) -> Judgement:
    """The answer from runs without a clean sample: no evidence, or an open question where samples were disturbed."""
    if not any(_values(case.budget, _believing(runs))):
        metric = case.budget.metric
        return case.could_not_run(f"the runs hold no sample of this metric: {metric} was not measured")
    doubts = sorted({d for r in runs for s in r.samples for d in s.validity.doubts})
    reason = "every sample was disturbed: " + "; ".join(doubts[:3])
    # Once the machine is quiet, one more run may decide.
    return judgement_of(
        case.budget, "inconclusive", reason=reason, runs_needed=len(case.runs) + 1, evidence=case.evidence
    )


def _values(budget: Budget, records: Sequence[Record]) -> list[list[float]]:
    """Values of each run, in their order, as ratios to its prediction where the budget's limit is one."""
    values = []
    for record in records:
        reference = _reference(budget, record)
        taken = metric_values(record, budget.metric, budget.label)
        values.append([value / reference for value in taken if reference > 0])
    return values


def _reference(budget: Budget, record: Record) -> float:
    """What a budget's ratio is to, 1 where it is to none or to the baseline; 0 where that was not predicted."""
    prediction = record.prediction
    if limit_of(budget)[1] in {"", "baseline"}:
        return 1.0
    if prediction is None:
        return 0.0
    if budget.roofline_ratio is not None:
        return prediction.speed.roofline_tokens_per_s
    interval = predicted_interval(prediction, budget, record.scenario)
    if interval:
        return interval.mid
    return 0.0


def predicted_interval(prediction: Prediction, budget: Budget, scenario: Scenario) -> Interval | None:
    """What was predicted for the budget's figure; None for one that is not predicted.

    Nor is a cold first token of a scenario that is not timed so. A pass gives each sequence a token, and the
    time between two of them is that of a pass.
    """
    speed = prediction.speed
    rate = speed.decode_tokens_per_s
    is_cold = "@ cold" in budget.label
    together = scenario.batch_count
    first_cold = None
    if scenario.is_timed_cold:
        first_cold = speed.ttft_cold_s
    return {
        "decode_tokens_per_s": rate,
        "prefill_tokens_per_s": speed.prefill_tokens_per_s,
        "ttft_s": first_cold if is_cold else speed.ttft_warm_s,
        "load_s": speed.load_cold_s if is_cold else speed.load_warm_s,
        "peak_memory_bytes": prediction.memory.peak_bytes,
        "peak_anonymous_bytes": prediction.memory.anonymous,
        "itl_p50_s": rate.through(lambda speed: together / speed) if rate.low > 0 else None,
    }.get(budget.metric)


def _judge_turns(case: _Judging) -> Judgement | None:
    """The ratio of two sides that were measured in turns, each turn one ratio; None where no turn has one.

    Where a figure of tokens stays undecided, or most turns are disturbed, the fastest fifth of each run's
    tokens decides (``_spared``); both share the error that is allowed. Disturbed turns count only where both
    sides were measured by this gate, beside each other.
    """
    figure = FIGURES[case.budget.metric]
    if figure.is_of_tokens:
        case = case._replace(errors=Errors(case.errors.alarm / 2.0, case.errors.missed / 2.0))
    read = partial(metric_values, metric=case.budget.metric, label=case.budget.label)
    ratios = _ratios(case, read)
    disturbed = case.in_turns and figure.is_of_tokens and 2 * len(ratios) < len(case.runs)
    if (
        disturbed
    ):  # whoever disturbs most turns disturbs both sides: all count, by the tokens that were spared
        case = case._replace(runs=_believing(case.runs), earlier=_believing(case.earlier))
        ratios = _ratios(case, read)
    if not ratios:
        return None
    whole = _judge_ratios(case, ratios)
    if figure.is_of_tokens and (disturbed or whole.answer == "inconclusive"):
        return _spared(case, whole, ratios, disturbed=disturbed)
    return whole


def _ratios(case: _Judging, read: Callable[[Record], list[float]]) -> list[list[float]]:
    """One ratio a turn, candidate over baseline; turns in which a side has no value are left out."""
    new, old = (sorted(side, key=time_of) for side in (case.runs, case.earlier))
    ratios = []
    for candidate, baseline in zip(new, old, strict=True):
        sides = [read(candidate), read(baseline)]
        if all(min(values, default=0) > 0 for values in sides):
            ratios.append([median(sides[0]) / median(sides[1])])
    return ratios


def _judge_ratios(case: _Judging, ratios: Runs) -> Judgement:
    return _judged(case, ratios, spread_of([ratios], None, "turn"), len(ratios))


def _spared(case: _Judging, whole: Judgement, own: Runs, *, disturbed: bool) -> Judgement:
    """Judge the same ratio by the fastest fifth of each run's tokens, or return that this decides nothing.

    A slower build is slower on every token, a neighbour hits some of them: it adds time and takes none away,
    so that a low quantile varies least. It counts only while Student's 95 % interval of the budget's own
    figure (ratios ``own``, judged as ``whole``) holds its ratio, so that a build which slows some tokens
    alone is seldom passed by the others.

    Source:
        J. Chen and J. Revels 2016, "Robust benchmarking in noisy environments", arXiv:1608.04295.
    """
    ratios = _ratios(case, partial(latency_values, share=_FASTEST, label=case.budget.label))
    usual = estimate(own, spread_of([own], None), _APART, _APART)
    if len(ratios) != len(own) or usual.low is None or usual.high is None:
        return whole.replace(answer="inconclusive")
    if FIGURES[case.budget.metric].higher_is_better:  # of times, where the budget is of speeds
        ratios = [[1.0 / ratio for ratio in turn] for turn in ratios]
    spared = _judge_ratios(case, ratios)
    agrees = usual.low <= (spared.value or 0.0) <= usual.high
    if not disturbed and (spared.answer == "inconclusive" or not agrees):
        return whole
    why = f"; by the fastest {_FASTEST:.0%} of each run's tokens, which others disturbed least"
    if agrees:
        return spared.replace(reason=spared.reason + why)
    apart = f"{case.budget.metric} itself lies elsewhere (ratio {usual.low:.3f} to {usual.high:.3f})"
    return spared.replace(answer="inconclusive", reason=f"{spared.reason}{why}, but {apart}")


def _disturbance(records: Sequence[Record]) -> str:
    """What disturbed the runs, most frequent first; empty when nothing did."""
    samples = [s for r in records for s in r.samples if not s.warm_up]
    counts = Counter(doubt for s in samples for doubt in set(s.validity.doubts))
    if not counts:
        return ""
    named = ", ".join(f"{name} ({count} of {len(samples)} samples)" for name, count in counts.most_common(3))
    return f"; disturbed by: {named}"


def _judge_prediction(budget: Budget) -> Judgement:
    """Judge the pessimistic end of the prediction's 90 % interval for a device nobody has at hand.

    It is what ``fit`` says at this moment; a model that does not run there is on no side of any limit.
    """
    found = answer(_question(budget), advises=False)
    interval = predicted_interval(found.prediction, budget, found.scenario)
    if interval is None:
        raise BadDataError("budget", "metric", budget.metric, "a figure that is predicted")
    higher = FIGURES[budget.metric].higher_is_better
    worst = interval.low if higher else interval.high
    margin = (worst / limit_of(budget)[0] - 1.0) * (1 if higher else -1)
    reason = f"for {budget.device}: the {'lower' if higher else 'upper'} end of the 90 % interval counts"
    if not found.runs:
        margin = min(margin, -1.0)
        reason = f"{found.model.title} does not run on {found.device.title}"
    parts = (part for part in found.prediction.memory.parts if part.size_bytes)
    held = tuple(f"{part.label}: {format_bytes(part.size_bytes)} ({part.reason})" for part in parts)
    return judgement_of(
        budget,
        "pass" if margin >= 0 else "fail",
        value=interval.mid,
        low=interval.low,
        high=interval.high,
        margin_ratio=margin,
        reason=reason,
        evidence=held + found.prediction.verdict.reasons,
    )


def _question(budget: Budget) -> Question:
    """What `fit` is asked for a budget: its model, its device, and what it pins of a scenario."""
    asked = {name: value for name, value in budget.pin.items() if name in Question.__struct_fields__}
    if "batch_count" in budget.pin:
        asked["users"] = budget.pin["batch_count"]
    without = {"flash_attention": "flash-attention", "repack": "repack", "mmap": "mmap"}
    asked["without"] = [word for name, word in without.items() if budget.pin.get(name) is False]
    placed = {name: budget.pin[name] for name in ("gpu_layers", "cpu_moe") if name in budget.pin}
    if any(getattr(Placement(), name) != value for name, value in placed.items()):
        asked["placement"] = placed
    return typed({"model": budget.model, "device": budget.device, **asked}, Question, "budget.pin")


def _believing(records: Sequence[Record]) -> list[Record]:
    """The same records with every doubt of their samples put aside."""
    return [r.replace(samples=tuple(s.replace(validity=Validity()) for s in r.samples)) for r in records]
