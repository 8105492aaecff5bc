"""``edge-harness ladder``: every quantisation of one model, with its size, speed, memory, quality and calibration."""

from pathlib import Path
from typing import Any

from harness.cli import _options as options
from harness.cli._command import verb
from harness.cli._output import Answer, say, table
from harness.errors import Exit


@verb
@options.measuring
def ladder(
    model: str,
    quants: tuple[str, ...],
    text: Path | None,
    chunks: int,
    questions: int,
    runtimes: tuple[str, ...],
    no_speed: bool,
    repetitions: int,
    keep: Path | None,
    how: "options.How",
    **fields: Any,
) -> Answer:
    """Measure size, speed, memory and quality of each quantisation of a model.

    MODEL is quantised to each of --quants, and each is compared with MODEL itself, unpacked to F16. With --resume the
    work can be done in parts: first --no-speed, then the speeds of a few --quants at a time. The files that --keep
    leaves can be run elsewhere, or asked about: `edge-harness fit FILE -d DEVICE`.
    """
    from harness.app.ladder import DEFAULT_QUANTS, Asked
    from harness.app.ladder import ladder as measure
    from harness.app.resolve import scenario_from
    from harness.records.ladder import CALIBRATION_COLUMNS, COLUMNS, caveats, cells, rungs_of

    fields["context_tokens"] = max(1024, fields["prompt_tokens"], fields["new_tokens"])
    asked = Asked(
        chunks, questions, None if no_speed else scenario_from(fields), repetitions, runtimes or ("llamacpp",)
    )
    wanted = tuple(dict.fromkeys(map(str.upper, quants))) or DEFAULT_QUANTS
    records = measure(options.model_file(model, "", how), wanted, text=text, asked=asked, keep=keep, how=how)
    rungs = rungs_of(records)

    def show() -> None:
        rows = list(map(cells, rungs))
        last = len(COLUMNS) - CALIBRATION_COLUMNS
        changes = [(row[0], *row[last:]) for row in rows if row[last]]
        say(
            table(f"{rungs[0].model}, quantised", COLUMNS[:last], [row[:last] for row in rows]),
            table("Calibration beside the reference", (COLUMNS[0], *COLUMNS[last:]), changes),
            *caveats(rungs),
        )

    is_made = any(rung.outcome == "ok" for rung in rungs)
    return Answer({"rungs": rungs, "records": records}, show, Exit.OK if is_made else Exit.COULD_NOT_RUN)
