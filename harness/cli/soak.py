"""``edge-harness soak``: decode for minutes and see when the device throttles, and by how much."""

from pathlib import Path
from typing import Any

import click

from harness.cli import _options as options
from harness.cli._command import Verb
from harness.cli._output import Answer
from harness.errors import Exit


@click.command("soak", cls=Verb)
@click.argument("model")
@options.quant
@click.option(
    "--minutes", type=options.Amount(), default=10.0, show_default=True, help="How long to decode, in minutes."
)
@click.option(
    "--window",
    "window_s",
    type=options.Amount(),
    default=5.0,
    show_default=True,
    help="Seconds that one speed is taken over.",
)
@click.option(
    "--duty",
    "duty_ratio",
    type=options.Amount(0, 1),
    default=1.0,
    show_default=True,
    help="Share of the time to decode in, with pauses between.",
)
@click.option(
    "--max-celsius", "celsius_max", type=options.Amount(), help="Stop as soon as a sensor is hotter than this, in °C."
)
@click.option(
    "--min-battery",
    "battery_percent_min",
    type=options.Amount(-1, 100),
    default=10.0,
    show_default=True,
    help="Stop as soon as the battery holds less than this, in percent.",
)
@click.option(
    "--meter", type=options.FILE, help="File that an external power meter writes: lines of unix seconds and watts."
)
@options.context(512)
@options.threads
@options.api
@options.placement()
@options.runtime()
@options.on_target
@options.measuring(86_400)
def soak(
    model: str,
    quant: str,
    meter: Path | None,
    target: str,
    programs: Path | None,
    how: "options.How",
    **asked: Any,
) -> Answer:
    """Decode for minutes: burst speed, throttling, sustained speed, energy.

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
