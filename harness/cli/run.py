"""``edge-harness run``: measure models for real, each in a child process of its own."""

import os
from pathlib import Path
from typing import Any

import click

from harness.cli import _options as options
from harness.cli._command import verb
from harness.cli._effect import refuse_typed
from harness.cli._output import Answer, say


@verb
@options.measuring
def run(
    models: tuple[str, ...],
    quant: str,
    target: str,
    programs: Path | None,
    how: "options.How",
    **fields: Any,
) -> Answer:
    """Measure models: prefill, decode, time to first token, load time, memory.

    Every combination of MODEL, depth, threads and batch is one run; several runtimes measure each in turns. With
    --runtime server:URL the model that the server has is run, and MODEL, which may be left out, is what to predict.

    Exit status: 0 all well, 3 some inconclusive, 4 some could not run; the others are run all the same.
    """
    from harness.app.on_target import run_on
    from harness.app.resolve import scenario_from
    from harness.app.run import cells_of, exit_of, run_in_turns
    from harness.app.this_machine import this_machine
    from harness.app.trend import answer_beside
    from harness.cli._records import difference_view, reasons, run_table

    if programs is not None and target == "local":
        from harness.runtimes.executable import FOLDER_VARIABLE

        refuse_typed({"runtime"}, "with --programs, whose folder has the runtime")
        os.environ[FOLDER_VARIABLE], fields["runtime"], programs = str(programs), "executable", None
    sides = options.sides_of(fields, models)
    of_runs = {name: fields.pop(name) for name in ("repetitions", "cold_loads", "greedy")}
    axes = {name: fields.pop(name) for name in ("depth_tokens", "thread_count", "batch_count")}
    cells = cells_of(models or ("",), quant, scenario_from(fields), **axes)
    jobs = [side.replace(**of_runs) for side in sides]
    if programs is None:
        groups = run_in_turns([[(cell, job) for job in jobs] for cell in cells], how=how, device=this_machine())
    elif len(jobs) > 1:
        raise click.UsageError("--on with --programs takes one runtime")
    else:
        groups = [[record] for record in run_on(target, cells, jobs[0], how, programs)[1]]
    records = [record for group in groups for record in group]

    def show() -> None:
        say(run_table(records), *reasons(records))
        for first, *others in groups:
            for other in others:
                say(*difference_view(first, other), answer_beside(first, other))

    return Answer(records, show, exit_of(records))
