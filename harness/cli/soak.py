"""``edge-harness soak``: decode for minutes and see when the device throttles, and by how much."""

from pathlib import Path
from typing import Any

import click

from harness.cli import _options as options
from harness.cli._command import verb
from harness.cli._output import Answer
from harness.errors import Exit


@verb
@options.measuring
def soak(
    model: str,
    quant: str,
    meter: Path | None,
    target: str,
    programs: Path | None,
    how: "options.How",
    **asked: Any,
) -> Answer:
    """Decode for minutes on end: burst speed, throttling, sustained speed, energy.

    Exit status: 0 it ran to its end, 3 a limit of heat or battery ended it, 4 it could not run.
    """
    from harness.app.on_target import soak
    from harness.app.resolve import scenario_from
    from harness.app.run import exit_of
    from harness.cli._records import answer_of
    from harness.domain.result import Soak
    from harness.measure.jobs.soak import SoakJob

    if asked["minutes"] * 60 > how.limits.wall_s:
        raise click.UsageError(f"--minutes: found {asked['minutes']:g}, expected no more than --timeout allows")
    of_job = options.fields_of(SoakJob, asked)
    scenario = scenario_from({**asked, "prompt_tokens": 1, "new_tokens": 1})
    job = SoakJob(path=model, scenario=scenario, meter=str(meter or ""), **of_job)
    record = soak(job, quant, target, programs, how)
    stopped = isinstance(record.result, Soak) and record.result.stopped
    return answer_of(record, max(exit_of([record]), Exit.INCONCLUSIVE if stopped else Exit.OK))
