"""``edge-harness soak``: decode for minutes and see when the device slows down, and by how much."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import _options as options
from harness.cli._effect import refuse_placement
from harness.cli._output import Answer, say, table
from harness.errors import Exit

if TYPE_CHECKING:
    from harness.domain.result import Soak


@click.command("soak")
@click.argument("model", default="")
@options.quant
@click.option("--minutes", type=options.Amount(), default=10.0, show_default=True, help="How long.")
@click.option(
    "--window", "window_s", type=options.Amount(), default=5.0, show_default=True, help="Seconds of a window."
)
@click.option("--duty", "duty_ratio", type=options.Amount(0, 1), default=1.0, help="Share of the time to decode in.")
@click.option("--max-celsius", "celsius_max", type=options.Amount(), help="Stop when a sensor is hotter.")
@click.option("--min-battery", "battery_percent_min", type=options.Amount(-1, 100), default=10.0, show_default=True)
@click.option("--meter", type=options.FILE, help="File an external meter writes: unix seconds, watts.")
@options.context(512)
@options.threads
@options.api
@options.placement
@options.runtime()
@options.server
@options.on_target
@options.measuring(86_400)
@click.pass_context
def soak(
    context: click.Context,
    /,
    model: str,
    quant: str,
    meter: Path | None,
    target: str,
    programs: Path | None,
    how: "options.How",
    **asked: Any,
) -> Answer:
    """Decode with MODEL for minutes: burst, when it falls, what is left, energy of a token.

    With --runtime server it is the server's model that decodes, and no MODEL is named.

    Exit status: 0 it ran to its end, 3 a limit of heat or battery ended it, 4 it could not run.
    """
    from harness.app.on_target import soak
    from harness.app.resolve import scenario_from
    from harness.app.run import exit_of
    from harness.domain.result import Soak
    from harness.measure.jobs.soak import SoakJob

    if asked["minutes"] * 60 > how.limits.wall_s:
        raise click.UsageError(f"--minutes: found {asked['minutes']:g}, expected no more than --timeout allows")
    name, server = options.one_side(context, asked, model)
    refuse_placement(asked["api"])
    if server and (model or quant):
        raise click.UsageError("a server has loaded its model already: --model chooses among several")
    of_job = options.fields_of(SoakJob, asked) | {"runtime": name, "server": server}
    scenario = scenario_from({**asked, "prompt_tokens": 1, "new_tokens": 1})
    job = SoakJob(path=model, scenario=scenario, meter=str(meter or ""), **of_job)
    record = soak(job, quant, target, programs, how)
    found = record.result

    def show() -> None:
        if isinstance(found, Soak):
            say(table(f"{len(found.windows)} windows in {found.minutes:.1f} minutes", ("", ""), _rows(found)))
        if record.detail:
            how.listener.say(record.detail)

    stopped = isinstance(found, Soak) and found.stopped
    return Answer(record, show, max(exit_of([record]), Exit.INCONCLUSIVE if stopped else Exit.OK))


def _rows(found: "Soak") -> list[tuple[str, str]]:
    knee = "no" if found.knee_s is None else f"after {found.knee_s:.0f} s, by {found.drop_ratio:.0%}"
    rows = [("burst, tokens/s", f"{found.burst_tokens_per_s:.2f}"), ("slows down", knee)]
    rows += [("at the end, tokens/s", f"{found.sustained_tokens_per_s:.2f}")]
    if found.sustained_joules_per_token is not None:
        rows += [("energy of a token, J", f"{found.sustained_joules_per_token:.3g} ({found.energy_scope})")]
    if found.tokens_per_charge is not None:
        rows += [("tokens of a charge", f"{found.tokens_per_charge:.0f}")]
    rows += [("stopped by", found.stopped)] if found.stopped else []
    return rows
