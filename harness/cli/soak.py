"""``edge-harness soak``: decode for minutes and see when the device throttles, and by how much."""

from typing import Annotated

import click
from msgspec import Meta

from harness.cli import _options as options
from harness.cli.command import verb
from harness.core.errors import Exit
from harness.core.option import Option
from harness.core.question import Api, Quant, Threads
from harness.show.output import Output

Positive = Annotated[float, Meta(gt=0, le=1e9)]


class _SoakOptions(options.ScenarioOptions):
    context_tokens: options.ContextLength = 512
    thread_count: Threads = 0
    api: Api = ""
    placement: options.Split = None


class _SoakMeasuring(options.Anywhere):
    timeout_s: options.Timeout = 86_400.0


@verb
def soak(
    model: options.Model,
    setting: _SoakOptions,
    measuring: _SoakMeasuring,
    quant: Quant = "",
    runtime: options.Runtime = "llamacpp",
    minutes: Annotated[
        float, Meta(gt=0, le=1e9), Option("--minutes", "Length of the soak, in minutes.")
    ] = 10.0,
    duty_ratio: Annotated[
        float,
        Meta(gt=0, le=1),
        Option("--duty", "Share of the time to decode, such as 0.5; the rest is spent idle."),
    ] = 1.0,
    celsius_max: Annotated[
        Positive | None, Option("--max-celsius", "Stop when any sensor is hotter than this, in °C.")
    ] = None,
    battery_percent_min: Annotated[
        float, Meta(ge=0, le=100), Option("--min-battery", "Stop when the battery is below this, in percent.")
    ] = 10.0,
    meter: Annotated[
        str,
        Option(
            "--meter",
            "Program that prints the watts of a wall meter, a line for each reading; its energy counts.",
            metavar="COMMAND",
        ),
    ] = "",
) -> Output:
    """Decode for minutes on end: burst speed, throttling, sustained speed, energy.

    Exit status: 0 it ran to its end, 3 a limit of heat or battery ended it, 4 it could not run.

    Example: edge-harness soak smollm2-135m --minutes 10
    """
    from harness.core.plugins import known_runtime
    from harness.core.result import Soak
    from harness.measure.jobs.soak import SoakJob
    from harness.show.record_tables import answer_of
    from harness.verbs.on_target import soak
    from harness.verbs.run import exit_of

    if minutes * 60 > measuring.timeout_s:
        raise click.UsageError(f"--minutes: found {minutes:g}, expected no more than --timeout allows")
    job = SoakJob(
        path=model,
        scenario=setting.scenario(measuring),
        runtime=known_runtime(runtime),
        minutes=minutes,
        duty_ratio=duty_ratio,
        celsius_max=celsius_max,
        battery_percent_min=battery_percent_min,
        meter=meter,
    )
    with measuring.started() as how:
        record = soak(job, quant, measuring.target, measuring.programs, how)
    stopped = isinstance(record.result, Soak) and record.result.stopped
    return answer_of(record, max(exit_of([record]), Exit.INCONCLUSIVE if stopped else Exit.OK))
