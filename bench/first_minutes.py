"""README's first command from nothing, first beside a neighbour that keeps one core busy, then on the quiet machine.

    python -m bench first_minutes                # in this environment: no model, no profile, no history
    python -m bench first_minutes --install      # in a new environment: also pip

Each answer goes to ``reports/output`` with the seconds that it took, and what the profile of the machine says of its
own probe afterwards: a probe that others disturbed is taken again when the machine is quieter.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click

from bench.gate_rates import neighbour
from harness.catalog.devices import load_device

ROOT: Final = Path(__file__).resolve().parents[1]
OUTPUT: Final = ROOT / "reports" / "output"


def installed(folder: Path) -> list[str]:
    """The command of a new environment that has the project, and how long that took, on stderr."""
    began_s = time.perf_counter()
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin" / "pip"), "install", "-q", f"{ROOT}[xllamacpp,report]"], check=True)
    click.echo(f"installed after {time.perf_counter() - began_s:.0f} s", err=True)
    return [str(folder / "bin" / "edge-harness")]


def answer(command: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    """What a command prints in that folder, standard error behind it, with its status and its seconds."""
    began_s = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began_s
    words = " ".join(["edge-harness", *command[-1:]])
    lines = [line.rstrip() for line in f"{done.stdout}{done.stderr}".replace(f"{folder}/", "").splitlines()]
    printed = "\n".join(line for line in lines if line)
    return f"{words}\n{printed}\nexit status {done.returncode} after {seconds:.0f} s\n"


def probe_of(home: Path) -> str:
    """What the profile says of how it was made."""
    path = home / "devices" / "this-machine.toml"
    if not path.is_file():
        return "no profile was kept\n"
    profile = load_device(str(path))
    doubts = "; ".join(profile.doubts) or "none"
    bandwidth_gb_s = profile.pool("ram").bandwidth_bytes_per_s.value / 1e9
    return f"the profile of this machine: {bandwidth_gb_s:.1f} GB/s of memory; its doubts: {doubts}\n"


@click.command()
@click.option("--install", is_flag=True, help="Make a new environment first, beside the same neighbour.")
@click.option(
    "--share", default=1.0, show_default=True, type=click.FloatRange(0, 1), help="Of a core, of the neighbour."
)
def main(install: bool, share: float) -> None:
    """Write both answers to reports/output."""
    OUTPUT.mkdir(exist_ok=True)
    with TemporaryDirectory() as name:
        folder = Path(name)
        home = folder / "home"
        environment = os.environ | {"EDGE_HARNESS_HOME": str(home), "EDGE_HARNESS_CACHE": str(folder / "cache")}
        command = [sys.executable, "-m", "harness"]
        for file, beside in (("first-busy.txt", neighbour(share)), ("first-quiet.txt", nullcontext())):
            with beside:
                if install and file == "first-busy.txt":
                    command = installed(folder / "environment")
                told = answer([*command, "check"], folder, environment) + probe_of(home)
            (OUTPUT / file).write_text(told, encoding="utf-8")
            click.echo(told)


if __name__ == "__main__":
    main()
