"""Bring budgets and records together: which runs speak for which budget, and what they say."""

from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from statistics import median

from msgspec.structs import replace

from harness.catalog.budgets import LIMITS
from harness.domain.budget import HIGHER_IS_BETTER, Budget
from harness.domain.prediction import Interval, Prediction
from harness.domain.record import RunRecord, Validity
from harness.errors import BadDataError, Exit
from harness.gates.judge import Judgement, judge_absolute, judge_in_turns, judge_runs, ratio_limit
from harness.gates.pins import difference
from harness.gates.plan import look_confidence
from harness.gates.runs import beyond_disturbance, spread_of_runs
from harness.records.metrics import latency_values, metric_values

Predict = Callable[[str, str], Prediction]
"""Predicts (device, model reference): given by the caller, who knows catalogs."""

_OF_TOKENS = ("itl_p50_s", "decode_tokens_per_s")
_FASTEST = 0.2
"""Quantile of a run's token times that a neighbour leaves alone as long as it hits fewer than four in five of them."""


def evaluate(
    budgets: Sequence[Budget],
    records: Sequence[RunRecord],
    *,
    baseline: Sequence[RunRecord] = (),
    predict: Predict | None = None,
    looks: tuple[int, ...] = (),
) -> list[Judgement]:
    """Judge every budget: one judgement each, in their order.

    ``baseline`` is for budgets that compare with one, and tells the others how much runs differ; ``predict`` is for
    those with ``predicted``. A budget for which no run speaks could not be judged, which no gate passes. After the
    turns in ``looks`` the decision is looked at while more runs come in: the level of each look's interval is raised so
    that all looks together keep the budget's (``plan.look_confidence``).

    Raises:
        BadDataError: A budget needs a baseline or a device that was not given.
    """
    return [_one(budget, records, baseline, predict, looks) for budget in budgets]


def exit_code(judgements: Sequence[Judgement]) -> Exit:
    """Exit status of a gate: broken before could-not-run before inconclusive before well."""
    answers = {j.answer for j in judgements}
    ends = {"fail": Exit.BROKEN, "could not run": Exit.COULD_NOT_RUN, "inconclusive": Exit.INCONCLUSIVE}
    return next((status for answer, status in ends.items() if answer in answers), Exit.OK)


def _one(
    budget: Budget,
    records: Sequence[RunRecord],
    baseline: Sequence[RunRecord],
    predict: Predict | None,
    looks: tuple[int, ...],
) -> Judgement:
    if budget.predicted:
        return _judge_prediction(budget, records, predict)
    named = [r for r in records if matches(budget, r)]
    matching = [r for r in named if not difference(budget, r)]
    limit: float = next(v for name in LIMITS if (v := getattr(budget, name)) is not None)
    undecided = Judgement(budget=budget, answer="inconclusive", limit=limit, evidence=tuple(r.run_id for r in matching))
    if not matching:
        return replace(undecided, answer="could not run", reason=_no_evidence(budget, named, records))
    if broken := [r for r in matching if r.outcome not in {"ok", "inconclusive"}]:
        worst = broken[-1]
        said = f"{worst.run_id}: {worst.outcome}" + (f" ({worst.detail.splitlines()[0]})" if worst.detail else "")
        return replace(undecided, answer="could not run", reason=said, evidence=tuple(r.run_id for r in broken))
    level = look_confidence(looks, budget.confidence) if len(looks) > 1 else budget.confidence
    alike = [r for r in baseline if matches(budget, r) and not difference(budget, r)]
    if budget.baseline_ratio is not None or budget.slowdown_ratio is not None:
        return _judge_baseline(budget, matching, alike, level)
    runs, relative_to = _values(budget, matching)
    if not any(runs):
        return _without_clean(budget, matching, undecided)
    spoken = [(values, r.run_id) for values, r in zip(runs, matching, strict=True) if values]
    judged = judge_absolute(
        budget,
        [values for values, _ in spoken],
        limit,
        relative_to=relative_to,
        evidence=[name for _, name in spoken],
        level=level,
        spread=spread_of_runs(_values(budget, alike)[0]),
    )
    if judged.answer == "inconclusive":
        judged = replace(judged, reason=judged.reason + _disturbance(matching))
    return judged


def _no_evidence(budget: Budget, named: Sequence[RunRecord], records: Sequence[RunRecord]) -> str:
    """Why no run speaks for a budget: what is pinned and differs, or what the runs are of instead."""
    if named:
        return f"no run speaks for this budget: {difference(budget, named[-1])}"
    there = sorted({f"{r.workload} {r.name} on {r.machine.device}" for r in records})
    return f"no run speaks for this budget: there is {'; '.join(there[:3]) or 'no run at all'}"


