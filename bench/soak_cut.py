"""A soak whose CPU quota is cut in mid-run: the knee and the level that were found, beside the truth.

    python -m bench soak_cut MODEL.gguf --minutes 10 --cut-at 4 [--no-cut] [-- OPTIONS OF SOAK]

The command `edge-harness soak` runs in a control group of its own, whose quota is lowered to ``--share`` of one CPU
``--cut-at`` minutes after the first window began. The true level is that share over the CPUs that its processes used
until then. It ends with 1 when the knee is more than a window from the cut, or the level more than 3 % of the burst
from the truth; with --no-cut, when any knee is found.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import psutil

from harness.core.errors import CouldNotRunError, Exit

PERIOD_US: Final = 100_000
_LEVEL_ERROR: Final = 0.03


class Quota:
    """A CPU quota on this process and its children, by a control group of version 1 or 2.

    Raises:
        CouldNotRunError: On entering: no control group can be made.
    """

    def __init__(self) -> None:
        one, two = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
        base = one if one.is_dir() else two
        self.folder, self.old = base / f"edge-harness-soak-{os.getpid()}", base
        self.limit = "cpu.cfs_quota_us" if base == one else "cpu.max"

    def __enter__(self) -> "Quota":
        try:
            self.folder.mkdir()
            (self.folder / "cgroup.procs").write_text(str(os.getpid()))
            self.cut(2 * PERIOD_US)
        except OSError as error:
            self.__exit__()
            raise CouldNotRunError(f"no control group can be made here: {error}") from error
        return self

    def cut(self, microseconds: int) -> None:
        """CPU time of each tenth of a second from now on."""
        (self.folder / self.limit).write_text(
            str(microseconds) if "cfs" in self.limit else f"{microseconds} {PERIOD_US}"
        )

    def __exit__(self, *_: object) -> None:
        if self.folder.is_dir():
            (self.old / "cgroup.procs").write_text(str(os.getpid()))
            time.sleep(0.1)
            self.folder.rmdir()


class Cut(NamedTuple):
    """When the quota was cut, in seconds since the first window began, and how many CPUs were used until then."""

    at_s: float
    used_cpus: float


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process and all that it started."""
    return sum(sum(p.cpu_times()[:2]) for p in (process, *process.children(recursive=True)))


def soaked(words: list[str], cut_s: float | None, window_s: float, quota_us: int) -> tuple[dict[str, Any], Cut | None]:
    """The soak's record, and the cut."""
    cuts: list[Cut] = []
    # A file, not a pipe: the document is longer than a pipe holds, and nobody reads it before the windows end.
    with Quota() as quota, tempfile.TemporaryFile("w+") as document:
        command = [sys.executable, "-m", "harness", "soak", *words, "--json"]
        process = subprocess.Popen(command, stdout=document, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        began_s = seen_s = used_s = 0.0
        watched = psutil.Process()  # the soak and its child are below this one, and pay from the quota

        def cut() -> None:
            used_cpus = (cpu_s(watched) - used_s) / (time.monotonic() - seen_s)
            quota.cut(quota_us)
            cuts.append(Cut(time.monotonic() - began_s, used_cpus))

        for line in process.stderr:
            click.echo(line, err=True, nl=False)
            if not began_s and line.rstrip().endswith("tokens/s"):  # the first window is told at its end
                seen_s, used_s = time.monotonic(), cpu_s(watched)
                began_s = seen_s - window_s
                if cut_s is not None:
                    timer = threading.Timer(cut_s - window_s, cut)
                    timer.daemon = True  # a soak that ended before does not wait for it
                    timer.start()
        if process.wait() != Exit.OK:
            raise CouldNotRunError(f"edge-harness soak ended with status {process.returncode}")
        document.seek(0)
        return json.load(document), cuts[0] if cuts else None


@click.command()
@click.argument("model")
@click.option("--minutes", default=10.0, show_default=True)
@click.option("--cut-at", "cut_minutes", default=4.0, show_default=True, help="Minutes.")
@click.option("--share", default=0.3, show_default=True, help="Of one CPU, after the cut.")
@click.option("--no-cut", is_flag=True)
@click.argument("others", nargs=-1, type=click.UNPROCESSED)
def main(
    model: str,
    minutes: float,
    cut_minutes: float,
    share: float,
    no_cut: bool,
    others: tuple[str, ...],
) -> None:
    """Run it, print what was found beside the truth."""
    if not no_cut and cut_minutes >= minutes:
        raise click.UsageError(f"--cut-at {cut_minutes:g} is not before the end at --minutes {minutes:g}")
    window_s = 5.0  # as `soak` has them
    words = ["--minutes", f"{minutes:g}", model, "-t", "1", *others]
    cut_s = None if no_cut else 60 * cut_minutes
    record, cut = soaked(words, cut_s, window_s, round(share * PERIOD_US))
    found = record["result"]
    level = found["sustained_tokens_per_s"] / found["burst_tokens_per_s"]
    knee_s = found["knee_s"]
    told = "none" if knee_s is None else f"{knee_s:.1f} s"
    if cut is None:
        click.echo(f"no cut: knee {told}, level {level:.3f} of the burst, {len(found['windows'])} windows")
        sys.exit(Exit.OK if knee_s is None else Exit.BROKEN)
    true_level = share / cut.used_cpus
    click.echo(f"knee: found {told}, cut at {cut.at_s:.1f} s, windows of {window_s:g} s")
    click.echo(f"level: found {level:.3f} of the burst, true {true_level:.3f} ({share:g} of {cut.used_cpus:.2f} CPUs)")
    well = knee_s is not None and abs(knee_s - cut.at_s) <= window_s and abs(level - true_level) <= _LEVEL_ERROR
    sys.exit(Exit.OK if well else Exit.BROKEN)


if __name__ == "__main__":
    main()
