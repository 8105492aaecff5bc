"""``edge-harness ladder``: every quantisation of one model, with its size, speed, memory, quality and calibration."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import _options as options
from harness.cli._output import Answer, model_file, say

if TYPE_CHECKING:
    from harness.measure.pipeline import How


@click.command("ladder")
@click.argument("model")
@click.option("--quants", default="", metavar="Q,Q,...", help="Rungs; the usual fifteen when not given.")
@click.option("--text", type=options.FILE_HERE, help="Text to score on.")
@click.option("--chunks", default=8, type=click.IntRange(0), help="Chunks of 512 tokens that are scored; 0 for all.")
@click.option("--no-speed", is_flag=True, help="Sizes and quality only.")
@options.tokens(64)
@options.prompt()
@options.threads
@options.repetitions(3)
@click.option("--device", "devices", multiple=True, metavar="D", help="Say which rung this device takes; repeatable.")
@options.context()
@options.memory_limit
@options.emulated
@click.option("--folder", type=options.FOLDER_HERE, help="Where files are made and removed again.")
@click.option("--keep", type=options.FOLDER, help="Folder where the files stay instead.")
@options.measuring()
def COMMAND(  # noqa: N802  verbs are found by this name
    model: str,
    quants: str,
    text: Path | None,
    chunks: int,
    no_speed: bool,
    new_tokens: int,
    prompt_tokens: int,
    thread_count: int,
    repetitions: int,
    devices: tuple[str, ...],
    context_tokens: int,
    folder: Path | None,
    keep: Path | None,
    how: "How",
) -> Answer:
    """Quantize MODEL to each rung and measure size, speed, memory and quality against the least quantized one.

    DEVICE is a name, a pattern ('iphone-*') or a file. With --resume the work can be done in parts: first --no-speed,
    then the speeds of a few --quants at a time; what was measured within a day is not measured again.
    """
    from harness.app.ladder import DEFAULT_QUANTS, Asked, ladder
    from harness.app.ladder_advice import advise, devices_named
    from harness.cli._ladder_tables import ladder_tables
    from harness.domain.scenario import Scenario
    from harness.errors import Exit

    wanted = tuple(dict.fromkeys(q.strip().upper() for q in quants.split(",") if q.strip()))
    if quants and not wanted:
        raise click.BadParameter("no name in it", param_hint="--quants")
    path = model_file(model)
    profiles = devices_named(devices)
    timed = Scenario(
        context_tokens=max(1024, prompt_tokens, new_tokens),
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        thread_count=thread_count,
    )
    asked = Asked(
        chunk_count=chunks,
        scenario=None if no_speed else timed,
        repetitions=repetitions,
    )
    result, records = ladder(
        path,
        wanted or DEFAULT_QUANTS,
        text=text,
        asked=asked,
        folder=folder,
        keep=keep,
        how=how,
    )
    advice = advise(path, result, profiles, Scenario(context_tokens=context_tokens))
    made = any(rung.outcome == "ok" for rung in result.rungs)
    takes = {a.device: a.quant or None for a in advice}
    document = {"ladder": result, "recommended": takes, "advice": advice, "records": records}
    return Answer(document, lambda: say(*ladder_tables(result, advice)), Exit.OK if made else Exit.COULD_NOT_RUN)
