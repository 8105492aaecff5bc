"""``edge-harness history``: every run made here, and one of them in full."""

from pathlib import Path
from typing import Any, get_args

import click

from harness.cli import _options as options
from harness.cli._command import Verb
from harness.cli._output import Answer, answers, say, table


@click.command(cls=Verb)
@click.argument("run_id", required=False)
@click.option("--model", default="", help="Only runs of this model.")
@click.option("--device", default="", help="Only runs on this device.")
@click.option("--workload", default="", help="Only runs of this workload.")
@click.option("--outcome", default="", help="Only runs that ended so: ok, inconclusive, crashed ...")
@click.option("--limit", type=click.IntRange(1, 10**9), show_default="20; all of them with --export")
@click.option("--import", "imported", type=click.Path(path_type=Path), help="Keep the records of this file or folder: "
              "another history (.sqlite), JSON lines (.jsonl), or results that `report` reads.")  # fmt: skip
@click.option(
    "--export", "exported", type=options.Ending(".jsonl"), help="Write the records that match to this .jsonl."
)
@click.option("--trend", metavar="METRIC", help="Course of a metric over comparable runs, such as decode_tokens_per_s.")
@answers
def history(
    run_id: str | None,
    imported: Path | None,
    exported: Path | None,
    trend: str | None,
    limit: int | None,
    **wanted: Any,
) -> Answer:
    """List past runs, newest first, or show RUN_ID (its beginning is enough).

    With --trend: medians over time, and the last change as a ratio with its 95 % interval and effect size.
    With --export: each record as one line of JSON, newest first; DuckDB and pandas read it, and so does --import.
    """
    from harness.cli._records import show_record, trends
    from harness.domain.record import Outcome
    from harness.errors import UnknownNameError
    from harness.measure.pipeline import open_history

    if wanted["outcome"] not in {"", *get_args(Outcome)}:
        raise UnknownNameError("outcome", wanted["outcome"], get_args(Outcome))
    past = open_history()
    if imported:
        from harness.app.results import gather
        from harness.records.history import History, is_history
        from harness.records.store import lines

        before = past.count()
        if imported.suffix == ".jsonl":
            past.extend(lines(imported))
        elif imported.suffix == ".sqlite" and is_history(imported):
            past.extend(History(imported).records(limit=2**62))
        else:
            past.extend(gather([str(imported)]))
        count = past.count() - before
        return Answer({"imported": count}, lambda: click.echo(f"{count} runs from {imported}"))
    if exported:
        from harness.records.store import encode

        count = 0
        with exported.open("wb") as file:
            for found in past.records(limit=limit or 2**62, **wanted):
                file.write(encode(found) + b"\n")
                count += 1
        return Answer({"exported": count}, lambda: click.echo(f"{count} runs to {exported}"))
    wanted["limit"] = limit or 20
    if run_id:
        record = past.get(run_id)
        return Answer(record, lambda: show_record(record))
    if trend:
        return trends(past, trend, **wanted)
    entries = past.entries(**wanted)
    rows = [(e.run_id, e.workload, f"{e.model} {e.quant}".strip(), e.device, e.outcome) for e in entries]
    columns = ("run", "workload", "model", "device", "outcome")
    return Answer(entries, lambda: say(table(f"{past.count()} runs in {past.path}", columns, rows)))
