"""The main job on machines that this one is told to be: other caches and cores, limits of memory and of CPU time.

    python -m bench any_machine                  # reports/check/any-machine.json; some ten minutes

Each case is ``edge-harness check`` of the default model in a process of its own with a home and a cache of its own, so
that it probes, times the engine, predicts and measures. What the system tells is replaced in that process;
limits are those of control groups (as root) and of affinity, so that they are real. A case ends with what
was predicted and measured, or with the sentence that says why not.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click

from bench._kept import REPORTS, keep
from bench.soak_cut import Quota
from harness.core.errors import CouldNotRunError
from harness.core.paths import cache_dir
from harness.measure.cgroup import LimitGroup

RECORD: Final = REPORTS / "check" / "any-machine.json"
Join = Callable[[], object]
"""Puts the calling process under a limit."""
Limit = Callable[[], AbstractContextManager[Join]]
_TOLD: Final = """
import sys
from harness import cpus
from harness.measure import machine
exec(sys.argv.pop(1))
from harness.cli import main
main()
"""


@contextmanager
def memory(limit_bytes: int) -> Iterator[Join]:
    """A control group with that limit; what is given makes the calling process a member (CouldNotRunError: none)."""
    group = LimitGroup.make(limit_bytes)
    if group is None:
        raise CouldNotRunError("no control group can be made here")
    try:
        yield lambda: group.add(os.getpid())
    finally:
        group.remove()


@contextmanager
def quota(microseconds: int) -> Iterator[Join]:
    """So much CPU time of each tenth of a second, for this process and those that it starts."""
    with Quota() as held:
        held.cut(microseconds)
        yield lambda: None


@contextmanager
def affinity(*cpus: int) -> Iterator[Join]:
    """What is given holds the calling process to those CPUs."""
    yield lambda: os.sched_setaffinity(0, cpus)


@contextmanager
def free() -> Iterator[Join]:
    """No limit."""
    yield lambda: None


_CACHE: Final = "machine.Cpu.last_cache_bytes = property(lambda _self: {} << 20)"
_UNLIKE: Final = "cpus._kinds = lambda _speeds: (cpus.CoreKind(1.0, (0,)), cpus.CoreKind(0.6, (1,)))"
CASES: Final[dict[str, tuple[str, Limit]]] = {
    "as it is": ("", free),
    **{f"cache of {mib} MiB told": (_CACHE.format(mib), free) for mib in (4, 32, 96, 260, 1024)},
    "memory of 600 MB": ("", partial(memory, 600_000_000)),
    "memory of 1 GB": ("", partial(memory, 1_000_000_000)),
    "one core": ("", partial(affinity, 0)),
    "two kinds of core told": (_UNLIKE, free),
    "quota of 0.5": ("", partial(quota, 50_000)),
    "quota of 1.5": ("", partial(quota, 150_000)),
}
"""By name: what the process is told beforehand, and its limit."""


def case(told: str, limit: Limit, model: str) -> list[str]:
    """One check: its seconds, what bounded the tiny models, how it ended, and its errors."""
    with TemporaryDirectory() as folder, limit() as join:
        home = Path(folder)
        (home / "cache").mkdir()
        (home / "cache" / "models").symlink_to(cache_dir() / "models")
        environment = {**os.environ, "EDGE_HARNESS_HOME": str(home), "EDGE_HARNESS_CACHE": str(home / "cache")}
        command = [sys.executable, "-c", _TOLD, told, "check", model, "--json"]
        began_s = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, preexec_fn=join)
        seconds = time.perf_counter() - began_s
    return [f"{seconds:.0f}", *answer(done.stdout, done.stderr)]


def answer(printed: str, said: str) -> list[str]:
    """What the document of a check says, or the last sentence that it said in place of one."""
    try:
        document = json.loads(printed)
    except ValueError:
        return ["-", (said.strip().splitlines() or ["nothing said"])[-1], "-", "-"]
    timed = re.search(r"tiny models of .+? \((.+?)\)", said)
    (record,), (comparison,) = document["records"], document["comparisons"]
    rows = {row["name"]: row for row in (comparison or {"rows": ()})["rows"] if row["measured"]}
    shown = [
        f"{rows[name]['predicted'] / rows[name]['measured'] - 1:+.0%}" if name in rows else "-"
        for name in ("decode", "prefill")
    ]
    return [timed[1] if timed else "-", record["outcome"], *shown]


@click.command()
@click.option("--model", default="smollm2-135m", show_default=True)
@click.option("--only", help="Part of the names of the cases to run; the others stay.")
def main(model: str, only: str | None) -> None:
    """Run the cases and write their table."""
    columns = ["told or limited", "seconds", "bound", "ended", "decode", "prefill"]
    rows = {row[0]: row for row in (json.loads(RECORD.read_text())["rows"] if RECORD.exists() else ())}
    for name, (told, limit) in CASES.items():
        if only is None or only in name:
            rows[name] = [name, *case(told, limit, model)]
            listed = [rows[each] for each in CASES if each in rows]
            keep("check/any-machine.json", columns, listed, "python -m bench any_machine")


if __name__ == "__main__":
    main()
