"""Tables of records, comparisons, changes and trends, shared by the verbs that print them."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness.cli._output import Answer, Table, say, table
from harness.printable import MESSAGE_MAX, clean

if TYPE_CHECKING:
    from harness.app.trend import MetricChange, Trend
    from harness.domain.record import RunRecord
    from harness.records.compare import Comparison

_MOST_ROWS = 40
_BARS = "▁▂▃▄▅▆▇█"


def answer_of(record: "RunRecord", status: int | None = None) -> Answer:
    """The answer of a verb that makes one record: what its result says, and why it is not well."""
    from harness.app.run import exit_of

    return Answer(record, lambda: show_record(record), exit_of([record]) if status is None else status)


def show_record(record: "RunRecord") -> None:
    """Print one record in full: its speeds, its result, and what went wrong."""
    from harness.report.results import result_tables

    tables = [table(title, columns, rows) for _, title, columns, rows in result_tables(record)]
    say(*(tables or [run_table([record])]), *reasons([record]))


def run_table(records: "Iterable[RunRecord]") -> Table:
    """One line a run: speed, latency, first token, load, memory, outcome; ``~``: every sample was disturbed."""
    from harness.report.text import RUN_COLUMNS, run_cells

    rows = [(record_title(record), *run_cells(record), record.outcome) for record in records]
    return table("", ("model", *RUN_COLUMNS, "outcome"), rows)


def comparison_view(record: "RunRecord", comparison: "Comparison | None") -> list[Any]:
    """What to print of a run beside its prediction: interval, measured, error, and notes; nothing without one."""
    from harness.report.text import compared

    if comparison is None:
        return []
    columns = ("", "predicted", "90 % interval", "measured", "error", "", "n")
    rows = [(row.name, *compared(row), str(row.sample_count)) for row in comparison.rows]
    return [table(record_title(record), columns, rows), *comparison.notes]


def reasons(records: "Sequence[RunRecord]") -> list[str]:
    """One line for each run that is not well; an error that begins with the file asked for names it once."""
    lines = []
    for record in records:
        asked = str(record.extra.get("model", ""))
        if record.outcome == "ok":
            continue
        name = f"{record.name}: "
        if asked and record.detail.startswith(asked):
            name = ""
        # On one line: a stranger's line could begin a command of a workflow.
        lines.append(clean(f"{name}{record.outcome}: {record.detail}", MESSAGE_MAX))
    return lines


def record_title(record: "RunRecord") -> str:
    """Name, mixture and depth of a run, as its row is headed."""
    from harness.report.text import title_of

    return title_of(record.name, record.quant, record.scenario.depth_tokens)


def difference_view(before: "RunRecord", after: "RunRecord") -> list[Any]:
    """What to print of two runs: a table, and what makes them hard to compare."""
    from harness.app.trend import differences, not_alike

    rows = [(change.metric, *_cells(change)) for change in differences(before, after)]
    names = ("metric", before.run_id[:15], after.run_id[:15], "ratio", "95 % interval", "")
    view: list[Any] = [table(f"{after.run_id} against {before.run_id}", names, rows)]
    return view + [f"not alike: {line}" for line in not_alike(before, after)]


def trend_table(metric: str, trends: "Sequence[Trend]") -> Table:
    """The course of a metric over the newest kinds of runs, and its last change."""
    if len(trends) <= _MOST_ROWS:
        title = metric
    else:
        title = f"{metric}: the newest {_MOST_ROWS} of {len(trends)} kinds of runs"
    names = ("runs", "", "over time", "last", "ratio", "95 % interval", "")
    return table(title, names, [_row(trend) for trend in trends[-_MOST_ROWS:]])


def _row(trend: "Trend") -> tuple[str, ...]:
    values = [p.value for p in trend.points]
    bars = "".join(_BARS[int(7 * v / max(values))] for v in values[-24:])
    if trend.step is None:
        return (trend.name, str(len(values)), bars, f"{values[-1]:.4g}", "", "", "one run")
    return (trend.name, str(len(values)), bars, *_cells(trend.step)[1:])


def _cells(change: "MetricChange") -> tuple[str, ...]:
    from harness.report.text import amount

    none = change.low is None or change.high is None
    if none:
        interval = "none: fewer than 3 samples"
    else:
        interval = f"{change.low:.3f} to {change.high:.3f}"
    sides = [amount(change.unit, value) for value in (change.before, change.after)]
    return (*sides, f"{change.ratio:.3f}", interval, change.word)
