"""Throw damaged files at the readers and watch time and memory.

    python -m tests.fuzzing all --cases 2000
    python -m tests.fuzzing gguf --cases 20000 --seconds 60
    python -m tests.fuzzing shown-gguf computed-gguf     # what is printed of a file, and computed from its shape

Cases are small valid files that are damaged, and plain random bytes (see ``fuzz_cases``, and ``fuzz_shown`` for words
and numbers). Anything but a value or
``BadDataError`` is a failure, as is a case over the limits.
"""

import json
import os
import random
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import click
import psutil

from harness.core.errors import BadDataError, Exit
from harness.core.units import MIB
from tests.fuzzing.cases import TARGETS as READ
from tests.fuzzing.cases import Target
from tests.fuzzing.shown import TARGETS as SHOWN

TARGETS: Final = {**READ, **SHOWN}
TIME_LIMIT_S: Final = 2.0
"""A case that takes longer counts as a hang."""
MEMORY_LIMIT_BYTES: Final = 64 * MIB


class Summary(NamedTuple):
    """What a fuzz run found."""

    target: str
    cases: int
    seconds: float
    read: int
    refused: int
    slowest_case_s: float
    hangs: int
    python_peak_bytes: int
    resident_growth_bytes: int
    failures: list[str]


def run(target: Target, *, cases: int, seed: int, seconds: float = float("inf")) -> Summary:
    """Read ``cases`` damaged files, or as many as fit into ``seconds``.

    Memory is the peak of Python's own allocations in a case (tracemalloc) and the growth of the process over all.
    """
    draw, failures = random.Random(seed), list[str]()
    count, done, refused, hangs, slowest, peak = 0, 0, 0, 0, 0.0, 0
    process = psutil.Process(os.getpid())
    with tempfile.TemporaryDirectory() as folder:
        seeds = target.seeds(Path(folder))
        path = Path(folder) / f"case{target.ending}"
        path.write_bytes(seeds[0])
        with suppress(BadDataError):
            target.read(path)  # once beforehand: what is imported on the way is no case's
        tracemalloc.start()
        resident, begin = process.memory_info().rss, time.perf_counter()
        while count < cases and time.perf_counter() - begin < seconds:
            path.write_bytes(target.mutate(draw.choice(seeds), draw))
            tracemalloc.reset_peak()
            held, start = tracemalloc.get_traced_memory()[0], time.process_time()  # others on the machine do not count
            try:
                target.read(path)
                done += 1
            except BadDataError:
                refused += 1
            except Exception as error:
                failures.append(f"case {count} (seed {seed}): {type(error).__name__}: {str(error)[:200]}")
            took = time.process_time() - start
            used = tracemalloc.get_traced_memory()[1] - held
            slowest, peak, hangs = max(slowest, took), max(peak, used), hangs + (took > TIME_LIMIT_S)
            if took > TIME_LIMIT_S or used > MEMORY_LIMIT_BYTES:
                failures.append(f"case {count} (seed {seed}): {took:.2f} s, {used} bytes")
            count += 1
        total_s = time.perf_counter() - begin
        grown = process.memory_info().rss - resident
        tracemalloc.stop()
    return Summary(target.name, count, total_s, done, refused, slowest, hangs, peak, grown, failures)


@click.command()
@click.argument("targets", nargs=-1, required=True, type=click.Choice([*TARGETS, "all"]))
@click.option("--cases", default=20_000, show_default=True, type=click.IntRange(1), help="Files for each reader.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="Longest time for each reader.")
@click.option("--seed", default=0, show_default=True, type=int)
@click.option("--json", "as_json", is_flag=True)
def main(targets: Sequence[str], cases: int, seconds: float | None, seed: int, as_json: bool) -> None:
    """Fuzz the readers of foreign files; exit 1 when one fails."""
    names = list(TARGETS) if "all" in targets else list(dict.fromkeys(targets))
    summaries = []
    for name in names:
        summary = run(TARGETS[name], cases=cases, seed=seed, seconds=seconds or float("inf"))
        summaries.append(summary)
        if as_json:
            continue
        click.echo(
            f"{name}: {summary.cases} cases in {summary.seconds:.1f} s: {summary.read} read, {summary.refused} "
            f"refused, {len(summary.failures)} failed, {summary.hangs} hung; "
            f"slowest {1e3 * summary.slowest_case_s:.1f} ms, "
            f"peak {summary.python_peak_bytes / MIB:.2f} MiB in a case, "
            f"process grew by {summary.resident_growth_bytes / MIB:.1f} MiB"
        )
        for line in summary.failures[:20]:
            click.echo(line, err=True)
    if as_json:
        click.echo(json.dumps([summary._asdict() for summary in summaries]))
    raise SystemExit(Exit.BROKEN if any(summary.failures for summary in summaries) else Exit.OK)


if __name__ == "__main__":
    main()
