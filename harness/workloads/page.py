"""Systems as tables: each row names the parts, the figures, the time and the memory of the same object."""

from collections.abc import Sequence
from typing import Final

from harness.domain.record import RunRecord
from harness.domain.result import PassFigures, Score, SystemResult
from harness.report.panels import Panel
from harness.units import format_bytes, format_seconds

PASS_COLUMNS: Final = ("step", "part", "pass", "tokens", "p50", "p95", "predicted p50", "p95", "error")
MEMORY_COLUMNS: Final = ("part", "file", "KV cache", "arena", "anonymous", "predicted", "error")
SCORE_COLUMNS: Final = ("of", "figure", "value", "cases", "null", "which says")
View = tuple[str, Sequence[str], list[list[str]]]
"""A table as text: its title, columns and rows."""


def pass_cells(row: PassFigures) -> list[str]:
    """Passes of a part as text, measured beside predicted."""
    cells = [row.step, row.part or "-", row.op, f"{row.tokens:g}" if row.tokens else "-"]
    times = (row.p50_s, row.p95_s, row.predicted_p50_s, row.predicted_p95_s)
    cells += ["-" if seconds is None else format_seconds(seconds) for seconds in times]
    error = row.error_ratio
    return [*cells, "-" if error is None else f"{error:+.0%}"]


def memory_rows(record: RunRecord) -> list[list[str]]:
    """What each part holds, and the process or processes together, measured beside predicted."""
    result = _result(record)
    rows = []
    for part in result.memory:
        sizes = [format_bytes(size) for size in (part.file_bytes, part.cache_bytes, part.arena_bytes)]
        rows.append([part.part, *sizes, *_beside(part.anonymous_bytes, part.predicted_bytes)])
    held = None
    if record.memory:
        held = record.memory.peak_anonymous_bytes
    rows.append(["all", "-", "-", "-", *_beside(held, result.predicted_anonymous_bytes)])
    return rows


def _beside(held: int | None, predicted: int | None) -> list[str]:
    cells = ["-" if size is None else format_bytes(size) for size in (held, predicted)]
    if held and predicted is not None:
        return [*cells, f"{predicted / held - 1:+.0%}"]
    return [*cells, "-"]


def score_cells(score: Score) -> list[str]:
    """A figure beside its hardest null, and what that says."""
    value = "-" if score.value is None else f"{score.value:.3g}"
    if score.low is not None and score.high is not None:
        value += f" ({score.low:.3g} to {score.high:.3g})"
    null = score.best_null
    return [
        score.group or "all",
        score.name.replace("_", " "),
        value,
        str(score.count),
        f"{null}: {score.nulls[null]:.3g}" if null else "-",
        {True: "beats it", False: "does not beat it", None: "-"}[score.beats_null],
    ]


def _result(record: RunRecord) -> SystemResult:
    assert isinstance(record.result, SystemResult)
    return record.result


def parts_of(record: RunRecord) -> str:
    """The parts of a run, each with the model that it was."""
    return ", ".join(f"{name} {model}" for name, model in _result(record).parts.items()) or "none"


def views(record: RunRecord) -> list[View]:
    """Passes, memory and figures of a run."""
    title = f"{record.workload}, parts: {parts_of(record)}"
    result = _result(record)
    shown: list[View] = [
        (f"time of {title}", PASS_COLUMNS, [pass_cells(row) for row in result.passes]),
        (f"memory of {title}", MEMORY_COLUMNS, memory_rows(record)),
        (f"figures of {title}", SCORE_COLUMNS, [score_cells(score) for score in result.scores]),
    ]
    return [view for view in shown if view[2]]


def panel(record: RunRecord) -> Panel | None:
    """The section of a system's run in a report; None for any other record."""
    if not isinstance(record.result, SystemResult):
        return None
    facts = [(f"memory of {row[0]}", f"{row[4]} measured, {row[5]} predicted") for row in memory_rows(record)]
    for score in record.result.scores:
        group, name, value, count, null, says = score_cells(score)
        facts.append((f"{group}: {name}", f"{value}, {count} cases; {null} {says}" if null != "-" else value))
    return Panel(
        title="Systems",
        label=f"{record.workload}, parts: {parts_of(record)}",
        outcome=f"{record.outcome}: {record.detail}" if record.detail else record.outcome,
        columns=PASS_COLUMNS,
        rows=[pass_cells(row) for row in record.result.passes],
        facts=facts,
    )
