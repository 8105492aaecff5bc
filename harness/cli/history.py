"""``edge-harness history``: every run made here.

Some of them in full, beside their predictions and each other.
"""

import re
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import click
from msgspec import Meta

from harness.cli._options import ending
from harness.cli.command import refuse_typed, verb
from harness.core.option import Option
from harness.core.record import Outcome
from harness.core.units import counted
from harness.show.output import Output, say, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.core.record import Record
    from harness.records.history import History


_ALL: Final = 2**62


@verb
def history(
    runs: Annotated[tuple[str, ...], Option(metavar="[RUN]...")] = (),
    model: Annotated[str, Option("--model", "Only runs of this model.")] = "",
    device: Annotated[str, Option("--device", "Only runs on this device.")] = "",
    workload: Annotated[
        str,
        Option(
            "--workload", "Only runs of this kind: generate, speculate, stream, quality, load, memory, ..."
        ),
    ] = "",
    outcome: Annotated[
        Outcome | None,
        Option("--outcome", "Only runs that ended so, such as 'out of memory': shows why runs failed."),
    ] = None,
    limit: Annotated[
        int, Meta(ge=1, le=10_000), Option("--limit", "Show at most this many runs, the newest.")
    ] = 8,
    imported: Annotated[
        Path | None, Option("--import", "Add the records of a file or folder: all that `report` reads.")
    ] = None,
    export: Annotated[
        Path | None,
        Option(
            "--export",
            "Write all of these runs as a table, one row each: FILE.csv, FILE.jsonl or FILE.parquet.",
            path="file",
            reads=ending(".csv", ".jsonl", ".parquet"),
        ),
    ] = None,
    trend: Annotated[
        str | None,
        Option(
            "--trend",
            "Show how a metric, such as decode_tokens_per_s, changed over comparable runs.",
        ),
    ] = None,
) -> Output:
    """List past runs with their speeds, newest first.

    Or show each RUN: a file, the start of a run's name, or its time.

    A RUN is shown beside what was predicted before it, and beside the RUN named before it: the ratio of the
    second to the first, with its 95 % interval, where both have the same file, engine, machine and setting.
    With --trend: medians over time, and the last change.

    Example: edge-harness history --model smollm2-135m --trend decode_tokens_per_s
    """
    from harness.core.errors import UnknownNameError
    from harness.measure.pipeline import open_history
    from harness.show.record_tables import trend_table
    from harness.verbs.results import gather
    from harness.verbs.trend import METRICS, trends

    past = open_history()
    refuse_typed({"imported"}, "with RUN", when=runs)
    which = {"model": model, "device": device, "workload": workload, "outcome": outcome or ""}
    refuse_typed({*which, "limit", "trend", "export"}, "with RUN or --import", when=runs or imported)
    refuse_typed({"limit"}, "with --trend or --export", when=trend or export)
    refuse_typed({"trend"}, "with --export", when=export)
    if runs:
        return _shown([_named(past, name) for name in runs])
    if imported:
        before = past.count()
        past.extend(gather([str(imported)]))
        count = past.count() - before
        said = f"{counted(count, 'record')} imported from {imported}"
        return Output({"imported": count}, lambda: click.echo(said))
    if export:
        from harness.records.table import write_table

        written = write_table(past.records(limit=_ALL, **which), export)
        return Output({"exported": written}, lambda: click.echo(f"{export}: {counted(written, 'run')}"))
    if trend:
        metric = next((each for each in METRICS if each == trend), None)
        if metric is None:
            raise UnknownNameError("metric", trend, METRICS)
        courses = trends(past.records(limit=_ALL, **which), metric)
        return Output(courses, lambda: say(trend_table(metric, courses)))
    entries = past.entries(limit=limit, **which)
    return Output(entries, lambda: _list(past.count(), list(past.records(limit=limit, **which))))


def _named(past: "History", name: str) -> str:
    """A run of the history that is named by the time of day of the list: its own name; any other as it is."""
    if re.fullmatch(r"\d\d:\d\d", name):
        for entry in past.entries(limit=1000):
            if _when(entry.created).endswith(name):
                return entry.run_id
    return name


def _when(created: str) -> str:
    """Local time of a record as people write it; the year only if it is not this one."""
    moment = datetime.fromisoformat(created).astimezone()
    year = ""
    if moment.year != datetime.now().astimezone().year:
        year = f" {moment.year}"
    return f"{moment.day} {moment:%b}{year} {moment:%H:%M}"


def _list(count: int, records: "Sequence[Record]") -> None:
    """The newest runs: when, of what, how fast, and whether all was as predicted."""
    if not records:
        say(
            "No run yet of what was asked for." if count else "No run on this machine yet: edge-harness check"
        )
        return
    newest = _when(records[0].created)
    columns = ("when", "model", "kind", "tokens/s", "━ likely ● run", "memory", "")
    more = "   More: --limit N" * (count > len(records))
    say(
        f"{counted(count, 'run')} on this machine; {newest} is the newest shown.\n",
        table("", columns, map(_row, records), spare=("memory", "kind")),
        f"  One of them: edge-harness history {newest[-5:]}{more}   --trend decode_tokens_per_s",
    )


def _row(record: "Record") -> list[str]:
    from harness.records.possible import impossible
    from harness.show.checked import bar
    from harness.show.record_tables import record_title
    from harness.show.state import State, figures_of

    figures = figures_of(record)
    state = "cannot be" if impossible(record) else record.outcome * (record.outcome != "ok")
    if not state and any(figure.state is State.OUTSIDE for figure in figures.values()):
        state = "OUTSIDE"
    memory = figures["peak memory"].shown if "peak memory" in figures else "–"
    speed = figures["decode"]
    beside = bar(speed) if speed.predicted else ""
    kind = getattr(record.result, "mode", record.workload)
    return [_when(record.created), record_title(record), kind, speed.number, beside, memory, state]


def _shown(names: "Sequence[str]") -> Output:
    """Some runs in full, beside their predictions and each other."""
    from harness.records.compare import compare
    from harness.show.record_tables import comparison_view, difference_view, show_record
    from harness.verbs.results import gather
    from harness.verbs.trend import differences, not_alike

    records = gather(names)
    comparisons = [compare(record) for record in records]
    pairs = list(pairwise(records))
    if len(records) != len(names):  # a folder of runs is no order in which they should be compared
        pairs = []
    unlike = [not_alike(*pair) for pair in pairs]
    document = {
        "records": records,
        "comparisons": comparisons,
        "differences": [differences(*pair) for pair, faults in zip(pairs, unlike, strict=True) if not faults],
        "not_alike": unlike,
    }

    def show() -> None:
        for record, comparison in zip(records, comparisons, strict=True):
            show_record(record)
            say(*comparison_view(record, comparison))
        for (first, second), faults in zip(pairs, unlike, strict=True):
            if faults:
                click.echo(f"{second.run_id} is not comparable with {first.run_id}: {'; '.join(faults)}")
            else:
                say(*difference_view(first, second))

    return Output(document, show)
