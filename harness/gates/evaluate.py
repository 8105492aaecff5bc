"""Bring budgets and records together: which runs match which budget, and how they are judged."""

from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from statistics import median

from harness.app.plans import predicted
from harness.domain.budget import HIGHER_IS_BETTER, Budget
from harness.domain.prediction import Interval, Prediction
from harness.domain.record import RunRecord, Validity
from harness.domain.scenario import Scenario
from harness.errors import BadDataError, Exit
from harness.gates.judge import SINGLE_VALUE_SPREAD, Judgement, judge, judgement_of, limit_of
from harness.gates.pins import difference
from harness.gates.plan import look_confidence
from harness.records.metrics import latency_values, metric_values
from harness.stats.intervals import Estimate, ratio_interval, spread_of
from harness.stats.runs import Spread, estimate_of_runs, spread_of_runs
from harness.units import format_bytes

_OF_TOKENS = ("itl_p50_s", "decode_tokens_per_s")
_FASTEST = 0.2
"""Quantile of a run's token times that a neighbour leaves alone as long as it hits fewer than four in five of them."""
_DISTURBED_FACTOR = 3.0
"""How much slower a disturbed run is believed to have been made at most; beyond it, no disturbance is the cause."""


def evaluate(
    budgets: Sequence[Budget],
    records: Sequence[RunRecord],
    *,
    baseline: Sequence[RunRecord] = (),
    looks: tuple[int, ...] = (),
) -> list[Judgement]:
    """Judge every budget: one judgement each, in their order.

    ``baseline`` is for budgets that compare with one, and tells the others how much runs differ. A budget that no run
    matches could not be judged, and no gate passes that. After the turns in ``looks`` the decision is looked at while
    more runs come in: the level of each look's interval is raised so that all looks together keep the budget's
    (``plan.look_confidence``).

    Raises:
        UnknownNameError: A budget that is ``predicted`` names no known device or model.
        BadDataError: Its metric is not predicted.
    """
    return [
        _judge_prediction(budget, records) if budget.predicted else _judge_measured(budget, records, baseline, looks)
        for budget in budgets
    ]


def exit_code(judgements: Sequence[Judgement]) -> Exit:
    """Exit status of a gate: broken before could-not-run before inconclusive before well."""
    answers = {j.answer for j in judgements}
    ends = {"fail": Exit.BROKEN, "could not run": Exit.COULD_NOT_RUN, "inconclusive": Exit.INCONCLUSIVE}
    return next((status for answer, status in ends.items() if answer in answers), Exit.OK)


def _judge_measured(
    budget: Budget, records: Sequence[RunRecord], baseline: Sequence[RunRecord], looks: tuple[int, ...]
) -> Judgement:
    named = [r for r in records if matches(budget, r)]
    runs = [r for r in named if not difference(budget, r)]
    earlier = [r for r in baseline if matches(budget, r) and not difference(budget, r)]
    compares = limit_of(budget)[1] == "baseline"
    level = look_confidence(looks, budget.confidence) if len(looks) > 1 else budget.confidence
    broken = [r for r in runs if r.outcome not in {"ok", "inconclusive"}]
    reason = ""
    if not runs:
        there = sorted({f"{r.workload} {r.name} on {r.machine.device}" for r in records})
        instead = difference(budget, named[-1]) if named else f"there is {'; '.join(there[:3]) or 'no run at all'}"
        reason = f"no run matches this budget: {instead}"
    elif broken:
        detail = broken[-1].detail.partition("\n")[0]
        reason = f"{broken[-1].run_id}: {broken[-1].outcome}" + (f" ({detail})" if detail else "")
    elif compares and not earlier:
        reason = "no baseline run matches this budget: name some with --baseline"
    if reason:
        return judgement_of(budget, "could not run", reason=reason, evidence=tuple(r.run_id for r in broken or runs))
    judging = _judge_turns if compares and _alternate(runs, earlier) else _judge_runs
    shown = [*runs, *earlier] if compares else runs
    judged = judging(budget, runs, earlier, level) or _without_clean(budget, shown)
    if judged.answer == "inconclusive" and judged.value is not None:
        judged = judged.replace(reason=judged.reason + _disturbance(shown))
    return judged


