"""Systems as a table: time and memory of each step and part, measured beside predicted; figures beside their nulls."""

from collections.abc import Callable
from typing import Any

from harness.core.record import Record
from harness.core.result import SystemResult
from harness.core.units import format_bytes, format_seconds
from harness.show.panels import Panel

COLUMNS = ("step", "part", "pass", "tokens", "measured", "p95", "predicted", "p95", "error")


def panel(record: Record) -> Panel | None:
    """The section of a system's run in a report, and what its verb prints; None for any other record.

    Rows are medians of the passes of each step, anonymous memory of each part, and of all together.
    """
    result = record.result
    if not isinstance(result, SystemResult):
        return None
    rows = []
    for one in result.passes:
        tokens = f"{one.tokens:g}" if one.tokens else "-"
        cells = _compared(format_seconds, one.p50_s, one.predicted_p50_s, one.p95_s, one.predicted_p95_s)
        op = one.where if one.op == "recorded" else one.op
        rows.append([one.step, one.part or "-", op, tokens, *cells])
    for part in result.memory:
        sizes = map(format_bytes, (part.file_bytes, part.cache_bytes, part.arena_bytes))
        told = "file {}, cache {}, arena {}".format(*sizes)
        cells = _compared(format_bytes, part.anonymous_bytes, part.predicted_bytes)
        rows.append(["memory", part.part, told, "-", *cells])
    if record.memory:
        cells = _compared(format_bytes, record.memory.peak_anonymous_bytes, result.predicted_anonymous_bytes)
        rows.append(["memory", "-", "all", "-", *cells])
    facts = []
    for score in result.scores:
        told = "-" if score.value is None else f"{score.value:.3g}"
        if score.low is not None and score.high is not None:
            told += f" ({score.low:.3g} to {score.high:.3g})"
        told += f", {score.count} cases"
        null = score.best_null
        if null:
            told += f"; {null}: {score.nulls[null]:.3g}"
        if score.beats_null is not None:
            told += " beats it" if score.beats_null else " does not beat it"
        facts.append((f"{score.group or 'all'}: {score.name.replace('_', ' ')}", told))
    parts = ", ".join(f"{name} {model}" for name, model in result.parts.items())
    label = f"{record.workload}, parts: {parts or 'none'}"
    outcome = f"{record.outcome}: {record.detail}".rstrip(": ")
    return Panel("Systems", label, outcome, COLUMNS, rows, facts)


def _compared(
    spelled: Callable[[Any], str], measured: Any, predicted: Any, p95: Any = None, predicted_p95: Any = None
) -> list[str]:
    figures = (measured, p95, predicted, predicted_p95)
    cells = ["-" if figure is None else spelled(figure) for figure in figures]
    error = "-"
    if measured and predicted is not None:
        error = f"{predicted / measured - 1:+.0%}"
    return [*cells, error]
