"""``edge-harness fleet``: measure on many devices at once, by Dask distributed."""

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import _options as options
from harness.cli._command import Verbs
from harness.cli._output import Answer, answers, console, say

if TYPE_CHECKING:
    from harness.domain.record import RunRecord
    from harness.fleet.net import Tls


def tls_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The three files of Dask's TLS settings; the command gets them as its ``tls``."""

    @wraps(function)
    def secured(*arguments: Any, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None, **given: Any) -> Any:
        from harness.fleet.net import Tls

        return function(*arguments, tls=Tls(tls_ca, tls_cert, tls_key), **given)

    for name, words in (
        ("key", "Private key of this machine."),
        ("cert", "Certificate of this machine."),
        ("ca", "Certificate of the authority that both sides trust."),
    ):
        secured = click.option(f"--tls-{name}", type=options.FILE, help=words)(secured)
    return secured


@click.group(cls=Verbs)
def fleet() -> None:
    """Measure a matrix of runs on many devices."""


@fleet.command("run")
@click.argument("matrix", type=options.FILE, metavar="MATRIX.toml")
@click.option("--scheduler", required=True, help="Address of the scheduler: tcp://host:8786, or tls://.")
@click.option(
    "--out",
    "-o",
    "folder",
    type=options.FOLDER,
    default=Path("fleet-results"),
    show_default=True,
    help="Folder for the results.",
)
@click.option("--resume", is_flag=True, help="Keep the results that are already in --out, and measure the rest.")
@click.option(
    "--device-wait", "device_wait_s", type=options.Amount(or_zero=True), default=60.0, show_default=True,
    help="Seconds to wait for a device that is absent.",
)  # fmt: skip
@tls_options
@answers
def run(matrix: Path, scheduler: str, folder: Path, **asked: Any) -> Answer:
    """Measure every cell of a matrix on the connected devices.

    Each result is saved in --out as it comes in; summary.json there says what became of each cell.

    Exit status: 0 all well, 3 some inconclusive, 4 some could not run; the others are run all the same.
    """
    from harness.app.run import exit_of
    from harness.cli._records import comparison_table, reasons, record_title, run_table
    from harness.fleet.matrix import load_matrix, tasks_of
    from harness.fleet.run import run_fleet
    from harness.records.compare import compare

    tasks = tasks_of(load_matrix(matrix))
    progress = console(stderr=True)

    def told(task: Any, record: "RunRecord") -> None:
        progress.print(f"{task.device}: {task.model}: {record.outcome}", markup=False)

    tell = partial(progress.print, markup=False)
    records = run_fleet(tasks, scheduler, folder=folder, on_result=told, say=tell, **asked)

    def show() -> None:
        for device in dict.fromkeys(record.machine.device for record in records):
            mine = [record for record in records if record.machine.device == device]
            tables = [comparison_table(c, record_title(r)) for r in mine if (c := compare(r)) is not None]
            say(device, run_table(mine), *tables, *reasons(mine))
        hint = f"make a page of them with: edge-harness report {folder} -o report.html"
        click.echo(f"{len(records)} results in {folder}; {hint}", err=True)

    return Answer(records, show, exit_of(records))


@fleet.command()
@click.option(
    "--local",
    "local_count",
    type=click.IntRange(0, 64),
    default=0,
    help="Number of workers to start on this machine, to try it out.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8786, show_default=True, help="Port to listen on.")
@tls_options
def up(local_count: int, host: str, port: int, tls: "Tls") -> None:
    """Start the scheduler; Ctrl-C ends it.

    Whoever can reach a scheduler can run code on it, so beyond this machine it requires TLS. Local workers are called
    local-1, local-2 ...; they share this machine and measure in turn.
    """
    from harness.fleet.net import up as serve

    serve(host, port, local_count, tls, said=click.echo)


@fleet.command()
@click.option("--scheduler", required=True, help="Address of the scheduler: tcp://host:8786, or tls://.")
@click.option("--device", required=True, help="Name of this device in the matrix.")
@click.option("--host", default="", help="Address of this device that the scheduler can reach.")
@tls_options
def worker(scheduler: str, device: str, host: str, tls: "Tls") -> None:
    """Make this machine a device of the fleet.

    It measures what the scheduler sends, one cell at a time, until the scheduler ends.
    """
    from harness.fleet.net import serve_device

    serve_device(scheduler, device, tls, host=host, said=click.echo)


@fleet.command()
@click.argument("machines", nargs=-1, required=True, metavar="MACHINE...")
@click.option("--host", "hosts", multiple=True, help="Host name or address of the machines; may be repeated.")
@click.option(
    "--out", "-o", type=options.FOLDER, default=Path("fleet-certs"), show_default=True, help="Folder for the files."
)
def certs(machines: tuple[str, ...], hosts: tuple[str, ...], out: Path) -> None:
    """Make a certificate and a key for each machine.

    All are signed by an authority of the fleet's own.

    Give each machine ca.pem, its NAME.pem and its NAME-key.pem; ca-key.pem signs new machines and stays with you.
    """
    from harness.fleet.certs import make_certificates

    for path in make_certificates(out, machines, hosts):
        key = path.with_name(f"{path.stem}-key.pem")
        click.echo(f"{path.stem}: --tls-ca {out / 'ca.pem'} --tls-cert {path} --tls-key {key}")
