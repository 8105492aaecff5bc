"""Workloads on the page: each operation beside its prediction, and what each workload said of its answers."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from harness.domain.record import RunRecord
from harness.domain.result import System
from harness.printable import clean
from harness.report.document import RunView
from harness.report.text import amount
from harness.units import format_bytes, format_rate, format_seconds

_LONGEST = 200


class WorkloadPanel(NamedTuple):
    """One run of a workload.

    Attributes:
        rows: Operation, median, predicted, error, limit, calls.
        results: Names and values of what it said of its answers, and its size.
    """

    label: str
    outcome: str
    rows: list[tuple[str, ...]]
    results: list[tuple[str, str]]


def workload_panels(named: Sequence[tuple[str, RunView]], records: Sequence[RunRecord]) -> list[WorkloadPanel]:
    """A panel for each run that is not one of a language model alone."""
    results = {record.run_id: record.result for record in records}
    return [_panel(run, found) for _, run in named if isinstance(found := results[run.run_id], System)]


def _panel(run: RunView, result: System) -> WorkloadPanel:
    predicted = {p["operation"]: p for p in result.predicted}
    rows: list[tuple[str, ...]] = []
    for test in run.tests:
        said = predicted.get(test.label)
        middle = said["latency_s"]["mid"] if said else None
        error = f"{middle / test.value - 1:+.0%}" if middle and test.value else "–"
        limit, shown = clean(said["limit"]) if said else "–", format_seconds(middle) if middle else "–"
        rows.append((test.label, amount(test.unit, test.value), shown, error, limit, str(test.sample_count)))
    label = run.workload if run.name == run.workload else f"{run.workload}, {run.name} {run.quant}".rstrip()
    told = {"size": result.size, "quality": result.quality, "evaluation": result.evaluation}
    outcome = f"{run.outcome}: {clean(run.detail, 300)}" if run.detail else run.outcome
    return WorkloadPanel(label, outcome, rows, [(clean(named(k)), clean(v, _LONGEST)) for k, v in flat("", told)])


_BETTER: Final = {
    "higher": ("accuracy", "precision", "recall", "f1", "idf1", "overlap", "cosine", "hota", "mfu",
               "found_first", "located"),
    "lower": ("error", "difference", "differs", "ece", "brier", "aurc", "loss", "alarm", "blamed", "ghost", "switch",
              "weight_bytes", "memory_bytes"),
}  # fmt: skip
"""Words in the name of a figure that say which way is better; of any other, more is neither."""


def better(key: str) -> str:
    """``higher`` or ``lower`` is better, by a figure's name; empty where neither is."""
    words = f"_{key.lower().replace('.', '_').replace(' ', '_')}_"
    return next((way for way, parts in _BETTER.items() if any(f"_{part}_" in words for part in parts)), "")


def named(key: str) -> str:
    """A figure's name in words, without the group that it stands in."""
    return key.partition(".")[2].replace("_", " ").replace(".", ": ") or key


def flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    """Nested results as lines of text, in the unit that the name ends in; lists of many or of tables are left out."""
    if isinstance(value, dict):
        return [line for k, v in value.items() for line in flat(f"{prefix}.{k}" if prefix else str(k), v)]
    listed = value if isinstance(value, list | tuple) else ()
    if value in (None, "", [], ()) or len(listed) > 8 or any(isinstance(part, dict) for part in listed):
        return []
    if isinstance(value, bool):
        return [(prefix, "yes" if value else "no")]
    if isinstance(value, int | float):
        return [(prefix, _in_unit(prefix, value))]
    return [(prefix, str(value))]


def _in_unit(name: str, value: float) -> str:
    if name.endswith("_bytes_per_s"):
        return format_rate(value)
    if name.endswith("_bytes"):
        return format_bytes(value)
    if name.endswith("_s") and not name.endswith("_per_s"):
        return format_seconds(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
