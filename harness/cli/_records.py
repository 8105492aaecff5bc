"""Tables of records, comparisons, changes and trends, shared by the verbs that print them."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from harness.cli._output import Answer, Table, say, table
from harness.errors import UnknownNameError
from harness.units import format_amount, format_bytes, format_seconds

if TYPE_CHECKING:
    from harness.app.trend import Change, Trend
    from harness.domain.record import RunRecord
    from harness.records.compare import Comparison, Row
    from harness.records.derive import TestFigures
    from harness.records.history import History


_MOST_ROWS = 40
_BARS = "▁▂▃▄▅▆▇█"


def answer_of(record: "RunRecord", status: int | None = None) -> Answer:
    """The answer of a verb that makes one record: what its result says, and why it is not well."""
    from harness.app.run import exit_of

    return Answer(record, lambda: show_record(record), exit_of([record]) if status is None else status)


def show_record(record: "RunRecord") -> None:
    """Print one record in full: its speeds, its result, and what went wrong."""
    from harness.report.results import result_tables

    tables = [table(title, columns, rows) for title, columns, rows in result_tables(record)]
    say(*(tables or [run_table([record])]), *reasons([record]))


def run_table(records: "Iterable[RunRecord]") -> Table:
    """One line a run: speed, latency, first token, load, memory, outcome; ``~``: every sample was disturbed."""
    from harness.records.derive import summarise

    columns = ("model", "pp t/s", "tg t/s", "p99", "first token", "load", "peak", "outcome")
    rows = []
    for record in records:
        s, used = summarise(record), record.memory
        rates = [_rate(t) for t in (s.test("prefill"), s.test("decode"))]
        timed = (s.test("first_token"), s.test("load", "load"))
        times = [s.latency[0].p99_s if s.latency else None, *(t.duration_s if t else None for t in timed)]
        shown = ["-" if t is None else format_seconds(t) for t in times]
        peak = format_bytes(used.peak_rss_bytes) if used and used.peak_rss_bytes else "-"
        rows.append((title_of(record), *rates, *shown, peak, record.outcome))
    return table("", columns, rows, right=range(1, 7))


def _rate(test: "TestFigures | None") -> str:
    """Tokens/s of a test; the median of its disturbed samples, marked, where there are no others."""
    if test is not None and test.tokens_per_s is not None:
        return f"{test.tokens_per_s:.1f}"
    return "-" if test is None or test.doubted_per_s is None else f"~{test.doubted_per_s:.1f}"


def comparison_table(comparison: "Comparison", title: str) -> Table:
    """Predicted, its interval, measured, error."""
    columns = ("", "predicted", "90 % interval", "measured", "error", "n")
    rows = [(*comparison_cells(row), str(row.sample_count)) for row in comparison.rows]
    return table(title, columns, rows, right=range(1, 6))


def comparison_cells(row: "Row") -> tuple[str, ...]:
    """Name, prediction, interval, measurement and error of a row (a star: outside; ``disturbed``: in doubt)."""
    values = (row.predicted, row.low, row.high, row.measured)
    shown = ["-" if v is None else format_amount(row.unit, v, f"{v:.1f} t/s") for v in values]
    error = "-" if row.error_ratio is None else f"{row.error_ratio:+.1%}{'' if row.inside else ' *'}"
    return row.name, shown[0], f"{shown[1]} to {shown[2]}", shown[3], "disturbed" if row.doubted else error


def reasons(records: "Sequence[RunRecord]") -> list[str]:
    """One line for each run that is not well; an error that begins with the file asked for names it once."""
    lines = []
    for record in records:
        asked = str(record.extra.get("model", ""))
        name = "" if asked and record.detail.startswith(asked) else f"{record.name}: "
        lines += [f"{name}{record.outcome}: {record.detail}"] * (record.outcome != "ok")
    return lines


def title_of(record: "RunRecord") -> str:
    """Name, mixture and depth of a run, as its row is headed."""
    name, quant = record.name, record.quant
    depth = f" @ d{record.scenario.depth_tokens}" if record.scenario.depth_tokens else ""
    return f"{name}{' ' + quant if quant and quant not in name.upper() else ''}{depth}"


def difference_view(before: "RunRecord", after: "RunRecord") -> list[Any]:
    """What to print of two runs: a table, and what makes them hard to compare."""
    from harness.app.trend import differences, not_alike

    rows = [(change.metric, *_cells(change)) for change in differences(before, after)]
    names = ("metric", before.run_id[:15], after.run_id[:15], "ratio", "95 % interval", "effect", "n", "")
    view: list[Any] = [table(f"{after.run_id} against {before.run_id}", names, rows, right=range(1, 7))]
    return view + [f"not alike: {line}" for line in not_alike(before, after)]


def trends(past: "History", metric: str, **wanted: Any) -> Answer:
    """The course of a metric over the runs wanted, as ``History.figures`` takes them."""
    from harness.app.trend import METRICS, comparable, trend_of

    known = next((m for m in METRICS if m == metric), None)
    if known is None:
        raise UnknownNameError("metric", metric, METRICS)
    groups = comparable(past.figures(known, **wanted))

    def show() -> None:
        newest = sorted(groups, key=lambda runs: runs[-1].created)[-_MOST_ROWS:]
        names = ("runs", "", "over time", "last", "against", "ratio", "95 % interval", "effect", "")
        say(table(metric, names, [_row(trend_of(runs, known)) for runs in newest], right=(1, 3, 5, 6, 7)))
        if len(groups) > len(newest):
            say(f"the newest {len(newest)} of {len(groups)}: narrow them with --model or --device, or take --json")

    return Answer(lambda: [trend_of(runs, known) for runs in groups], show)


def _row(trend: "Trend") -> tuple[str, ...]:
    values = [p.value for p in trend.points]
    bars = "".join(_BARS[int(7 * v / max(values))] for v in values[-24:])
    change = trend.step
    if change is None:
        return (trend.name, str(len(values)), bars, f"{values[-1]:.4g}", "", "", "", "", "one run")
    _, after, ratio, interval, effect, _, word = _cells(change)
    return (trend.name, str(len(values)), bars, after, trend.points[-2].created[:16], ratio, interval, effect, word)


def _cells(change: "Change") -> tuple[str, ...]:
    from harness.app.trend import effect_size

    before, after = (
        format_amount(change.unit, value, f"{value:.4g} {change.unit}") for value in (change.before, change.after)
    )
    none = change.low is None or change.high is None
    interval = "none: fewer than 3 samples" if none else f"{change.low:.3f} to {change.high:.3f}"
    counts = f"{change.before_count}, {change.after_count}"
    return before, after, f"{change.ratio:.3f}", interval, effect_size(change.effect), counts, change.word
