"""Tables of records and comparisons, shared by the verbs that print them."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from harness.cli._output import Answer, say, table
from harness.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.table import Table

    from harness.domain.record import RunRecord
    from harness.records.compare import Comparison


Kind = TypeVar("Kind")


def answer_of(
    record: "RunRecord",
    kind: type[Kind],
    view: "Callable[[Kind], tuple[str, list[tuple[str, str]]]]",
    status: int | None = None,
) -> Answer:
    """The answer of a verb that makes one record: title and rows of its result, and why it is not well."""
    from harness.app.run import exit_of

    def show() -> None:
        if isinstance(record.result, kind):
            title, rows = view(record.result)
            say(table(title, ("", ""), rows))
        say(*reasons([record]))

    return Answer(record, show, exit_of([record]) if status is None else status)


def run_table(records: "Iterable[RunRecord]") -> "Table":
    """One line a run: speed, latency, first token, load, memory, outcome."""
    from harness.records.derive import summarise

    columns = ("model", "pp t/s", "tg t/s", "p99", "first token", "load", "peak", "outcome")
    rows = []
    for record in records:
        s = summarise(record)
        rates = [t.tokens_per_s if t else None for t in (s.test("prefill"), s.test("decode"))]
        timed = (s.test("first_token"), s.test("load", "load"))
        times = [s.latency[0].p99_s if s.latency else None, *(t.duration_s if t else None for t in timed)]
        shown = [*("-" if r is None else f"{r:.1f}" for r in rates)]
        shown += ["-" if t is None else format_seconds(t) for t in times]
        peak = format_bytes(s.peak_rss_bytes) if s.peak_rss_bytes else "-"
        rows.append((title_of(record), *shown, peak, record.outcome))
    return table("", columns, rows, right=range(1, 7))


def comparison_table(comparison: "Comparison", title: str) -> "Table":
    """Predicted, its interval, measured, error."""
    from harness.app.check import comparison_cells

    columns = ("", "predicted", "90 % interval", "measured", "error", "n")
    cells = zip(comparison_cells(comparison, "t/s"), comparison.rows, strict=True)
    rows = [(*shown, str(row.sample_count)) for shown, row in cells]
    return table(title, columns, rows, right=range(1, 6))


def reasons(records: "Sequence[RunRecord]") -> list[str]:
    """One line for each run that is not well."""
    return [f"{name_of(r)}: {r.outcome}: {r.detail}" for r in records if r.outcome != "ok"]


def name_of(record: "RunRecord") -> str:
    """Name of a record's model, or of what was asked for when none could be had."""
    asked = str(record.extra.get("model", record.workload))
    return record.model.name if record.model else asked.rpartition("/")[2]


def peak_of(record: "RunRecord") -> str:
    """Peak memory of a run as people read it."""
    memory = record.memory
    return format_bytes(memory.peak_pss_bytes or memory.peak_rss_bytes) if memory else "-"


def title_of(record: "RunRecord") -> str:
    """Name, mixture and depth of a run, as its row is headed."""
    quant = record.model.quant if record.model else ""
    depth = f" @ d{record.scenario.depth_tokens}" if record.scenario.depth_tokens else ""
    return f"{name_of(record)}{' ' + quant if quant and quant not in name_of(record).upper() else ''}{depth}"