def _without_clean(budget: Budget, runs: Sequence[RunRecord], undecided: Judgement) -> Judgement:
    """An answer from runs without a clean sample: no disturbance makes a run that much slower, or it stays open."""
    values = [v for side in _values(budget, _believing(runs))[0] for v in side]
    higher = budget.metric in HIGHER_IS_BETTER
    if not values:
        return replace(undecided, answer="could not run", reason="the runs hold no sample of this metric")
    if beyond_disturbance(values, undecided.limit, higher_is_better=higher):
        best = max(values) if higher else min(values)
        reason = "every sample was disturbed, but not even the best of them comes near the limit"
        return replace(undecided, answer="fail", value=best, sample_count=len(values), reason=reason)
    return replace(undecided, reason=_no_values(runs, budget))


def matches(budget: Budget, record: RunRecord) -> bool:
    """Whether a run is one the budget speaks of; ``*`` and shell patterns match names, without regard to case."""
    model = record.model.name if record.model else ""
    return (
        budget.workload == record.workload
        and fnmatchcase(record.machine.device.lower(), budget.device.lower())
        and fnmatchcase(model.lower(), budget.model.lower())
    )


def _values(budget: Budget, records: Sequence[RunRecord]) -> tuple[list[list[float]], str]:
    """Values of each run, in their order, and what they are relative to."""
    if budget.prediction_ratio is None and budget.roofline_ratio is None:
        return [metric_values(r, budget.metric, budget.label) for r in records], ""
    relative_to = "prediction" if budget.prediction_ratio is not None else "roofline"
    ratios = []
    for record in records:
        reference = 0.0
        if record.prediction is not None and relative_to == "roofline":
            reference = record.prediction.speed.roofline_tokens_per_s
        elif record.prediction is not None:
            interval = predicted_interval(record.prediction, budget)
            reference = interval.mid if interval else 0.0
        values = metric_values(record, budget.metric, budget.label) if reference > 0 else []
        ratios.append([v / reference for v in values])
    return ratios, relative_to


def predicted_interval(prediction: Prediction, budget: Budget) -> Interval | None:
    """What was predicted for the budget's metric; None for a metric that is not predicted."""
    speed, held = prediction.speed, prediction.memory.anonymous_bytes
    rate = speed.decode_tokens_per_s
    return {
        "decode_tokens_per_s": rate,
        "prefill_tokens_per_s": speed.prefill_tokens_per_s,
        "ttft_s": speed.ttft_cold_s,
        "load_s": speed.load_cold_s,
        "peak_memory_bytes": prediction.memory.peak_bytes,
        "peak_anonymous_bytes": Interval(mid=held, low=held, high=held),
        "itl_p50_s": Interval(mid=1 / rate.mid, low=1 / rate.high, high=1 / rate.low) if rate.low > 0 else None,
    }.get(budget.metric)


def _judge_baseline(
    budget: Budget, candidate: Sequence[RunRecord], baseline: Sequence[RunRecord], level: float
) -> Judgement:
    limit = ratio_limit(budget)
    runs = [*candidate, *baseline]
    evidence = tuple(r.run_id for r in runs)
    if not baseline:
        undecided = Judgement(budget=budget, answer="could not run", limit=limit, evidence=evidence)
        return replace(undecided, reason="no run of the baseline speaks for this budget: name some with --baseline")
    in_turns = _alternate(candidate, baseline)
    read = partial(metric_values, metric=budget.metric, label=budget.label)
    of_tokens = budget.metric in _OF_TOKENS
    if not in_turns:
        sides = [[read(r) for r in side] for side in (candidate, baseline)]
        spoken = [[values for values in side if values] for side in sides]
        if not all(spoken):
            undecided = Judgement(budget=budget, answer="inconclusive", limit=limit, reason=_no_values(runs, budget))
            return replace(undecided, relative_to="baseline", evidence=evidence)
        spread = spread_of_runs(spoken[1])
        judged = judge_runs(budget, *spoken, evidence=evidence, level=level, spread=spread)
        more = _disturbance(runs) if judged.answer == "inconclusive" else ""
        return replace(judged, reason=judged.reason + more)
    new, old = _pairs(candidate, baseline, read)
    disturbed = of_tokens and 2 * len(new) < len(candidate)
    if disturbed:  # whoever disturbs most turns disturbs both sides: all count, by the tokens that were spared
        candidate, baseline = _believing(candidate), _believing(baseline)
        new, old = _pairs(candidate, baseline, read)
    if not new or not old:
        undecided = Judgement(budget=budget, answer="inconclusive", limit=limit, reason=_no_values(runs, budget))
        return replace(undecided, relative_to="baseline", evidence=evidence)
    judgement = judge_in_turns(budget, new, old, evidence=evidence, level=level)
    if of_tokens and (disturbed or judgement.answer == "inconclusive"):
        judgement = _least_disturbed(budget, candidate, baseline, judgement, level, disturbed=disturbed)
    if judgement.answer != "inconclusive":
        return judgement
    return replace(judgement, reason=judgement.reason + _disturbance(runs))


