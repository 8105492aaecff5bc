"""Systems as tables: time and memory of each step and part, measured beside predicted; figures beside their nulls."""

from collections.abc import Callable, Sequence
from typing import Any

from harness.domain.record import RunRecord
from harness.domain.result import SystemResult
from harness.report.panels import Panel
from harness.units import format_bytes, format_seconds

COLUMNS = ("step", "part", "pass", "tokens", "measured", "p95", "predicted", "p95", "error")
SCORE_COLUMNS = ("of", "figure", "value", "cases", "null", "which says")


def title_of(record: RunRecord) -> str:
    """The system with its parts, each with the model that it was."""
    assert isinstance(record.result, SystemResult)
    parts = ", ".join(f"{name} {model}" for name, model in record.result.parts.items())
    return f"{record.workload}, parts: {parts or 'none'}"


def rows_of(record: RunRecord) -> list[list[str]]:
    """Medians of the passes of each step; anonymous memory of each part, and of all together."""
    result = record.result
    assert isinstance(result, SystemResult)
    cells = []
    for one in result.passes:
        tokens = f"{one.tokens:g}" if one.tokens else "-"
        seconds = (one.p50_s, one.p95_s, one.predicted_p50_s, one.predicted_p95_s)
        cells.append([one.step, one.part or "-", one.op, tokens, *_compared(seconds, format_seconds)])
    for part in result.memory:
        sizes = map(format_bytes, (part.file_bytes, part.cache_bytes, part.arena_bytes))
        told = "file {}, cache {}, arena {}".format(*sizes)
        held = (part.anonymous_bytes, None, part.predicted_bytes, None)
        cells.append(["memory", part.part, told, "-", *_compared(held, format_bytes)])
    if record.memory:
        held = (record.memory.peak_anonymous_bytes, None, result.predicted_anonymous_bytes, None)
        cells.append(["memory", "-", "all", "-", *_compared(held, format_bytes)])
    return cells


def _compared(figures: Sequence[Any], spelled: Callable[[Any], str]) -> list[str]:
    cells = ["-" if figure is None else spelled(figure) for figure in figures]
    error = "-"
    if figures[0] and figures[2] is not None:
        error = f"{figures[2] / figures[0] - 1:+.0%}"
    return [*cells, error]


def score_rows(record: RunRecord) -> list[list[str]]:
    """Figures, each beside its hardest null, and what that says."""
    assert isinstance(record.result, SystemResult)
    cells = []
    for score in record.result.scores:
        value = "-" if score.value is None else f"{score.value:.3g}"
        if score.low is not None and score.high is not None:
            value += f" ({score.low:.3g} to {score.high:.3g})"
        null = score.best_null
        beside = f"{null}: {score.nulls[null]:.3g}" if null else "-"
        says = {True: "beats it", False: "does not beat it", None: "-"}[score.beats_null]
        name = score.name.replace("_", " ")
        cells.append([score.group or "all", name, value, str(score.count), beside, says])
    return cells


def panel(record: RunRecord) -> Panel | None:
    """The section of a system's run in a report; None for any other record."""
    if not isinstance(record.result, SystemResult):
        return None
    facts = [
        (f"{row[0]}: {row[1]}", f"{row[2]}, {row[3]} cases; {row[4]} {row[5]}") for row in score_rows(record)
    ]
    outcome = f"{record.outcome}: {record.detail}".rstrip(": ")
    return Panel("Systems", title_of(record), outcome, COLUMNS, rows_of(record), facts)
