"""``edge-harness workloads``: systems that run on a device beside a language model, measured like one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import _options as options
from harness.cli._effect import refuse_typed
from harness.cli._output import Answer, answers, model_file, say, table
from harness.errors import Exit
from harness.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harness.app.workload_table import Table
    from harness.app.workloads import WorkloadResult
    from harness.domain.record import RunRecord


@click.group()
def workloads() -> None:
    """List and run workloads: memory, calibration, reasoning and the like."""


@workloads.command("list")
@answers
def list_() -> Answer:
    """List every workload with its sizes."""
    from harness import plugins
    from harness.app.workloads import load

    found = [load(name) for name in plugins.names("harness.workloads")]
    rows = [[w.name, ", ".join(w.sizes), w.extra or "-", w.title] for w in found]
    told = ("name", "title", "extra", "needs_model", "sizes")
    document = [{name: getattr(workload, name) for name in told} for workload in found]
    return Answer(document, lambda: say(table("", ["workload", "sizes", "extra", "what"], rows)))


_running = options.together(
    click.option("--predict-for", "devices", multiple=True, metavar="DEVICE", help="Also predict for it; repeatable."),
    options.repetitions(30),
    click.option("--threads", "-t", "thread_count", type=options.Count(1, 1024), default=1, show_default=True),
    click.option("--seed", type=options.Count(0, 1 << 31), default=1, show_default=True),
    click.option("--data", type=options.FOLDER_HERE, help="Public sets."),
    click.option("--model", metavar="MODEL", help="Language model: a name, name:quant or file, where one is needed."),
    click.option("--evaluate", is_flag=True, help="Also evaluate quality on the public sets (EDGE_HARNESS_DATA)."),
    options.memory_limit,
    options.measuring(),
)


@workloads.command("run")
@click.argument("name")
@click.option("--size", default="default", show_default=True, help="A named size, or parts such as entry_count=5000.")
@click.option("--cases", type=options.Count(2, all=0), metavar="N|all", help="Cases of each part of the evaluation.")
@_running
def run(name: str, size: str, model: str | None, **fields: Any) -> Answer:
    """Predict and measure workload NAME, and check its answers. The record goes into the history.

    Exit status: 0 well, 1 a wrong answer, 2 bad input, 4 it could not run.
    """
    from harness.app.workloads import load
    from harness.app.workloads import run as run_workload

    workload = load(name)
    only_then = getattr(workload, "evaluates_model", False)
    asks = workload.needs_model or (only_then and fields["evaluate"])
    lacking = " without --evaluate" if only_then else ", which runs no model"
    refuse_typed({"model"}, f"with {name}{lacking}", when=not asks)
    result = run_workload(name, size=size, model=model_file(model) if model else None, **fields)
    return Answer(result, lambda: _show(result), _status([result.record]))


@workloads.command("table")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option(
    "--size", default="default", show_default=True, help="A named size; those that lack it run their default."
)
@click.option("--table", "output", type=options.Ending(".md", ".json"), help="Write the table as .md or .json too.")
@click.option("--max-error", "max_error_percent", type=options.Amount(), help="Exit 1 above this median, in percent.")
@_running
def table_(
    names: tuple[str, ...],
    size: str,
    model: str | None,
    output: Path | None,
    max_error_percent: float | None,
    **fields: Any,
) -> Answer:
    """Run all workloads (or those named): percentiles, memory, predictions here and for five devices.

    Exit status: 0 well, 1 a wrong answer or a median error above --max-error, 2 bad input, 4 one could not run.
    """
    from harness.app.workload_table import markdown, tabulate
    from harness.records.store import write_document

    found = tabulate(names, size=size, model=model_file(model) if model else None, **fields)
    if output is not None:
        write_document(output, found, lambda: markdown(found))
    most, error = max_error_percent, found.median_error_ratio
    broken = most is not None and error is not None and 100 * error > most
    return Answer(found, lambda: show_table(found), Exit.BROKEN if broken else _status(found.failed))


def show_table(found: "Table") -> None:
    """Print the table of all workloads."""
    from harness.app.workload_table import notes, views

    tables = [table(title, columns, rows, right=right) for title, columns, rows, right in views(found)]
    say(*tables, *notes(found))


def _status(records: "Iterable[RunRecord]") -> int:
    bad = [r for r in records if r.outcome != "ok"]
    if not bad:
        return Exit.OK
    if any(r.outcome == "interrupted" for r in bad):
        return 130
    return Exit.BROKEN if any("WrongAnswerError" in r.detail for r in bad) else Exit.COULD_NOT_RUN


def _show(result: "WorkloadResult") -> None:
    from harness.app.workload_table import cells, rows_of
    from harness.domain.result import System
    from harness.report.workloads import better, flat, named

    record = result.record
    operations = [[*cells(row), f"{row.sample_count} ({row.doubted_count})"] for row in rows_of(result)]
    system = record.result
    assert isinstance(system, System)
    title = f"{record.workload} {system.size}: {record.outcome}"
    columns = ["operation", "p50", "p95", "predicted", "error", "limit", "samples (doubted)"]
    say(table(title, columns, operations, right=range(1, 5)))
    if record.memory:
        memory = record.memory
        predicted = format_bytes(result.predicted_peak_bytes)
        held = f"{format_bytes(memory.peak_anonymous_bytes)} anonymous, {format_bytes(memory.peak_file_bytes)} file"
        say(f"peak {format_bytes(memory.peak_rss_bytes)} ({held}), predicted {predicted}")
    told = flat("", {"quality": system.quality, "evaluation": system.evaluation})
    if told:
        checks = "failed" if "WrongAnswerError" in record.detail else "passed"
        figures = [(named(key), value, better(key)) for key, value in told]
        say(f"its own checks of the answers {checks}", table("", ("figure", "value", "better"), figures, right=(1,)))
    for device, predictions in result.elsewhere.items():
        lines = [
            [p.operation, format_seconds(p.latency_s.mid), format_bytes(p.resident_bytes), p.limit] for p in predictions
        ]
        say(table(f"predicted on {device}", ["operation", "latency", "memory", "limit"], lines, right=(1, 2)))
    if record.detail:
        say(record.detail)
