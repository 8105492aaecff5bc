"""What the way to a device adds to each sample: llama-bench through adb beside the same command without it, in turns.

    python -m bench transport MODEL.gguf --programs FOLDER [--turns 7]

The device is a real adbd on the loopback address of this machine. One turn is a run through the harness (shell,
counters twice a second, progress read as it comes) and a run of the very command that it gave, started directly; which
goes first alternates. The ratio of a turn is that of their median seconds a sample; the answer is the Hodges-Lehmann
median of the ratios with its 95 % interval. It ends with 1 when that median is more than 1 % above one.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import click
import msgspec

from bench.adb_device import Daemon
from harness.domain.record import Sample
from harness.domain.scenario import Scenario
from harness.errors import CouldNotRunError, Exit
from harness.measure.child import run_child
from harness.measure.jobs.generate import plan
from harness.measure.pipeline import Measurement
from harness.measure.protocol import GenerateJob
from harness.runtimes.executable import free_port
from harness.stats.intervals import ratio_interval
from harness.targets.bench import There, on_target
from harness.targets.facts import facts

MOST_ADDED: Final = 0.01


def through_adb(there: Measurement) -> float:
    """Median seconds of a sample by the harness."""
    ended = run_child(there.entry, there.job)
    if ended.outcome != "ok":
        raise CouldNotRunError(ended.detail)
    return float(median(s.duration_s for s in ended.told("sample", Sample)))


def directly(command: Sequence[str]) -> float:
    """Median seconds of a sample of the same command, with nothing around it."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return float(median(ns / 1e9 for row in msgspec.json.decode(done.stdout) for ns in row["samples_ns"]))


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--programs", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--turns", default=7, show_default=True)
@click.option("--tokens", default=32, show_default=True)
@click.option("--repetitions", default=10, show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(model: Path, programs: Path, turns: int, tokens: int, repetitions: int, threads: int) -> None:
    """Run the turns and print the ratio."""
    os.environ["ANDROID_ADB_SERVER_PORT"] = str(free_port())  # an adb server of our own
    scenario = Scenario(context_tokens=512, prompt_tokens=0, new_tokens=tokens, thread_count=threads)
    planned = plan(GenerateJob(path=str(model), scenario=scenario, repetitions=repetitions), None)
    ways, direct = [], []
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Path(folder))
        try:
            target = daemon.target()
            there = on_target(planned, target, facts(target), programs)
            assert isinstance(there.job, There)
            command = there.job.words
            through_adb(there)  # warm
            for turn in range(turns):
                if turn % 2:
                    alone_s, way_s = directly(command), through_adb(there)
                else:
                    way_s, alone_s = through_adb(there), directly(command)
                ways.append(way_s)
                direct.append(alone_s)
                click.echo(f"turn {turn + 1}: {way_s:.4f} s through adb, {alone_s:.4f} s alone, {way_s / alone_s:.4f}")
        finally:
            daemon.kill()
            subprocess.run(["adb", "kill-server"], capture_output=True, check=False)
    ratio = ratio_interval(ways, direct)
    ends = "" if ratio.low is None or ratio.high is None else f" (95 %: {ratio.low - 1:+.2%} to {ratio.high - 1:+.2%})"
    click.echo(f"the way adds {ratio.mid - 1:+.2%} to a sample{ends}")
    sys.exit(Exit.OK if ratio.mid <= 1 + MOST_ADDED else Exit.BROKEN)


if __name__ == "__main__":
    main()
