"""``edge-harness run``: measure models for real, each in a child process of its own."""

from pathlib import Path
from typing import Any

import click

from harness.cli import _options as options
from harness.cli._effect import refuse_placement
from harness.cli._output import Answer, say


@click.command()
@click.argument("models", nargs=-1, metavar="MODEL...")
@options.quant
@options.context()
@options.prompt(least=0)
@options.tokens(128, least=0)
@options.depths
@click.option(
    "--threads",
    "-t",
    default="0",
    callback=options.numbers(0, 1024),
    help="Threads, or several: 1,2. 0: physical cores.",
)
@click.option(
    "--batch", "batches", default="1", callback=options.numbers(1, 256), help="Sequences decoded together: 1,2,4,8."
)
@options.ubatch
@options.kv_type
@options.layout
@click.option("--api", default="", help="cpu, metal, cuda ...; the CPU unless given.")
@options.placement
@options.runtime("--backend", several=True)
@options.server
@options.prefix_cache
@options.repetitions()
@click.option(
    "--cold-loads", type=options.Count(0, 100), default=1, show_default=True, help="Loads past the page cache."
)
@click.option("--greedy", is_flag=True, help="Choose each token from its logits inside the clock.")
@options.memory_limit
@options.emulated
@click.option("--draft", metavar="M", help="Speculate with this draft: the same as the verb `speculate`.")
@click.option("--ram-budget", metavar="SIZE", help="Stream weights within this budget: the same as the verb `stream`.")
@options.on_target
@options.measuring()
@click.pass_context
def run(
    context: click.Context,
    /,
    models: tuple[str, ...],
    quant: str,
    depths: tuple[int, ...],
    threads: tuple[int, ...],
    batches: tuple[int, ...],
    draft: str | None,
    ram_budget: str | None,
    target: str,
    programs: Path | None,
    how: "options.How",
    **fields: Any,
) -> Answer | int:
    """Measure each MODEL (name or file): prefill, decode, first token, load, memory.

    With --runtime server it is the server's model that runs, and MODEL (which may be left out) is what is predicted.

    Exit status: 0 all well, 3 some inconclusive, 4 some could not run; the others are run all the same.
    """
    if draft or ram_budget:
        return _other_verb(context, models)
    from harness.app.on_target import run_on
    from harness.app.resolve import scenario_from
    from harness.app.run import Options, cells_of, exit_of, run_in_turns
    from harness.app.this_machine import this_machine
    from harness.app.trend import answer_beside
    from harness.cli._records import difference_view, reasons, run_table

    sides = options.sides_of(fields)
    options.check_sides(context, sides, models)
    refuse_placement(fields["api"])
    of_runs = {name: fields.pop(name) for name in ("repetitions", "cold_loads", "greedy")}
    cells = cells_of(models or ("",), quant, scenario_from(fields), depths=depths, threads=threads, batches=batches)
    chosen = [Options(runtime=name, server=job, how=how, **of_runs) for name, job in sides]
    if programs is None:
        found = run_in_turns(cells, chosen, device=this_machine())
    elif len(chosen) > 1:
        raise click.UsageError("--on takes one runtime")
    else:
        found = [[record] for record in run_on(target, cells, chosen[0], programs)[1]]
    records = [record for row in found for record in row]

    def show() -> None:
        say(run_table(records), *reasons(records))
        for first, *others in found:
            for other in others:
                say(*difference_view(first, other), answer_beside(first, other))

    return Answer(records, show, exit_of(records))


def _other_verb(context: click.Context, models: tuple[str, ...]) -> int:
    """Hand over to the verb that does this; one model at a time."""
    from harness.cli import speculate, stream

    if len(models) != 1:
        raise click.BadParameter("exactly one MODEL with --draft or --ram-budget", param_hint="MODEL")
    params = context.params
    threads = params["threads"]
    if len(threads) != 1:
        raise click.BadParameter("one number with --draft or --ram-budget", param_hint="--threads")
    given: dict[str, Any] = {"model": models[0], "thread_count": threads[0]}
    verb, because = (stream.stream, "ram_budget") if params["ram_budget"] else (speculate.speculate, "draft")
    return options.hand_over(context, verb, because, ("threads",), **given, **{because: params[because]})