def _judge_runs(
    budget: Budget, runs: Sequence[RunRecord], earlier: Sequence[RunRecord], level: float
) -> Judgement | None:
    """Runs against a fixed limit, or against a baseline that was not measured in turns; None without a clean sample.

    All runs together are judged, and against a fixed limit each for itself too: one that lies wholly outside the limit
    is no accident that a better run beside it undoes.
    """
    compares = limit_of(budget)[1] == "baseline"
    previous = [side for side in _values(budget, earlier) if side]
    compared = previous if compares else []
    spoken = [(side, r.run_id) for side, r in zip(_values(budget, runs), runs, strict=True) if side]
    if not spoken or (compares and not compared):
        return None
    if any(v <= 0 for side in compared for v in side):
        nothing = "the baseline is 0, of which nothing is a ratio: give the budget a ceiling or a floor"
        return judgement_of(budget, "could not run", reason=nothing)
    spread = spread_of_runs(previous)

    def judged(sides: Sequence[tuple[list[float], str]], share: float) -> Judgement:
        taken, names = zip(*sides, strict=True)
        estimate = _estimate(budget, taken, compared, spread, share)
        evidence = [*names, *(r.run_id for r in earlier)] if compared else names
        return judge(budget, estimate, spread, (len(sides), len(compared)), level=share, evidence=evidence)

    for each in spoken if len(spoken) > 1 and not compared else ():
        alone = judged([each], 1.0 - (1.0 - level) / len(spoken))
        if alone.answer == "fail":
            return alone.replace(reason=f"run {each[1]} alone: {alone.reason}")
    return judged(spoken, level)


def _estimate(
    budget: Budget, values: Sequence[Sequence[float]], previous: Sequence[Sequence[float]], spread: Spread, level: float
) -> Estimate:
    """The value of some runs, or its ratio to earlier ones; a metric that one run settles needs no three samples."""
    half = SINGLE_VALUE_SPREAD.get(budget.metric)
    if half is None or (sum(map(len, values)) >= 3 and min(map(min, values)) > 0):
        return estimate_of_runs(values, spread, level, previous)
    worst = min if budget.metric in HIGHER_IS_BETTER else max
    mid = worst(map(worst, values)) / (worst(map(worst, previous)) if previous else 1.0)
    return Estimate(mid, mid * (1 - half), mid * (1 + half), sum(map(len, values)))


def _without_clean(budget: Budget, runs: Sequence[RunRecord]) -> Judgement:
    """An answer from runs without a clean sample: no disturbance makes a run that much slower, or it stays open."""
    values = [v for side in _values(budget, _believing(runs)) for v in side]
    ids = tuple(r.run_id for r in runs)
    if not values:
        return judgement_of(budget, "could not run", reason="the runs hold no sample of this metric", evidence=ids)
    limit, relative_to = limit_of(budget)
    sign = -1 if budget.metric in HIGHER_IS_BETTER else 1
    best = sign * min(sign * v for v in values)
    if relative_to != "baseline" and sign * best > sign * limit * _DISTURBED_FACTOR**sign:
        reason = "every sample was disturbed, but not even the best of them comes near the limit"
        return judgement_of(budget, "fail", value=best, sample_count=len(values), reason=reason, evidence=ids)
    doubts = sorted({d for r in runs for s in r.samples for d in s.validity.doubts})
    reason = "every sample was disturbed: " + "; ".join(doubts[:3])
    return judgement_of(budget, "inconclusive", reason=reason, evidence=ids)


def matches(budget: Budget, record: RunRecord) -> bool:
    """Whether a run matches the names in a budget; ``*`` and shell patterns match names, without regard to case."""
    model = record.model.name if record.model else ""
    return (
        budget.workload == record.workload
        and fnmatchcase(record.machine.device.lower(), budget.device.lower())
        and fnmatchcase(model.lower(), budget.model.lower())
    )


