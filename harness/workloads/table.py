"""Systems as tables: each row names the parts, the figures, the time and the memory of the same object."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.domain.record import RunRecord
from harness.domain.result import System as SystemResult
from harness.printable import clean
from harness.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from harness.workloads.run import StepResult, Table

STEP_COLUMNS = ["step", "p50", "p95", "predicted", "error", "most of it"]
View = tuple[str, list[str], list[list[str]], Sequence[int]]
"""A table as text: its title, columns and rows, and which columns are numbers."""


def step_cells(step: "StepResult") -> list[str]:
    """A kind of step as text: name, percentiles, prediction, its error, and what takes most of it."""
    predicted = step.predicted
    shown = format_seconds(predicted.latency_s.mid) if predicted and predicted.latency_s else "-"
    error = "-" if step.error_ratio is None else f"{step.error_ratio:+.0%}"
    most = predicted.limit if predicted else ""
    return [step.kind, format_seconds(step.p50_s), format_seconds(step.p95_s), shown, error, most]


def parts_of(record: RunRecord) -> str:
    """The parts of a run, each with the model that it was."""
    result = record.result
    named = result.parts if isinstance(result, SystemResult) else {}
    return ", ".join(f"{name} {model}" for name, model in named.items()) or "none"


def figures(record: RunRecord) -> list[tuple[str, str]]:
    """Names and values of what was scored; an interval beside its figure, groups with their name before."""
    result = record.result
    return _flat("", result.quality) if isinstance(result, SystemResult) else []


def _flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        if {"mid", "low", "high"} <= value.keys():
            return [(prefix, f"{value['mid']:.3g} ({value['low']:.3g} to {value['high']:.3g})")]
        return [row for key, inner in value.items() for row in _flat(f"{prefix} {key}".strip(), inner)]
    if value is None or isinstance(value, list | tuple):
        return []
    name = prefix.replace("_", " ")
    if isinstance(value, bool):
        return [(name, "yes" if value else "no")]
    if isinstance(value, float):
        return [(name, f"{value:.4g}")]
    return [(name, clean(str(value), 200))]


def views(found: "Table") -> list[View]:
    """What was measured here beside its prediction, what was scored, and what is predicted elsewhere."""
    here: list[list[str]] = []
    scored: list[list[str]] = []
    there: list[list[str]] = []
    for one in found.runs:
        record, name = one.record, one.record.workload
        peak = format_bytes(record.memory.peak_rss_bytes) if record.memory else "-"
        here += [[name, parts_of(record), *step_cells(step), peak] for step in one.steps]
        scored += [[name, parts_of(record), *figure] for figure in figures(record)]
        for kind in dict.fromkeys(p.kind for predictions in one.elsewhere.values() for p in predictions):
            latencies = [
                next((p.latency_s for p in one.elsewhere[device] if p.kind == kind), None) for device in found.devices
            ]
            there.append([name, kind, *(format_seconds(x.mid) if x else "cannot run there" for x in latencies)])
    shown: list[View] = [
        ("measured here", ["system", "parts", *STEP_COLUMNS, "peak"], here, (3, 4, 5, 6, 8)),
        ("figures", ["system", "parts", "figure", "value"], scored, (3,)),
    ]
    if found.devices:
        shown.append(("predicted", ["system", "step", *found.devices], there, range(2, 2 + len(found.devices))))
    return shown


def notes(found: "Table") -> list[str]:
    """What stands under the table."""
    lines = []
    if found.median_error_ratio is not None:
        count = sum(step.error_ratio is not None for one in found.runs for step in one.steps)
        lines.append(f"median error of {count} steps: {found.median_error_ratio:.1%}")
    lines += [f"not run: {skipped.name}: {skipped.why}" for skipped in found.skipped]
    lines += [
        f"{r.record.workload}: {r.record.outcome}: {r.record.detail}" for r in found.runs if r.record.outcome != "ok"
    ]
    return lines


def markdown(found: "Table") -> str:
    """The tables in Markdown."""
    text = "# Systems\n\n"
    for title, columns, rows, right in views(found):
        ruler = "|".join("--:" if at in right else "---" for at in range(len(columns)))
        lines = [f"| {' | '.join(columns)} |", f"|{ruler}|", *(f"| {' | '.join(row)} |" for row in rows)]
        text += f"## {title.capitalize()}\n\n" + "\n".join(lines) + "\n\n"
    return text + "\n".join(f"- {line}" for line in notes(found)) + "\n"
