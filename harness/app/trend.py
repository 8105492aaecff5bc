"""Differences between runs and their course over time: a ratio with its interval and an effect size, never less.

Runs made at different times are not paired: what drifts between them (heat, other builds, other loads) is in the ratio.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, median, stdev
from typing import Final, get_args

from harness.domain.base import Frozen
from harness.domain.budget import HIGHER_IS_BETTER, Metric
from harness.domain.record import RunRecord
from harness.domain.result import Generation
from harness.records.history import Figures
from harness.records.metrics import UNITS, metric_values
from harness.stats.intervals import log_effect, quantile_interval, unpaired_ratio_interval

METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
WORSE_RATIO: Final = 1.002
"""Perplexity moves by up to this where kernels of the same weights round activations otherwise."""
_SIZES: Final = ((0.2, "negligible"), (0.5, "small"), (0.8, "medium"), (math.inf, "large"))


class Change(Frozen, frozen=True, kw_only=True):
    """How one metric of a run differs: ``better``, ``worse``, ``no difference shown``, ``too few samples`` in a word.

    The ratio is after / before, by the median of all differences of logs between the sides, with its 95 % interval
    (None with fewer than 3 samples on a side). ``effect`` is the difference of mean logs over their pooled spread
    (Cohen's d); None where it cannot be computed.
    """

    metric: Metric
    unit: str
    before: float
    after: float
    ratio: float
    low: float | None
    high: float | None
    effect: float | None
    before_count: int
    after_count: int
    word: str


class Point(Frozen, frozen=True, kw_only=True):
    """One run of a trend; the interval is that of its median, where there are six samples."""

    run_id: str
    created: str
    value: float
    low: float | None
    high: float | None
    sample_count: int


class Trend(Frozen, frozen=True, kw_only=True):
    """A metric over comparable runs of a ``name`` (model, mixture, scenario), oldest first.

    ``step`` is the last run against the one before it, ``course`` against the first (None with two runs).
    """

    name: str
    metric: Metric
    points: tuple[Point, ...]
    step: Change | None
    course: Change | None


def _change(metric: Metric, old: Sequence[float], new: Sequence[float]) -> Change | None:
    """The change of one metric; None where a side does not hold it."""
    old, new = [v for v in old if v > 0], [v for v in new if v > 0]
    if not old or not new:
        return None
    estimate = unpaired_ratio_interval(new, old)
    effect = log_effect(new, old) if min(len(old), len(new)) >= 2 else None
    return Change(
        metric=metric,
        unit=UNITS[metric],
        before=median(old),
        after=median(new),
        ratio=estimate.mid,
        low=estimate.low,
        high=estimate.high,
        effect=effect if effect is None or math.isfinite(effect) else None,
        before_count=len(old),
        after_count=len(new),
        word=_word(metric, estimate.low, estimate.high),
    )


def differences(before: RunRecord, after: RunRecord) -> list[Change]:
    """Changes of all metrics that both runs hold."""
    found = (_change(metric, metric_values(before, metric), metric_values(after, metric)) for metric in METRICS)
    return [change for change in found if change is not None]


def answer_beside(before: RunRecord, after: RunRecord) -> str:
    """How well a runtime predicts the shipped text beside another, token by token; whether it is faster, but worse.

    d = mean over the tokens of the difference of their negative log-probabilities (nats), paired, with its interval by
    the normal law; exp(d) is the ratio of the perplexities. Worse is a lower end above ``WORSE_RATIO``.
    """
    sides = [(r.runtime, r.result.token_nll if isinstance(r.result, Generation) else ()) for r in (before, after)]
    if lacking := [name for name, nll in sides if not nll]:
        return f"perplexity: not given by {' and '.join(dict.fromkeys(lacking))}"
    (first, old), (name, new) = sides
    if len(old) != len(new):
        return f"perplexity: {name} cuts the text into other tokens than {first}"
    changes = [b - a for a, b in zip(old, new, strict=True)]
    spread = 1.96 * stdev(changes) / math.sqrt(len(changes))
    ratio, low, high = (math.exp(fmean(changes) + k * spread) for k in (0, -1, 1))
    speed = next((c for c in differences(before, after) if c.metric == "decode_tokens_per_s"), None)
    worse = low > WORSE_RATIO
    word = "faster, but worse: " if worse and speed and speed.ratio > 1 else "worse: " if worse else ""
    shown = f"{math.exp(fmean(new)):.3f} by {name}, {math.exp(fmean(old)):.3f} by {first}"
    return f"{word}perplexity {shown} on the same {len(old)} tokens: ratio {ratio:.4f} (95 %: {low:.4f} to {high:.4f})"


def not_alike(before: RunRecord, after: RunRecord) -> list[str]:
    """What else than the build differs between two runs, in words."""
    pairs = [
        ("workload", before.workload, after.workload),
        ("model", f"{before.name} {before.quant}".strip(), f"{after.name} {after.quant}".strip()),
        ("machine", before.machine.fingerprint, after.machine.fingerprint),
    ]
    pairs += [(f, getattr(before.scenario, f), getattr(after.scenario, f)) for f in before.scenario.__struct_fields__]
    return [f"{name}: {old or 'unknown'} before, {new or 'unknown'} after" for name, old, new in pairs if old != new]


def comparable(figures: Iterable[Figures]) -> list[list[Figures]]:
    """Runs that can be compared with each other, from figures in the order of time."""
    groups: dict[tuple[str, ...], list[Figures]] = {}
    for run in figures:
        if run.values:
            groups.setdefault(run.alike, []).append(run)
    return list(groups.values())


def effect_size(effect: float | None) -> str:
    """An effect size with its usual name."""
    if effect is None:
        return "–"
    return f"{effect:+.2f} ({next(name for limit, name in _SIZES if abs(effect) < limit)})"


def trend_of(runs: Sequence[Figures], metric: Metric) -> Trend:
    """The course of a metric over comparable runs, oldest first."""

    def point(run: Figures) -> Point:
        mid, low, high, count = quantile_interval(run.values)
        return Point(run_id=run.run_id, created=run.created, value=mid, low=low, high=high, sample_count=count)

    return Trend(
        name=runs[-1].alike[-1],
        metric=metric,
        points=tuple(map(point, runs)),
        step=_change(metric, runs[-2].values, runs[-1].values) if len(runs) > 1 else None,
        course=_change(metric, runs[0].values, runs[-1].values) if len(runs) > 2 else None,
    )


def _word(metric: Metric, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "too few samples"
    if low <= 1 <= high:
        return "no difference shown"
    return "better" if (low > 1) == (metric in HIGHER_IS_BETTER) else "worse"
