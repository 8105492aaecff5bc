"""``edge-harness fleet``: measure on many devices at once, by Dask distributed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli._command import Verbs
from harness.cli._output import Answer, say
from harness.units import counted

if TYPE_CHECKING:
    from harness.domain.record import RunRecord


@click.group(cls=Verbs)
def fleet() -> None:
    """Measure a matrix of runs on many devices."""


@fleet.command()
def run(matrix: Path, scheduler: str, folder: Path, **asked: Any) -> Answer:
    """Measure every cell of a matrix on the connected devices.

    Each result is saved in --out as it comes in, including that of a cell that could not run.

    Exit status: 0 all well, 3 some inconclusive, 4 some could not run; the others are run all the same.
    """
    from harness.app.run import exit_of
    from harness.cli._progress import RunProgress
    from harness.cli._records import comparison_view, reasons, run_table
    from harness.fleet.matrix import load_matrix, tasks_of
    from harness.fleet.run import run_fleet
    from harness.records.compare import compare

    tasks = tasks_of(load_matrix(matrix))
    with RunProgress() as progress:

        def told(task: Any, record: "RunRecord") -> None:
            progress.say(f"{task.device}: {task.model}: {record.outcome}")
            progress.step()

        progress.begin(counted(len(tasks), "cell"), len(tasks))
        records = run_fleet(tasks, scheduler, folder=folder, on_result=told, say=progress.say, **asked)

    def show() -> None:
        for device in dict.fromkeys(record.machine.device for record in records):
            mine = [record for record in records if record.machine.device == device]
            compared = [part for record in mine for part in comparison_view(record, compare(record))]
            say(device, run_table(mine), *compared, *reasons(mine))
        hint = f"make a page of them with: edge-harness report {folder} -o report.html"
        click.echo(f"{counted(len(records), 'result')} in {folder}; {hint}", err=True)

    return Answer(records, show, exit_of(records))


@fleet.command()
def up(host: str, port: int, device_wait_s: float, tls: Path | None) -> None:
    """Start the scheduler; Ctrl-C ends it.

    Whoever can reach a scheduler can run code on it, so listening beyond this machine requires --tls. If that file does
    not exist, a key is made: copy it to every machine of the fleet. Whoever has it can run code on all of them.
    """
    from harness.fleet.net import up as serve

    serve(host, port, tls, device_wait_s, said=click.echo)


@fleet.command()
def worker(scheduler: str, device: str, host: str, tls: Path | None) -> None:
    """Join the fleet with this machine, as the device of that name.

    It measures what the scheduler sends, one cell at a time, until the scheduler ends.
    """
    from harness.fleet.net import serve_device

    serve_device(scheduler, device, tls, host=host, said=click.echo)
