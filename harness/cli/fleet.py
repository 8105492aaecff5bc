"""``edge-harness fleet``: measure on many devices at once, by Dask distributed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
from msgspec import Meta

from harness.cli._command import Verbs
from harness.cli._output import Answer, say
from harness.domain.option import Option
from harness.units import counted

if TYPE_CHECKING:
    from harness.domain.record import RunRecord


Scheduler = Annotated[
    str,
    Meta(description="Address of the scheduler: tcp://host:8786, or tls://."),
    Option("--scheduler"),
]
Tls = Annotated[
    Path | None,
    Meta(description="Key file of the fleet, the same on every machine; `fleet up` makes it."),
    Option("--tls", path="file"),
]


@click.group(cls=Verbs)
def fleet() -> None:
    """Measure a matrix of runs on many devices."""


@fleet.command()
def run(
    matrix: Annotated[Path, Option(metavar="MATRIX.toml", path="file")],
    scheduler: Scheduler,
    folder: Annotated[
        Path,
        Meta(description="Folder for the results."),
        Option("--out -o", "Output", path="folder"),
    ] = Path("fleet-results"),
    resume: Annotated[
        bool,
        Meta(description="Keep the results that are already in --out, and measure only the rest."),
        Option("--resume", "Measuring"),
    ] = False,
    tls: Tls = None,
) -> Answer:
    """Measure every cell of a matrix on the connected devices.

    Each result is saved in --out as it comes in, including that of a cell that could not run.

    Exit status: 0 all well, 3 some inconclusive, 4 some could not run; the others are run all the same.
    """
    from harness.app.run import exit_of
    from harness.cli._progress import RunProgress
    from harness.cli._records import reasons, run_table
    from harness.fleet.matrix import load_matrix, tasks_of
    from harness.fleet.run import run_fleet

    tasks = tasks_of(load_matrix(matrix))
    with RunProgress() as progress:

        def told(task: Any, record: "RunRecord") -> None:
            progress.say(f"{task.device}: {task.model}: {record.outcome}")
            progress.step()

        progress.begin(counted(len(tasks), "cell"), len(tasks))
        records = run_fleet(
            tasks, scheduler, folder=folder, tls=tls, resume=resume, on_result=told, say=progress.say
        )

    def show() -> None:
        for device in dict.fromkeys(record.machine.device for record in records):
            mine = [record for record in records if record.machine.device == device]
            say(device, run_table(mine), *reasons(mine))
        hint = f"make a page of them with: edge-harness report {folder} -o report.html"
        click.echo(f"{counted(len(records), 'result')} in {folder}; {hint}", err=True)

    return Answer(records, show, exit_of(records))


@fleet.command()
def up(
    host: Annotated[str, Meta(description="Address to listen on."), Option("--host")] = "127.0.0.1",
    port: Annotated[int, Meta(ge=0, le=65_535, description="Port to listen on."), Option("--port")] = 8786,
    device_wait_s: Annotated[
        float,
        Meta(gt=0, le=1e9, description="Seconds that a cell waits for a device that is not connected."),
        Option("--device-wait"),
    ] = 60.0,
    tls: Tls = None,
) -> None:
    """Start the scheduler; Ctrl-C ends it.

    Whoever can reach a scheduler can run code on it, so listening beyond this machine requires --tls. If that
    file does not exist, a key is made: copy it to every machine of the fleet. Whoever has it can run code on
    all of them.
    """
    from harness.fleet.net import up as serve

    serve(host, port, tls, device_wait_s, said=click.echo)


@fleet.command()
def worker(
    scheduler: Scheduler,
    device: Annotated[
        str, Meta(description="Name of this device, as the matrix has it."), Option("--device")
    ],
    tls: Tls = None,
) -> None:
    """Join the fleet with this machine, as the device of that name.

    It measures what the scheduler sends, one cell at a time, until the scheduler ends.
    """
    from harness.fleet.net import serve_device

    serve_device(scheduler, device, tls, said=click.echo)
