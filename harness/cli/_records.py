"""Tables of records and comparisons, shared by the verbs that print them."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from harness.cli._output import table
from harness.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.table import Table

    from harness.domain.record import RunRecord
    from harness.records.compare import Comparison, Row


def run_table(records: "Iterable[RunRecord]") -> "Table":
    """One line a run: speed, latency, first token, load, memory, outcome."""
    from harness.records.derive import summarise

    columns = ("model", "pp t/s", "tg t/s", "p99", "first token", "load", "peak", "outcome")
    rows = []
    for record in records:
        s = summarise(record)
        prefill, decode = s.test("prefill"), s.test("decode")
        first, load = s.test("first_token"), s.test("load", "load")
        latency = s.latency[0] if s.latency else None
        rows.append(
            (
                title_of(record),
                _rate(prefill.tokens_per_s if prefill else None),
                _rate(decode.tokens_per_s if decode else None),
                _time(latency.p99_s if latency else None),
                _time(first.duration_s if first else None),
                _time(load.duration_s if load else None),
                format_bytes(s.peak_rss_bytes) if s.peak_rss_bytes else "-",
                record.outcome,
            )
        )
    return table("", columns, rows, right=range(1, 7))


def comparison_table(comparison: "Comparison", title: str) -> "Table":
    """Predicted, its interval, measured, error."""
    columns = ("", "predicted", "90 % interval", "measured", "error", "n")
    rows = [
        (
            row.name,
            amount(row.unit, row.predicted),
            f"{amount(row.unit, row.low)} to {amount(row.unit, row.high)}",
            "-" if row.measured is None else amount(row.unit, row.measured),
            error_text(row),
            str(row.sample_count),
        )
        for row in comparison.rows
    ]
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


def amount(unit: str, value: float) -> str:
    """A quantity in the unit that people read it in."""
    if unit == "bytes":
        return format_bytes(value)
    return format_seconds(value) if unit == "s" else f"{value:.1f} t/s"


def error_text(row: "Row") -> str:
    """Error of a row with its sign; a star when the measurement lies outside the interval."""
    if row.error_ratio is None:
        return "-"
    return f"{row.error_ratio:+.1%}{'' if row.inside else ' *'}"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _time(value: float | None) -> str:
    return "-" if value is None else format_seconds(value)
