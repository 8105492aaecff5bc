"""``edge-harness check``: probe, predict, run, compare; what a new user types first."""

from pathlib import Path

import click

from harness.cli._output import console, emit_json, json_option
from harness.cli._sizes import numbers
from harness.errors import Exit


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL...]")
@click.option("--quant", "-q", default="", help="Mixture; the card's usual one unless given.")
@click.option("--context", "-c", "context_tokens", type=click.IntRange(1), default=4096, show_default=True)
@click.option("--prompt", "-p", "prompt_tokens", type=click.IntRange(1), default=512, show_default=True)
@click.option("--new", "-n", "new_tokens", type=click.IntRange(1), default=64, show_default=True)
@click.option(
    "--depth", "depths", default="0", callback=numbers, help="Tokens already in the cache; or several: 0,2048."
)
@click.option("--threads", "-t", "thread_count", type=click.IntRange(0), default=0, help="0: physical cores.")
@click.option("--repetitions", "-r", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option("--probe", "probe_again", is_flag=True, help="Measure this machine again.")
@click.option("--max-error", "max_error_percent", type=click.FloatRange(0), help="Exit 1 above this error, in percent.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Report: .html, .md, or .json for records.",
)
@click.option("--with-workloads", is_flag=True, help="Also run every workload, with this model where one is needed.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=1800.0, show_default=True)
@click.option("--wait/--no-wait", default=True, help="Wait for another measured run on this machine.")
@click.option("--on", "target", default="local", help="Another device: ssh://user@host, adb:// or adb://SERIAL.")
@click.option("--programs", type=click.Path(file_okay=False, path_type=Path), help="Folder with llama-bench for --on.")
@json_option
def check(
    models: tuple[str, ...],
    quant: str,
    depths: tuple[int, ...],
    repetitions: int,
    probe_again: bool,
    max_error_percent: float | None,
    report: Path | None,
    timeout_s: float,
    wait: bool,
    with_workloads: bool,
    target: str,
    programs: Path | None,
    as_json: bool,
    **fields: int,
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

    options = Options(repetitions=repetitions, limits=Limits(wall_s=timeout_s), wait=wait)
    with RunProgress() as progress:
        found = run_check(
            models,
            quant,
            scenario_from(fields),
            options,
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
            models, quant, options, written, say=lambda line: screen.print(line, markup=False), keep=records.append
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
    out = console()
    for record, comparison in zip(found.records, found.comparisons, strict=True):
        if comparison is not None:
            out.print(comparison_table(comparison, title_of(record)))
            for note in comparison.notes:
                out.print(note, markup=False)
    out.print(run_table(found.records))
    if others is not None:
        from harness.cli.workloads import show_table

        show_table(others)
    for line in (*reasons(found.records), *broken, *(f"report: {path}" for path in dict.fromkeys(reports))):
        out.print(line, markup=False)
    return Exit.BROKEN if broken else status


COMMAND = check