def _values(budget: Budget, records: Sequence[RunRecord]) -> list[list[float]]:
    """Values of each run, in their order, as ratios to its prediction where the budget's limit is one."""
    values = [metric_values(r, budget.metric, budget.label) for r in records]
    if budget.metric not in SINGLE_VALUE_SPREAD:
        values = [[v for v in side if v > 0] for side in values]
    if limit_of(budget)[1] in {"", "baseline"}:
        return values
    references = [_reference(budget, r.prediction, r.scenario) if r.prediction else 0.0 for r in records]
    return [[v / r for v in side] if r > 0 else [] for side, r in zip(values, references, strict=True)]


def _reference(budget: Budget, prediction: Prediction, scenario: Scenario) -> float:
    """What a budget's ratio is to; 0 where that was not predicted."""
    if budget.roofline_ratio is not None:
        return prediction.speed.roofline_tokens_per_s
    interval = predicted_interval(prediction, budget, scenario)
    return interval.mid if interval else 0.0


def predicted_interval(prediction: Prediction, budget: Budget, scenario: Scenario) -> Interval | None:
    """What was predicted for the budget's metric; None for a metric that is not predicted.

    Nor is a cold first token of a scenario that is not timed so. A pass gives each sequence a token, and the time
    between two of them is that of a pass.
    """
    speed, held = prediction.speed, prediction.memory.anonymous_bytes
    rate, is_cold, together = speed.decode_tokens_per_s, "@ cold" in budget.label, scenario.batch_count
    first_cold = speed.ttft_cold_s if scenario.is_timed_cold else None
    return {
        "decode_tokens_per_s": rate,
        "prefill_tokens_per_s": speed.prefill_tokens_per_s,
        "ttft_s": first_cold if is_cold else speed.ttft_warm_s,
        "load_s": speed.load_cold_s if is_cold else speed.load_warm_s,
        "peak_memory_bytes": prediction.memory.peak_bytes,
        "peak_anonymous_bytes": Interval(held, held, held),
        "itl_p50_s": rate.through(lambda speed: together / speed) if rate.low > 0 else None,
    }.get(budget.metric)


def _judge_turns(
    budget: Budget, candidate: Sequence[RunRecord], baseline: Sequence[RunRecord], level: float
) -> Judgement | None:
    """The ratio of two sides that were measured in turns, each turn one ratio; None where no turn has one."""
    read = partial(metric_values, metric=budget.metric, label=budget.label)
    sides = _pairs(candidate, baseline, read)
    disturbed = budget.metric in _OF_TOKENS and 2 * len(sides[0]) < len(candidate)
    if disturbed:  # whoever disturbs most turns disturbs both sides: all count, by the tokens that were spared
        candidate, baseline = _believing(candidate), _believing(baseline)
        sides = _pairs(candidate, baseline, read)
    if not sides[0]:
        return None
    judged = _judge_pairs(budget, sides, level, [r.run_id for r in (*candidate, *baseline)])
    if budget.metric in _OF_TOKENS and (disturbed or judged.answer == "inconclusive"):
        return _least_disturbed(budget, candidate, baseline, judged, level, disturbed=disturbed)
    return judged


def _judge_pairs(
    budget: Budget, sides: tuple[list[float], list[float]], level: float, evidence: Sequence[str]
) -> Judgement:
    count = len(sides[0])
    spread = Spread(spread_of(*sides), count, "turn")
    estimate = ratio_interval(*sides, confidence=level)
    return judge(budget, estimate, spread, (count, 0), level=level, evidence=evidence)


def _pairs(
    candidate: Sequence[RunRecord], baseline: Sequence[RunRecord], read: Callable[[RunRecord], list[float]]
) -> tuple[list[float], list[float]]:
    """One value a turn and side; turns in which a side has none are left out."""
    by_time = (sorted(side, key=lambda r: r.created) for side in (candidate, baseline))
    both = [(read(a), read(b)) for a, b in zip(*by_time, strict=True)]
    both = [pair for pair in both if all(min(side, default=0) > 0 for side in pair)]
    return [median(a) for a, _ in both], [median(b) for _, b in both]


