"""One model through several runtimes in turns: time to first token, between tokens, speed, memory, perplexity.

    python -m bench.runtimes_in_turns MODEL.gguf... --out FOLDER [--runtimes llamacpp,ik] [--quants Q4_K_M,IQ2_XXS]

Each runtime's record, with the samples of both its turns, stays in FOLDER/MODEL/RUNTIME.json. Runtimes are those of
``run --runtime``, and servers by their names in ``bench.running_servers``, each started for a model and stopped after
it; what cannot be had here is left out and named. With ``--quants`` those mixtures of each model run after it: they are
made first, as ``ladder`` makes them (what is quantized already, once more), and stay in ``--keep``. What the way to a
server adds is its client's time over the server's own for the same tokens.
"""

from contextlib import ExitStack
from pathlib import Path

import click
import msgspec

from bench.renderers import runtimes_table
from bench.running_servers import PROGRAMS, running
from harness.core import plugins
from harness.core.errors import HarnessError
from harness.core.scenario import Scenario
from harness.hardware.threads import default_thread_count
from harness.measure.jobs.served import ServedJob
from harness.measure.pipeline import How
from harness.measure.probe.machine_profile import own_profile
from harness.measure.protocol import GenerateJob
from harness.records.store import save
from harness.verbs.ladder import LadderRequest, ladder
from harness.verbs.run import RunCell, run_in_turns
from harness.verbs.trend import answer_beside

USUAL = ("llamacpp", "executable", "ik", *PROGRAMS[:3])


def sides_of(names: list[str], model: Path, repetitions: int, stack: ExitStack) -> dict[str, GenerateJob]:
    """What runs here, by name; servers are started and stop with ``stack``."""
    found: dict[str, GenerateJob] = {}
    for name in names:
        try:
            if name in PROGRAMS:
                url = stack.enter_context(running(name, model))
                found[name] = ServedJob(url=url, repetitions=repetitions)
                continue
            if reason := plugins.load("harness.runtimes", name, "RUNTIME").missing():
                click.echo(f"{name} is left out: {reason}")
                continue
        except HarnessError as error:
            click.echo(f"{name} is left out: {error}")
            continue
        found[name] = GenerateJob(runtime=name, repetitions=repetitions)
    return found


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--runtimes", default=",".join(USUAL), show_default=True)
@click.option("--quants", default="", help="Mixtures to make of each model first.")
@click.option("--keep", default=Path("/tmp/edge-harness-rungs"), type=click.Path(file_okay=False, path_type=Path))  # noqa: S108
@click.option("--prompt", default=128, show_default=True)
@click.option("--tokens", default=64, show_default=True)
@click.option("--repetitions", default=5, show_default=True)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the records.")
def main(
    models: tuple[Path, ...],
    runtimes: str,
    quants: str,
    keep: Path,
    prompt: int,
    tokens: int,
    repetitions: int,
    out: Path,
) -> None:
    """Run each of MODELS by all runtimes in turns, and say how their answers compare."""
    how = How(keep=False)
    scenario = Scenario(
        context_tokens=1024, prompt_tokens=prompt, new_tokens=tokens, thread_count=default_thread_count()
    )
    files = list(models)
    for model in models if quants else ():
        keep.mkdir(parents=True, exist_ok=True)
        ladder(model, quants.split(","), asked=LadderRequest(chunk_count=1, scenario=None), keep=keep, how=how)
        for quant in quants.split(","):
            (made,) = keep.glob(f"{model.stem}-*/{quant}.gguf")
            files.append(keep / f"{model.stem.lower().removesuffix('-q4_k_m')}-{quant.lower()}.gguf")
            files[-1].unlink(missing_ok=True)
            files[-1].symlink_to(made)
    broken = False
    for model in files:
        with ExitStack() as stack:
            sides = sides_of(runtimes.split(","), model, repetitions, stack)
            (found,) = run_in_turns(
                [[(RunCell(str(model), "", scenario), side) for side in sides.values()]], how=how, device=own_profile()
            )
        for name, record in zip(sides, found, strict=True):
            named = msgspec.structs.replace(record, extra={**record.extra, "side": name})
            save(named, out / model.stem / f"{name}.json")
            broken |= record.outcome not in {"ok", "inconclusive"}
            if record.outcome != "ok":
                click.echo(f"{name}: {record.outcome}: {record.detail}")
        click.echo(runtimes_table(*sorted((out / model.stem).glob("*.json"))))
        for name, record in list(zip(sides, found, strict=True))[1:]:
            click.echo(f"{name}: {answer_beside(found[0], record)}")
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()
