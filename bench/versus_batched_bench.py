"""Sequences decoded together: this runner beside llama-batched-bench, in many short turns, and what was predicted.

    python -m bench versus_batched_bench --programs FOLDER MODEL.gguf [--batch 1 --batch 8] [--pairs 24] [--minutes 9]

Each sequence has a prompt of its own, and its own part of the cache; both sides get the same context, threads and
kernels, warm up with one sequence or pass, and count the tokens of all sequences. To compare the runners and not two
builds of the engine, the program is linked against the library that llama-cpp-python brings.

A pair of each batch comes after the other, round after round; the next round has both sides in the other order (A B,
B A). A turn is a few seconds, so a machine that changes its speed every half a minute does so in few of the pairs. A
pair during which anything else used the machine is left out. The ratio is the Hodges-Lehmann median of ours / theirs
over the pairs, with its 95 % interval. The prediction is made from the costs of this machine that are kept, before.
"""

import os
import subprocess
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import click

from bench._kept import keep
from bench.versus_llama_bench import a_pair, run_ours
from harness.answer.resolve import with_kept_costs
from harness.core.errors import CouldNotRunError
from harness.core.scenario import Scenario
from harness.core.stats.intervals import ratio_interval
from harness.hardware.threads import default_thread_count
from harness.measure.probe.machine_profile import own_profile
from harness.models.gguf import read_weights
from harness.runtimes.executable import FOLDER_VARIABLE, program, rows
from harness.speed.estimate import predict_speed

WITHIN_RATIO: Final = 0.03
_ROOM: Final = 256
"""llama.cpp gives each sequence a whole number of so many cells."""


def run_theirs(model: Path, scenario: Scenario, repetitions: int) -> float:
    """Tokens/s of all sequences by one run of llama-batched-bench; CouldNotRunError where it failed."""
    s, count = scenario, scenario.batch_count
    filled = s.depth_tokens or s.prompt_tokens
    # One sequence before them warms up. One after them, since a thread writes the log: the process may end before the
    # last row is out.
    together = ",".join(["1", *[str(count)] * repetitions, "1"])
    command = [program("llama-batched-bench") or "", "-m", str(model), "-t", str(s.thread_count), "-ngl", "0"]
    command += ["-c", str(s.context_tokens), "-npp", str(filled)]
    command += ["-ntg", str(s.new_tokens), "-npl", together, "--output-format", "jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [float(row["speed_tg"]) for row in rows(done.stdout)[1 : repetitions + 1]]
    if done.returncode or len(found) < repetitions:
        raise CouldNotRunError(
            f"llama-batched-bench gave {len(found)} rows, status {done.returncode}: {done.stderr[-300:]}"
        )
    return median(found)


def _ours(model: Path, scenario: Scenario, repetitions: int) -> float:
    return run_ours(model, scenario, repetitions).decode


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--programs", required=True, type=click.Path(exists=True, file_okay=False), help="Of llama.cpp.")
@click.option("--batch", "batches", default=(1, 2, 4, 8, 16), multiple=True, type=click.IntRange(1, 256))
@click.option("--prompt", default=32, show_default=True, help="Tokens of each sequence before those that are timed.")
@click.option("--new", default=32, show_default=True, help="Tokens of each sequence that are timed.")
@click.option("--pairs", default=24, show_default=True, help="Undisturbed pairs wanted of each batch.")
@click.option("--minutes", default=9.0, show_default=True, help="Longest time for all of them.")
@click.option("--record", default="", help="File in reports/ for the table.")
def main(
    model: Path, programs: str, batches: tuple[int, ...], prompt: int, new: int, pairs: int, minutes: float, record: str
) -> None:
    """Compare batches of MODEL with llama-batched-bench; exit 1 where a ratio is not within 3 %."""
    os.environ[FOLDER_VARIABLE] = programs
    weights, device, threads = read_weights(model), own_profile(), default_thread_count()
    cells = -(-(prompt + new) // _ROOM) * _ROOM
    scenarios = {
        count: Scenario(context_tokens=count * cells, prompt_tokens=0, depth_tokens=prompt, new_tokens=new,
                        batch_count=count, thread_count=threads)
        for count in batches
    }  # fmt: skip
    predicted = {
        count: predict_speed(weights, with_kept_costs(device, s), s).decode_tokens_per_s.mid
        for count, s in scenarios.items()
        if device is not None
    }
    found: dict[int, list[dict[str, float]]] = {count: [] for count in batches}
    started_s, tried = time.monotonic(), 0
    while min(map(len, found.values())) < pairs and time.monotonic() - started_s < 60 * minutes:
        tried += 1
        for count, s in scenarios.items():
            repetitions = max(1, 4 // count)  # so that turns of few sequences are no shorter than those of many
            speeds, doubts = a_pair(
                {
                    "ours": partial(_ours, model, s, repetitions),
                    "theirs": partial(run_theirs, model, s, repetitions),
                },
                forth=tried % 2 == 1,
            )
            found[count] += [] if doubts else [speeds]
            left_out = f"; left out: {doubts[0]}" if doubts else ""
            click.echo(f"{tried}. b{count}: {speeds['ours']:.1f}, {speeds['theirs']:.1f}{left_out}", err=True)
    lines, far = [], 0
    for count, speeds_of in found.items():
        ours, theirs = ([pair[side] for pair in speeds_of] for side in ("ours", "theirs"))
        if not ours:
            raise CouldNotRunError(f"all of {tried} pairs of {count} sequences were disturbed")
        ratio, told = ratio_interval(ours, theirs), predicted.get(count)
        between = "-" if ratio.low is None or ratio.high is None else f"{ratio.low:.3f} to {ratio.high:.3f}"
        far += abs(ratio.mid - 1) > WITHIN_RATIO
        lines.append([
            str(count), f"{told:.1f}" if told else "-", f"{median(ours):.1f}",
            f"{told / median(ours) - 1:+.1%}" if told else "-", f"{median(theirs):.1f}",
            f"{ratio.mid:.3f}", between, f"{len(ours)} of {tried}",
        ])  # fmt: skip
    columns = ["sequences", "predicted, tokens/s", "measured, tokens/s", "error", "llama-batched-bench, tokens/s"]
    columns += ["ratio", "95 % interval", "undisturbed pairs"]
    command = f"versus_batched_bench {model.name} --prompt {prompt} --new {new} --pairs {pairs} --minutes {minutes:g}"
    keep(record or "runtimes/batches.json", columns, lines, command)
    raise SystemExit(1 if far else 0)


if __name__ == "__main__":
    main()
