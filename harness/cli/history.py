"""``edge-harness history``: every run made here.

Some of them in full, beside their predictions and each other.
"""

import re
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import click
import msgspec
from msgspec import Meta

from harness.cli import _options as options
from harness.cli._command import verb
from harness.cli._output import Answer, say, table
from harness.domain.base import Frozen
from harness.domain.option import Option
from harness.units import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.domain.record import RunRecord
    from harness.records.history import History

_ROWS = 8
"""Runs that a screen shows where nobody says how many."""


class Wanted(Frozen):
    """Which runs are meant; all where nothing is said."""

    model: Annotated[str, Option("--model", "Only runs of this model.", names="models")] = ""
    device: Annotated[str, Option("--device", "Only runs on this device.", names="devices")] = ""
    workload: Annotated[
        str,
        Option(
            "--workload",
            "Only runs of this kind: generate, speculate, stream, quality, load, soak, or a workload.",
        ),
    ] = ""
    outcome: Annotated[
        str, Option("--outcome", "Only runs with this outcome: ok, inconclusive, crashed ...")
    ] = ""


@verb
def history(
    wanted: Wanted,
    runs: Annotated[tuple[str, ...], Option(metavar="[RUN]...")] = (),
    limit: Annotated[
        Annotated[int, Meta(ge=1, le=10**9)] | None,
        Option(
            "--limit",
            "Show at most this many runs, the newest.",
            default=f"{_ROWS}; all with --export or --trend",
        ),
    ] = None,
    imported: Annotated[
        Path | None,
        Option(
            "--import",
            "Add the records of a file or folder: JSON lines of --export (.jsonl), or results that "
            "`report` reads.",
        ),
    ] = None,
    exported: Annotated[
        Path | None,
        Option("--export", "Write the matching records to this file (.jsonl).", endings=(".jsonl",)),
    ] = None,
    trend: Annotated[
        str | None,
        Option(
            "--trend",
            "Show how a metric, such as decode_tokens_per_s, changed over comparable runs.",
            metavar="METRIC",
        ),
    ] = None,
    max_error_percent: options.MaxError = None,
) -> Answer:
    """List past runs with their speeds, newest first.

    Or show each RUN: a file, the start of a run's name, or its time.

    A RUN is shown beside what was predicted before it, and beside the RUN named before it: the ratio of the
    second to the first, with its 95 % interval, where both have the same file, engine, machine and setting.
    --max-error judges decode, prefill and peak memory; load times are only shown.

    With --trend: medians over time, and the last change. With --export: each record as one line of JSON,
    newest first; DuckDB and pandas read it, and so does --import.
    """
    from harness.app.trend import METRICS, trends
    from harness.cli._records import trend_table
    from harness.domain.record import Outcome
    from harness.errors import UnknownNameError
    from harness.measure.pipeline import open_history

    if wanted.outcome not in {"", *get_args(Outcome)}:
        raise UnknownNameError("outcome", wanted.outcome, get_args(Outcome))
    past = open_history()
    if runs:
        return _shown(tuple(_named(past, name) for name in runs), max_error_percent)
    which = msgspec.structs.asdict(wanted)
    if imported:
        from harness.app.results import gather
        from harness.records.store import lines

        before = past.count()
        past.extend(lines(imported) if imported.suffix == ".jsonl" else gather([str(imported)]))
        count = past.count() - before
        return Answer(
            {"imported": count}, lambda: click.echo(f"{counted(count, 'record')} imported from {imported}")
        )
    if exported:
        from harness.records.store import encode

        count = 0
        with exported.open("wb") as file:
            for record in past.records(limit=limit or 2**62, **which):
                file.write(encode(record) + b"\n")
                count += 1
        return Answer(
            {"exported": count}, lambda: click.echo(f"{exported}: {counted(count, 'record')} exported")
        )
    if trend:
        metric = next((each for each in METRICS if each == trend), None)
        if metric is None:
            raise UnknownNameError("metric", trend, METRICS)
        courses = trends(past.records(limit=limit or 2**62, **which), metric)
        return Answer(courses, lambda: say(trend_table(metric, courses)))
    entries = past.entries(limit=limit or _ROWS, **which)
    return Answer(entries, lambda: _list(past.count(), list(past.records(limit=limit or _ROWS, **which))))