def _pairs(
    candidate: Sequence[RunRecord], baseline: Sequence[RunRecord], read: Callable[[RunRecord], list[float]]
) -> tuple[list[float], list[float]]:
    """One value a turn and side; turns in which a side has none are left out."""
    by_time = (sorted(side, key=lambda r: r.created) for side in (candidate, baseline))
    both = [(read(a), read(b)) for a, b in zip(*by_time, strict=True)]
    return [median(a) for a, b in both if a and b], [median(b) for a, b in both if a and b]


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
        return replace(whole, answer="inconclusive")
    new, old = ([v**sign for v in side] for side in sides)
    level = level if disturbed else 1.0 - (1.0 - level) / 4.0
    found = judge_in_turns(budget, new, old, evidence=whole.evidence, level=level)
    agrees = whole.low <= (found.value or 0.0) <= whole.high
    if not disturbed and (found.answer == "inconclusive" or not agrees):
        return whole
    why = f"; by the fastest {_FASTEST:.0%} of each run's tokens, which others disturbed least"
    if agrees:
        return replace(found, reason=found.reason + why)
    apart = f"{budget.metric} itself lies elsewhere (ratio {whole.low:.3f} to {whole.high:.3f})"
    return replace(found, answer="inconclusive", reason=f"{found.reason}{why}, but {apart}")


def _disturbance(records: Sequence[RunRecord]) -> str:
    """What disturbed the runs, most frequent first; empty when nothing did."""
    samples = [s for r in records for s in r.samples if not s.warm_up]
    counts = Counter(doubt for s in samples for doubt in set(s.validity.doubts))
    if not counts:
        return ""
    named = ", ".join(f"{name} ({count} of {len(samples)} samples)" for name, count in counts.most_common(3))
    return f"; disturbed by: {named}"


def _judge_prediction(budget: Budget, records: Sequence[RunRecord], predict: Predict | None) -> Judgement:
    """Judge the pessimistic end of the prediction's 90 % interval for a device nobody has at hand."""
    limit = budget.floor if budget.floor is not None else budget.ceiling
    assert limit is not None
    prediction = next(
        (r.prediction for r in records if r.prediction and r.prediction.device == budget.device and matches(budget, r)),
        None,
    )
    if prediction is None:
        if predict is None or "*" in budget.device or "*" in budget.model:
            raise BadDataError(
                "budget",
                f"{budget.metric} predicted",
                f"device {budget.device!r}, model {budget.model!r}",
                "names of one device and one model",
            )
        prediction = predict(budget.device, budget.model)
    interval = predicted_interval(prediction, budget)
    if interval is None:
        raise BadDataError("budget", "metric", budget.metric, "a metric that the feasibility model predicts")
    higher = budget.metric in HIGHER_IS_BETTER
    worst = interval.low if higher else interval.high
    holds = worst >= limit if higher else worst <= limit
    end = "lower" if higher else "upper"
    return Judgement(
        budget=budget,
        answer="pass" if holds else "fail",
        limit=limit,
        value=interval.mid,
        low=interval.low,
        high=interval.high,
        margin_ratio=(worst / limit - 1.0) * (1 if higher else -1),
        reason=f"{'holds' if holds else 'fails'} for {budget.device}: the {end} 90 % bound is {worst:.6g}",
        evidence=tuple(
            f"{p.name}: {p.anonymous_bytes + p.file_bytes} bytes ({p.reason})" for p in prediction.memory.parts
        )
        + prediction.verdict.reasons,
    )


def _alternate(candidate: Sequence[RunRecord], baseline: Sequence[RunRecord]) -> bool:
    """Whether two sides were measured in turns: equally many runs, alternating in time."""
    if len(candidate) != len(baseline) or len(candidate) < 2:
        return False
    sides = [side for _, side in sorted([(r.created, 0) for r in candidate] + [(r.created, 1) for r in baseline])]
    return all(sides[i] != sides[i + 1] for i in range(0, len(sides), 2))


def _no_values(records: Sequence[RunRecord], budget: Budget) -> str:
    """Why there is no value: all samples of this metric were disturbed, or there never were any."""
    if not any(metric_values(r, budget.metric, budget.label) for r in _believing(records)):
        return "the runs hold no sample of this metric"
    doubts = {d for r in records for s in r.samples for d in s.validity.doubts}
    return "every sample was disturbed: " + "; ".join(sorted(doubts)[:3])


def _believing(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The same records with every doubt of their samples put aside."""
    return [replace(r, samples=tuple(replace(s, validity=Validity()) for s in r.samples)) for r in records]
