"""Tables of records, comparisons, changes and trends, shared by the verbs that print them."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from harness.core.printable import MESSAGE_MAX, clean
from harness.records.possible import impossible
from harness.show.output import Output, say, table

if TYPE_CHECKING:
    from harness.core.record import Record
    from harness.core.result import ServerCheck
    from harness.records.compare import Comparison
    from harness.verbs.trend import MetricChange, Trend

_MOST_ROWS = 40
_BARS = "▁▂▃▄▅▆▇█"
_SHOWN = {
    "prefill": "reads",
    "decode": "writes",
    "slow token": "slow token",
    "first token": "first token",
    "load": "loads",
    "peak memory": "memory",
}
"""Figures of a run by the names of their columns."""


def answer_of(record: "Record", status: int | None = None) -> Output:
    """The answer of a verb that makes one record: what its result says, and why it is not well."""
    from harness.verbs.run import exit_of

    return Output(record, lambda: show_record(record), exit_of([record]) if status is None else status)


def show_record(record: "Record") -> None:
    """Print one record in full: its speeds, its result, and what went wrong."""
    from harness.show.findings import result_panels

    tables = [table(one.label, one.columns, one.rows) for one in result_panels(record)]
    say(*(tables or [run_table([record])]), *reasons([record]))


def run_table(records: "Iterable[Record]") -> str:
    """One line a run: speeds, latencies, memory, outcome.

    In brackets what was disturbed and is not to be believed.
    """
    from harness.show.state import figures_of

    rows = []
    for record in records:
        figures = figures_of(record)
        cells = [figures[name].shown if name in figures else "–" for name in _SHOWN]
        rows.append((record_title(record), *cells, "cannot be" if impossible(record) else record.outcome))
    return table("", ("model", *_SHOWN.values(), "outcome"), rows)


def comparison_view(record: "Record", comparison: "Comparison | None") -> list[str]:
    """What to print of a run beside its prediction: measured, interval, how far off, and notes.

    A run that nothing was predicted of has no such rows.
    """
    from harness.show.state import figures_of
    from harness.show.words import QUANTITIES

    if comparison is None:
        return []
    rows = []
    for figure in figures_of(record).values():
        if figure.predicted is not None:
            between = f"{figure.between} {figure.unit_word}"
            name = QUANTITIES.get(figure.name, figure.name)
            rows.append((name, figure.shown, between, figure.off, figure.word, figure.sample_count))
    columns = ("", "measured", "predicted, 90 %", "off", "", "n")
    return [table(record_title(record), columns, rows), *comparison.notes]


def reasons(records: "Sequence[Record]") -> list[str]:
    """One line for each run that is not well; an error that begins with the file asked for names it once."""
    lines = []
    for record in records:
        asked = str(record.extra.get("model", ""))
        name = f"{record.name}: "
        if asked and record.detail.startswith(asked):
            name = ""
        lines += [clean(f"{name}cannot be: {why}", MESSAGE_MAX) for why in impossible(record)]
        if record.outcome != "ok":  # on one line: a stranger's line could begin a command of a workflow
            lines.append(clean(f"{name}{record.outcome}: {record.detail}", MESSAGE_MAX))
    return lines


_PROMISES: Final = {
    "cache": "computes each answer anew",
    "prompts": "reads its prompts",
    "tokens": "counts its tokens as they are",
    "drafts": "drafts none",
    "bunching": "sends each token when it is there",
    "prefixes": "reads a prompt again that it read before",
}


def promises_view(checks: "Sequence[ServerCheck]") -> list[str]:
    """What came of a server's promises: in a sentence, and a line each with what was seen."""
    broken = sum(check.verdict == "broken" for check in checks)
    unknown = sum(check.verdict == "unknown" for check in checks)
    said = (
        f"{broken} of {len(checks)} promises broken"
        if broken
        else f"none of {len(checks)} promises is broken"
    )
    more = f", {unknown} could not be tried" if unknown else ""
    wide = max(map(len, _PROMISES.values()))
    rows = [
        f"  {check.verdict:8} {_PROMISES[check.name]:{wide}}  {clean(check.detail, 200)}" for check in checks
    ]
    return [f"This server: {said}{more}.", "", *rows]


def record_title(record: "Record") -> str:
    """Name, quantisation and depth of a run, as its row is headed."""
    from harness.show.words import model_words

    depth = record.scenario.depth_tokens
    after = f", after {depth:,} tokens" * bool(depth)
    return f"{model_words(record)} {record.quant}".strip() + after


def difference_view(before: "Record", after: "Record") -> list[str]:
    """What to print of two runs: a table, and what makes them hard to compare."""
    from harness.verbs.trend import differences, not_alike

    changes = differences(before, after)
    rows = [(change.metric, _amount(change, change.before), *_cells(change)) for change in changes]
    names = ("metric", before.run_id[:15], after.run_id[:15], "ratio", "95 % interval", "")
    view = [table(f"{after.run_id} against {before.run_id}", names, rows)]
    return view + [f"not alike: {line}" for line in not_alike(before, after)]


def trend_table(metric: str, trends: "Sequence[Trend]") -> str:
    """The course of a metric over the newest kinds of runs, and its last change."""
    title = metric
    if len(trends) > _MOST_ROWS:
        title = f"{metric}: the newest {_MOST_ROWS} of {len(trends)} kinds of runs"
    rows = []
    for trend in trends[-_MOST_ROWS:]:
        values = [point.value for point in trend.points]
        bars = "".join(_BARS[int(7 * value / max(values))] for value in values[-24:])
        last = (f"{values[-1]:.4g}", "", "", "one run")
        if trend.step is not None:
            last = _cells(trend.step)
        rows.append((trend.name, len(values), bars, *last))
    return table(title, ("runs", "", "over time", "last", "ratio", "95 % interval", ""), rows)


def _cells(change: "MetricChange") -> tuple[str, str, str, str]:
    interval = "exact"
    if change.low is not None and change.high is not None:
        interval = f"{change.low:.3f} to {change.high:.3f}"
    return _amount(change, change.after), f"{change.ratio:.3f}", interval, change.word


def _amount(change: "MetricChange", value: float) -> str:
    from harness.show.state import amount

    return amount(change.unit, value)