def _named(past: "History", name: str) -> str:
    """A run of the history that is named by the time of day of the list: its own name.

    Any other name as it is.
    """
    if not re.fullmatch(r"\d\d:\d\d", name):
        return name
    for entry in past.entries(limit=1000):
        if _when(entry.created).endswith(name):
            return entry.run_id
    return name


def _when(created: str) -> str:
    """Local time of a record as people write it; the year only if it is not this one."""
    moment = datetime.fromisoformat(created).astimezone()
    if moment.year == datetime.now().astimezone().year:
        year = ""
    else:
        year = f" {moment.year}"
    return f"{moment.day} {moment:%b}{year} {moment:%H:%M}"


def _list(count: int, records: "Sequence[RunRecord]") -> None:
    """The newest runs: when, of what, how fast, and whether all was as predicted."""
    if not records:
        click.echo(
            "No run yet of what was asked for." if count else "No run on this machine yet: edge-harness check"
        )
        return
    newest = _when(records[0].created)
    click.echo(f"{counted(count, 'run')} on this machine; {newest} is the newest shown.\n")
    columns = ["when", "model", "kind", "tokens/s", "━ likely ● run", "memory", ""]
    rows = [_row(record) for record in records]
    if not any(row[4] for row in rows):  # nothing was predicted of any
        for line in (columns, *rows):
            del line[4]
    say(table("", columns, rows, spare=("memory", "kind")))
    more = "   More: --limit N"
    if count == len(records):
        more = ""
    click.echo(f"  One of them: edge-harness history {newest[-5:]}{more}   --trend decode_tokens_per_s")


def _row(record: "RunRecord") -> list[str]:
    from harness.cli._records import record_title
    from harness.domain.result import Stream
    from harness.report.checked import bar
    from harness.report.state import State, figures_of

    figures = figures_of(record)
    kind = record.workload
    if isinstance(record.result, Stream):
        kind = record.result.mode
    state = ""
    if record.outcome != "ok":
        state = record.outcome
    elif any(figure.state is State.OUTSIDE for figure in figures.values()):
        state = "OUTSIDE"
    memory = "–"
    if "peak memory" in figures:
        memory = figures["peak memory"].shown
    speed = figures["decode"]
    beside = bar(speed) if speed.predicted else ""
    return [_when(record.created), record_title(record), kind, speed.number, beside, memory, state]


def _shown(names: tuple[str, ...], max_error_percent: float | None) -> Answer:
    """Some runs in full, beside their predictions and each other."""
    from harness.app.check import gate
    from harness.app.results import gather
    from harness.app.trend import differences, not_alike
    from harness.cli._records import comparison_view, difference_view, show_record
    from harness.errors import Exit, RefusedError
    from harness.records.compare import compare

    records = gather(names)
    comparisons = [compare(record) for record in records]
    if max_error_percent is not None and None in comparisons:
        missing = ", ".join(r.run_id for r, c in zip(records, comparisons, strict=True) if c is None)
        raise RefusedError(f"nothing was predicted before {missing}: run edge-harness check")
    broken = gate(comparisons, max_error_percent)
    # A folder of runs is no order in which they should be compared.
    if len(records) == len(names):
        pairs = list(pairwise(records))
    else:
        pairs = []
    alike = [pair for pair in pairs if not not_alike(*pair)]
    document = {
        "records": records,
        "comparisons": comparisons,
        "errors": [{row.name: row.error_ratio for row in c.rows} if c else {} for c in comparisons],
        "differences": [differences(*pair) for pair in alike],
        "not_alike": [not_alike(*pair) for pair in pairs],
    }

    def show() -> None:
        for record, comparison in zip(records, comparisons, strict=True):
            show_record(record)
            say(*comparison_view(record, comparison))
        for pair in pairs:
            if pair in alike:
                say(*difference_view(*pair))
            else:
                click.echo(
                    f"{pair[1].run_id} is not comparable with {pair[0].run_id}: {'; '.join(not_alike(*pair))}"
                )
        say(*broken)

    return Answer(document, show, Exit.BROKEN if broken else Exit.OK)
