"""Systems as tables: each row names the parts, the figures, the time and the memory of the same object."""

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from harness.domain.record import RunRecord
from harness.domain.result import SystemResult
from harness.printable import clean
from harness.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from harness.workloads.run import Step, SystemRun

STEP_COLUMNS: Final = ["step", "p50", "p95", "predicted", "error", "most of it"]
View = tuple[str, list[str], list[list[str]]]
"""A table as text: its title, columns and rows."""


def step_cells(step: "Step") -> list[str]:
    """A kind of step as text: name, percentiles, prediction, its error, and what takes most of it."""
    predicted = "-" if step.predicted_s is None else format_seconds(step.predicted_s)
    error = "-" if step.error_ratio is None else f"{step.error_ratio:+.0%}"
    return [step.kind, format_seconds(step.p50_s), format_seconds(step.p95_s), predicted, error, step.limit]


def parts_of(record: RunRecord) -> str:
    """The parts of a run, each with the model that it was."""
    named = record.result.parts if isinstance(record.result, SystemResult) else {}
    return ", ".join(f"{name} {model}" for name, model in named.items()) or "none"


def figures(record: RunRecord) -> list[tuple[str, str]]:
    """Names and values of what was scored, an interval beside its figure."""
    return _flat("", record.result.quality) if isinstance(record.result, SystemResult) else []


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        ends: list[Any] = [value.get(end) for end in ("mid", "low", "high")]
        shown = [] if None in ends else [(name.replace("_", " "), "{:.3g} ({:.3g} to {:.3g})".format(*ends))]
        others = {key: inner for key, inner in value.items() if key not in {"mid", "low", "high"}}
        return shown + [row for key, inner in others.items() for row in _flat(f"{name} {key}".strip(), inner)]
    if value is None or isinstance(value, list | tuple):
        return []
    return [(name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else clean(str(value), 200))]


def views(runs: Sequence["SystemRun"]) -> list[View]:
    """What was measured here beside its prediction, what was scored, and what is predicted elsewhere."""
    here: list[list[str]] = []
    scored: list[list[str]] = []
    there: list[list[str]] = []
    for one in runs:
        if one.record is not None:
            head = [one.name, parts_of(one.record)]
            peak = format_bytes(one.record.memory.peak_rss_bytes) if one.record.memory else "-"
            here += [[*head, *step_cells(s), f"{s.sample_count} ({s.doubted_count})", peak] for s in one.steps]
            scored += [[*head, *figure] for figure in figures(one.record)]
        for device, predictions in one.elsewhere.items():
            for p in predictions:
                latency = format_seconds(p.latency_s.mid) if p.latency_s else "-"
                there.append([one.name, device, p.kind, latency, format_bytes(p.resident_bytes), p.note])
    named = ["system", "parts"]
    shown: list[View] = [
        ("measured", [*named, *STEP_COLUMNS, "samples (doubted)", "peak"], here),
        ("figures", [*named, "figure", "value"], scored),
        ("predicted", ["system", "device", "step", "latency", "beside its parts", "from"], there),
    ]
    return [view for view in shown if view[2]]


def median_error(runs: Sequence["SystemRun"]) -> float | None:
    """Median of the absolute errors of runs that ended well; None without any."""
    steps = [step for one in runs if one.record and one.record.outcome == "ok" for step in one.steps]
    errors = [abs(step.error_ratio) for step in steps if step.error_ratio is not None]
    return median(errors) if errors else None
