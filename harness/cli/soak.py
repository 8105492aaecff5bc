"""``edge-harness soak``: decode for minutes and see when the device slows down, and by how much."""

from pathlib import Path

import click

from harness.cli._output import console, emit_json, json_option, table
from harness.errors import Exit


@click.command("soak")
@click.argument("model")
@click.option("--quant", "-q", default="", help="Mixture; the card's usual one unless given.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True)
@click.option("--window", "window_s", type=click.FloatRange(0.05), default=5.0, show_default=True, help="Seconds.")
@click.option(
    "--duty", "duty_ratio", type=click.FloatRange(0.01, 1), default=1.0, help="Share of the time to decode in."
)
@click.option("--max-celsius", "celsius_max", type=float, help="Stop when a sensor is hotter.")
@click.option("--min-battery", "battery_percent_min", type=click.FloatRange(0, 100), default=10.0, show_default=True)
@click.option("--context", "-c", "context_tokens", type=click.IntRange(2), default=512, show_default=True)
@click.option("--threads", "-t", "thread_count", type=click.IntRange(0), default=0, help="0: physical cores.")
@click.option("--runtime", default="llamacpp", show_default=True)
@click.option("--on", "target", default="local", show_default=True, help="local, ssh://user@host or adb://SERIAL.")
@click.option("--programs", type=click.Path(file_okay=False, path_type=Path), help="Folder with llama-bench, for --on.")
@click.option(
    "--meter",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that an external meter writes: unix seconds, watts. Its energy counts instead of the sensors'.",
)
@json_option
def COMMAND(  # noqa: N802
    model: str,
    quant: str,
    minutes: float,
    window_s: float,
    duty_ratio: float,
    celsius_max: float | None,
    battery_percent_min: float,
    runtime: str,
    target: str,
    programs: Path | None,
    meter: Path | None,
    as_json: bool,
    **fields: int,
) -> int:
    """Decode with MODEL for minutes: burst, when it falls, what is left, energy of a token.

    Exit status: 0 it ran to its end, 3 a limit of heat or battery ended it, 4 it could not run.
    """
    from harness.app.resolve import scenario_from
    from harness.app.soak import soak
    from harness.measure.soak import SoakJob

    job = SoakJob(
        path=model,
        scenario=scenario_from({**fields, "prompt_tokens": 1, "new_tokens": 1}),
        runtime=runtime,
        minutes=minutes,
        window_s=window_s,
        duty_ratio=duty_ratio,
        celsius_max=celsius_max,
        battery_percent_min=battery_percent_min,
    )
    screen = console(stderr=True)
    found = soak(job, quant, target, programs, meter, say=lambda line: screen.print(line, markup=False))
    if as_json:
        emit_json(found)
    else:
        rows = [("burst, tokens/s", f"{found.burst_tokens_per_s:.2f}")]
        knee = "none" if found.knee_s is None else f"after {found.knee_s:.0f} s, by {found.drop_ratio:.0%}"
        rows += [("falls", knee), ("at the end, tokens/s", f"{found.sustained_tokens_per_s:.2f}")]
        if found.sustained_joules_per_token is not None:
            rows += [("energy of a token, J", f"{found.sustained_joules_per_token:.3g} ({found.energy_scope})")]
        if found.tokens_per_charge is not None:
            rows += [("tokens of a charge", f"{found.tokens_per_charge:.0f}")]
        rows += [("stopped by", found.stopped)] if found.stopped else []
        console().print(table(f"{len(found.windows)} windows in {found.minutes:.1f} minutes", ("", ""), rows))
    return Exit.INCONCLUSIVE if found.stopped else Exit.OK