def _least_disturbed(
    budget: Budget,
    candidate: Sequence[RunRecord],
    baseline: Sequence[RunRecord],
    whole: Judgement,
    level: float,
    *,
    disturbed: bool,
) -> Judgement:
    """The same ratio from the fastest fifth of each run's tokens; where that decides nothing, an inconclusive one.

    A slower build is slower on every token, a neighbour hits some of them: it adds time and takes none away, so that a
    low quantile varies least. It counts only while the interval of the budget's own metric (``whole``) holds its ratio,
    so that a build which slows some tokens alone is seldom passed by the others. Where the turns are ``disturbed`` it
    alone decides; else it is a second chance after ``whole``, at a stricter level.

    Source:
        J. Chen and J. Revels 2016, "Robust benchmarking in noisy environments", arXiv:1608.04295.
    """
    sign = -1 if budget.metric in HIGHER_IS_BETTER else 1
    sides = _pairs(candidate, baseline, partial(latency_values, share=_FASTEST, label=budget.label))
    if len(sides[0]) != whole.sample_count or whole.low is None or whole.high is None:
        return whole.replace(answer="inconclusive")
    new, old = ([v**sign for v in side] for side in sides)
    level = level if disturbed else 1.0 - (1.0 - level) / 4.0
    spared = _judge_pairs(budget, (new, old), level, whole.evidence)
    agrees = whole.low <= (spared.value or 0.0) <= whole.high
    if not disturbed and (spared.answer == "inconclusive" or not agrees):
        return whole
    why = f"; by the fastest {_FASTEST:.0%} of each run's tokens, which others disturbed least"
    if agrees:
        return spared.replace(reason=spared.reason + why)
    apart = f"{budget.metric} itself lies elsewhere (ratio {whole.low:.3f} to {whole.high:.3f})"
    return spared.replace(answer="inconclusive", reason=f"{spared.reason}{why}, but {apart}")


def _disturbance(records: Sequence[RunRecord]) -> str:
    """What disturbed the runs, most frequent first; empty when nothing did."""
    samples = [s for r in records for s in r.samples if not s.warm_up]
    counts = Counter(doubt for s in samples for doubt in set(s.validity.doubts))
    if not counts:
        return ""
    named = ", ".join(f"{name} ({count} of {len(samples)} samples)" for name, count in counts.most_common(3))
    return f"; disturbed by: {named}"


def _judge_prediction(budget: Budget, records: Sequence[RunRecord]) -> Judgement:
    """Judge the pessimistic end of the prediction's 90 % interval for a device nobody has at hand."""
    made = ((r.prediction, r.scenario) for r in records if r.prediction and matches(budget, r))
    found = next(((p, s) for p, s in made if p.device == budget.device), None)
    prediction, scenario = found or (predicted(budget.device, budget.model), Scenario())
    interval = predicted_interval(prediction, budget, scenario)
    if interval is None:
        raise BadDataError("budget", "metric", budget.metric, "a metric that the feasibility model predicts")
    higher = budget.metric in HIGHER_IS_BETTER
    worst = interval.low if higher else interval.high
    margin = (worst / limit_of(budget)[0] - 1.0) * (1 if higher else -1)
    end = "lower" if higher else "upper"
    return judgement_of(
        budget,
        "pass" if margin >= 0 else "fail",
        value=interval.mid,
        low=interval.low,
        high=interval.high,
        margin_ratio=margin,
        reason=f"{'holds' if margin >= 0 else 'fails'} for {budget.device}: the {end} end of the 90 % interval counts",
        evidence=tuple(
            f"{part.label}: {format_bytes(part.size_bytes)} ({part.reason})"
            for part in prediction.memory.parts
            if part.size_bytes
        )
        + prediction.verdict.reasons,
    )


def _alternate(candidate: Sequence[RunRecord], baseline: Sequence[RunRecord]) -> bool:
    """Whether two sides were measured in turns: equally many runs, alternating in time."""
    if len(candidate) != len(baseline) or len(candidate) < 2:
        return False
    sides = [side for _, side in sorted([(r.created, 0) for r in candidate] + [(r.created, 1) for r in baseline])]
    return all(sides[i] != sides[i + 1] for i in range(0, len(sides), 2))


def _believing(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The same records with every doubt of their samples put aside."""
    return [r.replace(samples=tuple(s.replace(validity=Validity()) for s in r.samples)) for r in records]
