"""``edge-harness ladder``: every quantisation of one model, with its size, speed, memory, quality and calibration."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from harness.cli import _options as options
from harness.cli.command import refuse_typed, verb
from harness.core.errors import Exit
from harness.core.option import Option
from harness.core.question import New, Prompt, Threads
from harness.show.output import Output, say, table


class _LadderOptions(options.ScenarioOptions):
    new_tokens: New = 64
    prompt_tokens: Prompt = 512
    thread_count: Threads = 0


@verb
def ladder(
    model: options.Model,
    setting: _LadderOptions,
    measuring: options.Here,
    quants: Annotated[
        tuple[str, ...],
        Option("--quants", "Quantisations to make and measure.", default="fifteen usual ones"),
    ] = (),
    text: Annotated[
        Path | None,
        Option(
            "--text",
            "Text to measure quality on.",
            path="file",
            is_here=True,
            default="one that ships with edge-harness",
        ),
    ] = None,
    chunks: Annotated[
        int,
        Meta(ge=0, le=1 << 24),
        Option("--chunks", "Number of 512-token chunks of the text to score; 0 for all of them."),
    ] = 8,
    no_speed: Annotated[bool, Option("--no-speed", "Measure size and quality only.")] = False,
    repetitions: options.Repetitions = 3,
    keep: Annotated[
        Path | None,
        Option(
            "--keep",
            "Keep the quantised files in this folder.",
            path="folder",
            default="each is removed after its runs",
        ),
    ] = None,
) -> Output:
    """Measure size, speed, memory and quality of each quantisation of a model.

    MODEL is quantised to each of --quants, and each is compared with MODEL itself, unpacked to F16. With
    --resume the work can be done in parts: first --no-speed, then the speeds of a few --quants at a time. The
    files that --keep leaves can be run elsewhere, or asked about: `edge-harness fit FILE -d DEVICE`.

    Example: edge-harness ladder smollm2-135m --quants Q8_0,Q4_K_M
    """
    from harness.records.ladder import COLUMNS, caveats, cells, rungs_of
    from harness.verbs.ladder import DEFAULT_QUANTS, LadderRequest
    from harness.verbs.ladder import ladder as measure

    timed = {"prompt_tokens", "new_tokens", "repetitions", "runtimes"}
    refuse_typed(timed, "with --no-speed", when=no_speed)
    setting = setting.replace(context_tokens=max(1024, setting.prompt_tokens, setting.new_tokens))
    if no_speed:
        scenario = None
    else:
        scenario = setting.scenario(measuring)
    asked = LadderRequest(chunks, scenario, repetitions)
    wanted = tuple(dict.fromkeys(map(str.upper, quants))) or DEFAULT_QUANTS
    with measuring.started() as how:
        source = options.model_file(model, "", how)
        records = measure(source, wanted, text=text, asked=asked, keep=keep, how=how)
    rungs = rungs_of(records)

    def show() -> None:
        rows = map(cells, rungs)
        say(table(f"{rungs[0].model}, quantised", COLUMNS, rows, spare=COLUMNS[3:]), *caveats(rungs))

    is_made = any(rung.outcome == "ok" for rung in rungs)
    return Output({"rungs": rungs, "records": records}, show, Exit.OK if is_made else Exit.COULD_NOT_RUN)
