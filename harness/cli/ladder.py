"""``edge-harness ladder``: every quantisation of one model, with its size, speed, memory, quality and calibration."""

from pathlib import Path

import click

from harness.cli._files import model_file
from harness.cli._output import console, emit_json, json_option

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("ladder")
@click.argument("model")
@click.option("--quants", default="", metavar="Q,Q,...", help="Rungs; the usual fifteen when not given.")
@click.option("--text", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Text to score on.")
@click.option("--chunks", default=8, type=click.IntRange(0), help="Chunks of 512 tokens that are scored; 0 for all.")
@click.option("--no-speed", is_flag=True, help="Sizes and quality only.")
@click.option("--repetitions", default=3, type=click.IntRange(1, 50), help="Clean samples of each speed test.")
@click.option("--device", "devices", multiple=True, metavar="D", help="Say which rung this device takes; repeatable.")
@click.option("--context", "context_tokens", default=4096, type=click.IntRange(64), help="Context the rung must hold.")
@click.option("--timeout", "timeout_s", default=1800.0, type=click.FloatRange(1), help="Longest time of each step, s.")
@click.option("--folder", type=_FOLDER, help="Where files are made and removed again.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that keeps files and results: run again with it, and an interrupted ladder goes on where it stopped.",
)
@json_option
def COMMAND(  # noqa: N802  verbs are found by this name
    model: str,
    quants: str,
    text: Path | None,
    chunks: int,
    no_speed: bool,
    repetitions: int,
    devices: tuple[str, ...],
    context_tokens: int,
    timeout_s: float,
    folder: Path | None,
    keep: Path | None,
    as_json: bool,
) -> int:
    """Quantize MODEL to each rung and measure size, speed, memory and quality against the least quantized one.

    DEVICE is a name, a pattern ('iphone-*') or a file. With --keep the work can be done in parts: first --no-speed,
    then the speeds of a few --quants at a time; the last run prints all that is there.
    """
    from harness.app.ladder import DEFAULT_QUANTS, ladder
    from harness.app.ladder_advice import advise, devices_named
    from harness.cli._ladder_tables import ladder_tables
    from harness.domain.scenario import Scenario
    from harness.errors import Exit
    from harness.measure.child import Limits

    wanted = tuple(dict.fromkeys(q.strip().upper() for q in quants.split(",") if q.strip()))
    if quants and not wanted:
        raise click.BadParameter("no name in it", param_hint="--quants")
    path = model_file(model)
    profiles = devices_named(devices)
    progress = console(stderr=True)
    result = ladder(
        path,
        wanted or DEFAULT_QUANTS,
        text=text,
        chunk_count=chunks,
        measure_speed=not no_speed,
        repetitions=repetitions,
        folder=folder,
        keep=keep,
        limits=Limits(wall_s=timeout_s),
        say=lambda line: progress.print(line, markup=False),
    )
    advice = advise(path, result, profiles, Scenario(context_tokens=context_tokens))
    made = any(rung.outcome == "ok" for rung in result.rungs)
    if as_json:
        emit_json({"ladder": result, "recommended": {a.device: a.quant or None for a in advice}, "advice": advice})
    else:
        for part in ladder_tables(result, advice):
            console().print(part, markup=False)
    return Exit.OK if made else Exit.COULD_NOT_RUN
