"""Does this runner measure the engine or itself? Its speed over llama-bench's, in pairs that take turns.

    python -m bench.versus_llama_bench --llama-bench PATH MODEL.gguf [--pairs 5] [--json]

Both run the same tests with the same options; the order within a pair alternates, so that drift of the machine hits
both. A pair during which anything else used the machine is left out and another one taken. The ratio of each pair is
ours / theirs; the result is the Hodges-Lehmann median of the ratios with its 95 % interval.
"""

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple, TypeVar

import click
import msgspec

from harness.core.errors import CouldNotRunError, Exit, HarnessError
from harness.core.record import Sample
from harness.core.scenario import Scenario
from harness.core.stats.intervals import Estimate, ratio_interval
from harness.hardware.threads import default_thread_count
from harness.measure.child import Limits, run_child
from harness.measure.jobs.generate import ENTRY
from harness.measure.protocol import GenerateJob
from harness.measure.validity import ValidityProbe

LEAST_RATIO: Final = 0.98
T = TypeVar("T")


class InconclusiveError(HarnessError):
    """The machine was never quiet for long enough."""

    exit_code = Exit.INCONCLUSIVE


class Speeds(NamedTuple):
    """Tokens per second of one run; 0 for a phase that it does not have."""

    prefill: float
    decode: float


class Result(NamedTuple):
    """All pairs, and the ratio of each phase with its interval."""

    ours: list[Speeds]
    theirs: list[Speeds]
    prefill_ratio: Estimate
    decode_ratio: Estimate
    tried_count: int


def run_theirs(program: Path, model: Path, scenario: Scenario, repetitions: int) -> Speeds:
    """One run of llama-bench.

    Raises:
        CouldNotRunError: It failed.
    """
    command = [
        str(program),
        *("-m", str(model), "-o", "json", "-r", str(repetitions), "-t", str(scenario.thread_count)),
        *("-p", str(scenario.prompt_tokens), "-n", str(scenario.new_tokens), "-d", str(scenario.depth_tokens)),
        *("-ub", str(scenario.ubatch_tokens), "-fa", "auto" if scenario.flash_attention else "off"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CouldNotRunError(f"llama-bench ended with {done.returncode}: {done.stderr[-300:]}")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    prefill = next(r for r in rows if r["n_prompt"] and not r["n_gen"])
    decode = next(r for r in rows if r["n_gen"] and not r["n_prompt"])
    return Speeds(median(prefill["samples_ts"]), median(decode["samples_ts"]))


def run_ours(model: Path, scenario: Scenario, repetitions: int) -> Speeds:
    """One run of this harness over all its samples, as llama-bench takes all of its own.

    Raises:
        CouldNotRunError: It failed.
    """
    job = GenerateJob(
        path=str(model),
        scenario=scenario,
        repetitions=repetitions,
        cold_loads=0,
        patience_s=600.0,  # disturbed samples count too: the pair is judged from outside
    )
    done = run_child(ENTRY, job, limits=Limits(wall_s=600.0))
    if done.outcome != "ok":
        raise CouldNotRunError(f"our run: {done.outcome}: {done.detail}")
    samples = [msgspec.convert(data, Sample) for name, data in done.events if name == "sample"]
    timed = [s for s in samples if not s.warm_up]
    rates = {
        phase: [s.token_count / s.duration_s for s in timed if s.phase == phase] for phase in ("prefill", "decode")
    }
    return Speeds(*(median(found) if found else 0.0 for found in rates.values()))


def a_pair(sides: Mapping[str, Callable[[], T]], *, forth: bool) -> tuple[dict[str, T], list[str]]:
    """What each side gives, one after the other in their order or (not ``forth``) the other way; and what disturbed."""
    found: dict[str, T] = {}
    doubts: list[str] = []
    for name in list(sides)[:: 1 if forth else -1]:
        probe = ValidityProbe(disk_expected=True)
        probe.start()
        found[name] = sides[name]()
        doubts += probe.finish().doubts
    return {name: found[name] for name in sides}, doubts


def compare(program: Path, model: Path, scenario: Scenario, *, pairs: int, repetitions: int) -> Result:
    """Run pairs until enough of them are undisturbed, or three times as many were tried.

    The same probe watches both sides from outside; a pair in which either was disturbed does not count.
    """
    ours: list[Speeds] = []
    theirs: list[Speeds] = []
    tried = 0
    while len(ours) < pairs and tried < 3 * pairs:
        tried += 1
        found, doubts = a_pair(
            {
                "ours": lambda: run_ours(model, scenario, repetitions),
                "llama-bench": lambda: run_theirs(program, model, scenario, repetitions),
            },
            forth=tried % 2 == 1,
        )
        click.echo(
            f"pair {tried}: {', '.join(f'{name} {_text(speeds)}' for name, speeds in found.items())}"
            + (f"; left out: {doubts[0]}" if doubts else ""),
            err=True,
        )
        if not doubts:
            ours.append(found["ours"])
            theirs.append(found["llama-bench"])
    if len(ours) < pairs:
        raise InconclusiveError(f"only {len(ours)} of {tried} pairs were undisturbed")
    return Result(
        ours,
        theirs,
        ratio_interval([s.prefill for s in ours], [s.prefill for s in theirs]),
        ratio_interval([s.decode for s in ours], [s.decode for s in theirs]),
        tried,
    )


@click.command()
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--llama-bench", "program", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--pairs", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option("--repetitions", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option("--prompt", default=256, show_default=True, type=click.IntRange(1))
@click.option("--new", default=64, show_default=True, type=click.IntRange(1))
@click.option("--depth", default=0, show_default=True, type=click.IntRange(0))
@click.option("--threads", default=0, help="0: all physical cores.", type=click.IntRange(0))
@click.option("--json", "as_json", is_flag=True)
def main(
    model: Path,
    program: Path,
    pairs: int,
    repetitions: int,
    prompt: int,
    new: int,
    depth: int,
    threads: int,
    as_json: bool,
) -> None:
    """Compare this runner with llama-bench on MODEL; exit 1 when a ratio is under 0.98 beyond doubt."""
    scenario = Scenario(
        context_tokens=depth + max(prompt, new),
        prompt_tokens=prompt,
        new_tokens=new,
        depth_tokens=depth,
        thread_count=threads or default_thread_count(),
    )
    try:
        result = compare(program, model, scenario, pairs=pairs, repetitions=repetitions)
    except HarnessError as error:
        click.echo(str(error), err=True)
        raise SystemExit(error.exit_code) from error
    if as_json:
        click.echo(msgspec.json.encode(result._asdict()).decode())
    else:
        for phase, ratio in (("prefill", result.prefill_ratio), ("decode", result.decode_ratio)):
            known = "" if ratio.low is None else f", 95 % interval {ratio.low:.3f} to {ratio.high:.3f}"
            click.echo(f"{phase} ratio {ratio.mid:.3f}{known}")
        click.echo(f"{len(result.ours)} undisturbed pairs of {result.tried_count}")
    low = any((r.mid if r.high is None else r.high) < LEAST_RATIO for r in (result.prefill_ratio, result.decode_ratio))
    raise SystemExit(Exit.BROKEN if low else Exit.OK)


def _text(speeds: Speeds) -> str:
    return f"pp {speeds.prefill:.1f} tg {speeds.decode:.2f}"


if __name__ == "__main__":
    main()
