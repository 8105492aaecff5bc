"""``edge-harness check``: probe, predict, run, compare; what a new user types first."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import _options as options
from harness.cli._output import console, emit_json
from harness.errors import Exit

if TYPE_CHECKING:
    from harness.measure.pipeline import How


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL...]")
@options.quant
@options.context()
@options.prompt()
@options.tokens(64)
@options.depths
@options.threads
@options.api
@options.placement
@options.repetitions()
@options.memory_limit
@click.option("--probe", "probe_again", is_flag=True, help="Measure this machine again.")
@click.option("--max-error", "max_error_percent", type=options.Amount(), help="Exit 1 above this error, in percent.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Report: .html, .md, or .json for records.",
)
@click.option("--with-workloads", is_flag=True, help="Also run every workload, with this model where one is needed.")
@options.on_target
@options.measuring()
def check(
    models: tuple[str, ...],
    quant: str,
    depths: tuple[int, ...],
    repetitions: int,
    probe_again: bool,
    max_error_percent: float | None,
    report: Path | None,
    memory_bytes: int | None,
    timeout_s: float,
    how: "How",
    with_workloads: bool,
    target: str,
    programs: Path | None,
    as_json: bool,
    **fields: Any,
) -> int:
    """Check what this machine does with each MODEL against what was predicted; without one, a small default model.

    Exit status: 0 it ran, 1 an error above --max-error (decode, prefill, peak memory), 3 inconclusive, 4 could not run.
    """
    from harness.app.check import check as run_check
    from harness.app.check import gate, write_report
    from harness.app.resolve import scenario_from
    from harness.app.run import Options, exit_of
    from harness.cli._progress import RunProgress
    from harness.cli._records import comparison_table, reasons, run_table, title_of
    from harness.measure.child import Limits
    from harness.report import write_check_report

    limits = Limits(wall_s=timeout_s, memory_bytes=memory_bytes)
    chosen = Options(repetitions=repetitions, limits=limits, how=how)
    with RunProgress() as progress:
        found = run_check(
            models,
            quant,
            scenario_from(fields),
            chosen,
            listener=progress,
            probe_again=probe_again,
            depths=depths,
            on=(target, programs),
        )
    page = report if report is not None and report.suffix.lower() in {".html", ".htm"} else None
    if page is not None:
        write_check_report(found.records, page)
    written = page or write_report(found, report)
    status = exit_of(found.records)
    others, reports = None, [written]
    if with_workloads:
        from harness.app.workload_table import after_check

        screen, records = console(stderr=True), list(found.records)
        others, told = after_check(
            models, quant, chosen, written, say=lambda line: screen.print(line, markup=False), keep=records.append
        )
        reports.append(told)
        if page is not None:
            write_check_report(records, page)
        status = max(status, Exit.COULD_NOT_RUN) if others.failed else status
    broken = gate(found.comparisons, max_error_percent) if status == Exit.OK else []
    if as_json:
        document = {"device": found.device, "records": found.records, "comparisons": found.comparisons}
        emit_json(document | {"broken": broken} | ({"workloads": others} if others is not None else {}))
        return Exit.BROKEN if broken else status
    from harness.report.answer import check_line

    for record, comparison in zip(found.records, found.comparisons, strict=True):
        click.echo(check_line(record, comparison))
    screen = console()
    for record, comparison in zip(found.records, found.comparisons, strict=True):
        if comparison is not None:
            screen.print(comparison_table(comparison, title_of(record)))
            for note in comparison.notes:
                screen.print(note, markup=False)
    screen.print(run_table(found.records))
    if others is not None:
        from harness.cli.workloads import show_table

        show_table(others)
    for line in (*reasons(found.records), *broken, *(f"report: {path}" for path in dict.fromkeys(reports))):
        screen.print(line, markup=False)
    if status == Exit.OK:
        click.echo(
            "Next: `edge-harness fit MODEL` predicts any model here; `edge-harness gate init` makes budgets of this."
        )
    else:
        click.echo("Next: `edge-harness doctor` says what disturbs this machine or is missing on it.")
    return Exit.BROKEN if broken else status


COMMAND = check
