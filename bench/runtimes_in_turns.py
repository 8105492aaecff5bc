"""One model through several runtimes in turns: time to first token, between tokens, speed, memory, perplexity.

    python -m bench.runtimes_in_turns MODEL.gguf... --out FOLDER [--runtimes llamacpp,ik] [--quants Q4_K_M,IQ2_XXS]

Runtimes are those of ``run --runtime``, and servers by their names in ``bench.running_servers``, each started for a
model and stopped after it; what cannot be had here is left out and named. With ``--quants`` each model's rungs are made
first, as ``ladder`` makes them from it (what is quantized already once more), and stay in ``--keep``. What the way to a
server adds is its client's time over the server's own for the same tokens.
"""

from contextlib import ExitStack
from pathlib import Path
from statistics import median

import click

from bench.running_servers import PROGRAMS, running
from harness import plugins
from harness.app.ladder import Asked, ladder
from harness.app.run import Cell, Options, run_in_turns
from harness.app.this_machine import this_machine
from harness.app.trend import answer_beside
from harness.domain.record import RunRecord
from harness.domain.result import Generation
from harness.domain.scenario import Scenario
from harness.errors import HarnessError
from harness.measure.jobs.served import ServedJob
from harness.measure.pipeline import How
from harness.records.metrics import metric_values
from harness.runtimes._threads import default_thread_count

USUAL = ("llamacpp", "executable", "ik", *PROGRAMS[:3])


def sides_of(names: list[str], model: Path, how: How, repetitions: int, stack: ExitStack) -> dict[str, Options]:
    """What runs here, by name; servers are started and stop with ``stack``."""
    found = {}
    for name in names:
        try:
            if name in PROGRAMS:
                url = stack.enter_context(running(name, model))
                job = ServedJob(url=url, scenario=Scenario())
                found[name] = Options(runtime="server", server=job, how=how, repetitions=repetitions)
                continue
            if reason := plugins.load("harness.runtimes", name, "RUNTIME").missing():
                click.echo(f"{name} is left out: {reason}")
                continue
        except HarnessError as error:
            click.echo(f"{name} is left out: {error}")
            continue
        found[name] = Options(runtime=name, how=how, repetitions=repetitions)
    return found


def line_of(name: str, record: RunRecord) -> str:
    """A row of the table."""
    cells = []
    for metric, scale, form in (
        ("ttft_s", 1e3, "{:.0f} ms"), ("itl_p50_s", 1e3, "{:.2f} ms"), ("itl_p99_s", 1e3, "{:.2f} ms"),
        ("decode_tokens_per_s", 1.0, "{:.2f}"), ("prefill_tokens_per_s", 1.0, "{:.1f}"),
        ("peak_memory_bytes", 1e-6, "{:.0f} MB"), ("perplexity", 1.0, "{:.3f}"),
    ):  # fmt: skip
        values = metric_values(record, metric)  # type: ignore[arg-type]  # names of the table above
        cells.append(form.format(median(values) * scale) if values else "-")
    use = record.result.server if isinstance(record.result, Generation) else None
    ways = (use.first_token_path_ratio, use.decode_path_ratio) if use else (None, None)
    cells += [f"{(way - 1) * 100:+.2f} %" if way else "-" for way in ways]
    return " | ".join([f"{name:>16}", *(f"{cell:>10}" for cell in cells), record.outcome])


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
    how = How(keep=False, folder=out)
    scenario = Scenario(
        context_tokens=1024, prompt_tokens=prompt, new_tokens=tokens, thread_count=default_thread_count()
    )
    files = list(models)
    if quants:
        keep.mkdir(parents=True, exist_ok=True)
        wanted = quants.split(",")
        for model in models:
            ladder(model, wanted, asked=Asked(chunk_count=1, scenario=None), keep=keep, how=How(keep=False))
        files = [f for model in models for q in wanted for f in sorted(keep.glob(f"{model.stem}-*/{q}.gguf"))]
    broken = False
    for model in files:
        with ExitStack() as stack:
            sides = sides_of(runtimes.split(","), model, how, repetitions, stack)
            (found,) = run_in_turns([Cell(str(model), "", scenario)], list(sides.values()), device=this_machine())
        click.echo(f"\n{model.name}, prompt {prompt}, new tokens {tokens}, medians of the believed samples")
        heads = ("TTFT", "ITL p50", "ITL p99", "tg t/s", "pp t/s", "memory", "perplexity", "path TTFT", "path ITL")
        click.echo(" | ".join([f"{'':>16}", *(f"{head:>10}" for head in heads), "outcome"]))
        for name, record in zip(sides, found, strict=True):
            click.echo(line_of(name, record) + (f": {record.detail}" if record.outcome != "ok" else ""))
            broken |= record.outcome not in {"ok", "inconclusive"}
        for name, record in list(zip(sides, found, strict=True))[1:]:
            click.echo(f"{name}: {answer_beside(found[0], record)}")
    raise SystemExit(1 if broken else 0)


if __name__ == "__main__":
    main()
