"""Differences between runs and their course over time: a ratio with its interval, never less.

Runs made at different times are not paired: what drifts between them (heat, other builds, other loads) is in
the ratio, and the spread from run to run is in its interval, by the rule that gates follow too
(``harness/core/stats/runs.py``).
"""

from collections.abc import Iterable, Sequence
from math import exp, sqrt
from statistics import fmean, median, stdev
from typing import Final

from msgspec.structs import asdict

from harness.core.base import Frozen
from harness.core.metric import FIGURES, MetricName, metric_values
from harness.core.record import Record
from harness.core.result import Generation
from harness.core.stats.runs import Spread, estimate, spread_of
from harness.records.derive import course_of
from harness.records.possible import impossible

METRICS: Final[tuple[MetricName, ...]] = tuple(FIGURES)
_ERROR: Final = 0.025
"""Share of cases in which one end of an interval may err: 95 % between both."""
WORSE_RATIO: Final = 1.002
"""Perplexity moves by up to this where kernels of the same weights round activations otherwise."""


class MetricChange(Frozen):
    """How one metric of a run differs: ``better``, ``worse``, ``no difference shown`` in a word.

    The ratio is after / before, of the medians, with its 95 % interval; None of a figure that is exact.
    """

    metric: MetricName
    unit: str
    before: float
    after: float
    ratio: float
    low: float | None
    high: float | None
    word: str


class Point(Frozen, kw_only=False):
    """One run of a trend, and its median."""

    run_id: str
    created: str
    value: float
    sample_count: int


class Trend(Frozen):
    """A metric over comparable runs of a ``name`` (model, mixture, scenario, runtime), oldest first.

    ``step`` is the last run against the one before it; None with one run.
    """

    name: str
    metric: MetricName
    points: tuple[Point, ...]
    step: MetricChange | None


def _change(metric: MetricName, old: Sequence[float], new: Sequence[float], spread: Spread) -> MetricChange:
    figure = FIGURES[metric]
    mid, low, high, _ = estimate([new], spread, _ERROR, _ERROR, [old])
    if low == high:  # of a figure in which runs do not differ, such as a file's size
        low = high = None
    word = "worse"
    if (mid > 1) == figure.higher_is_better:
        word = "better"
    if mid == 1 or (low is not None and high is not None and low <= 1 <= high):
        word = "no difference shown"
    return MetricChange(
        metric=metric,
        unit=figure.unit,
        before=median(old),
        after=median(new),
        ratio=mid,
        low=low,
        high=high,
        word=word,
    )


def differences(before: Record, after: Record) -> list[MetricChange]:
    """Changes of all metrics that both runs hold."""
    changes = []
    for metric in METRICS:
        old, new = ([v for v in metric_values(run, metric) if v > 0] for run in (before, after))
        if old and new:
            changes.append(_change(metric, old, new, spread_of([[old], [new]], FIGURES[metric].spread)))
    return changes


def answer_beside(before: Record, after: Record) -> str:
    """How well a runtime predicts the shipped text beside another, token by token.

    The result shows a build that became faster and worse at once.

    d = mean over the tokens of the difference of their negative log-probabilities (nats), paired, with its
    interval by the normal law; exp(d) is the ratio of the perplexities. Worse is a lower end above
    ``WORSE_RATIO``.
    """
    sides = [
        (r.runtime, r.result.token_nll if isinstance(r.result, Generation) else ()) for r in (before, after)
    ]
    if lacking := [name for name, nll in sides if not nll]:
        return f"perplexity: not given by {' and '.join(dict.fromkeys(lacking))}"
    (first, old), (name, new) = sides
    if len(old) != len(new):
        return f"perplexity: {name} cuts the text into other tokens than {first}"
    changes = [b - a for a, b in zip(old, new, strict=True)]
    spread = 1.96 * stdev(changes) / sqrt(len(changes))
    ratio, low, high = (exp(fmean(changes) + k * spread) for k in (0, -1, 1))
    speed = next((c for c in differences(before, after) if c.metric == "decode_tokens_per_s"), None)
    word = ""
    if low > WORSE_RATIO:
        word = "faster, but worse: " if speed and speed.word == "better" else "worse: "
    shown = f"{exp(fmean(new)):.3f} by {name}, {exp(fmean(old)):.3f} by {first}"
    return f"{word}perplexity {shown} on the same {len(old)} tokens: ratio {ratio:.4f} (95 %: {low:.4f} to {high:.4f})"


def not_alike(before: Record, after: Record) -> list[str]:
    """What else than the engine's build differs between two runs, in words.

    The ratio of two runs that differ in something else says nothing of the build.
    """

    def told(record: Record) -> dict[str, object]:
        hashed = record.model.sha256[:12] if record.model else ""
        model = f"{record.name} {record.quant}".strip()
        machine = record.machine.fingerprint
        own = {"workload": record.workload, "model": model, "file": hashed, "machine": machine}
        return own | {"runtime": record.runtime} | asdict(record.scenario)

    others = told(after)
    return [
        f"{name}: {str(old) or 'unknown'} before, {str(others[name]) or 'unknown'} after"
        for name, old in told(before).items()
        if old != others[name]
    ]


def trends(records: Iterable[Record], metric: MetricName) -> list[Trend]:
    """The course of a metric over runs that differ in nothing but build and day (``course_of``), the newest run last."""
    courses: dict[tuple[str, ...], list[tuple[str, str, list[float]]]] = {}
    for run in records:
        values = [v for v in metric_values(run, metric) if v > 0]
        if run.outcome in {"ok", "inconclusive"} and values and not impossible(run):
            depth = ""
            if run.scenario.depth_tokens:
                depth = f" @ d{run.scenario.depth_tokens}"
            name = f"{run.name} {run.quant}".strip() + f"{depth}, {run.scenario.thread_count} threads"
            name += f", {run.runtime}" * (run.runtime not in {"", "llamacpp"})
            courses.setdefault((name, *course_of(run)), []).append((run.created, run.run_id, values))
    ordered = [(name, sorted(course)) for (name, *_), course in courses.items()]
    return [_trend(name, metric, course) for name, course in sorted(ordered, key=lambda each: each[1][-1])]


def _trend(name: str, metric: MetricName, course: Sequence[tuple[str, str, list[float]]]) -> Trend:
    points = tuple(Point(run_id, created, median(values), len(values)) for created, run_id, values in course)
    runs = [values for _, _, values in course]
    step = None
    if len(runs) > 1:
        step = _change(metric, runs[-2], runs[-1], spread_of([runs[:-1]], FIGURES[metric].spread))
    return Trend(name=name, metric=metric, points=points, step=step)
