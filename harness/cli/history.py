"""``edge-harness history``: every run made here, and one of them in full."""

from pathlib import Path
from typing import Any

import click

from harness.cli._output import console, emit_json, json_option, say, table


@click.command()
@click.argument("run_id", required=False)
@click.option("--model", default="", help="Only runs of this model.")
@click.option("--device", default="", help="Only runs on this device.")
@click.option("--workload", default="", help="Only runs of this workload.")
@click.option("--outcome", default="", help="Only runs that ended so: ok, inconclusive, crashed ...")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True)
@click.option("--import", "imported", type=click.Path(path_type=Path), help="Keep the records of this file or folder: "
              "another history (.sqlite), JSON lines (.jsonl), or results that `report` reads.")  # fmt: skip
@click.option("--trend", metavar="METRIC", help="Course of a metric over comparable runs, such as decode_tokens_per_s.")
@json_option
def history(
    run_id: str | None,
    imported: Path | None,
    trend: str | None,
    as_json: bool,
    **wanted: Any,
) -> None:
    """List past runs, newest first, or show RUN_ID (its beginning is enough).

    With --trend: medians over time, and the last change as a ratio with its 95 % interval and effect size.
    """
    from harness.cli._records import reasons, run_table
    from harness.measure.pipeline import open_history

    past = open_history()
    if imported:
        from harness.app.results import stream

        before = past.count()
        past.extend(stream(imported))
        count = past.count() - before
        emit_json({"imported": count}) if as_json else click.echo(f"{count} runs from {imported}")
        return
    if run_id:
        record = past.get(run_id)
        if as_json:
            emit_json(record)
            return
        console().print(run_table([record]))
        say(*reasons([record]))
        return
    if trend:
        from harness.cli._trends import show_trends

        show_trends(past, trend, as_json=as_json, **wanted)
        return
    entries = past.entries(**wanted)
    if as_json:
        emit_json(entries)
        return
    rows = [(e.run_id, e.workload, f"{e.model} {e.quant}".strip(), e.device, e.outcome) for e in entries]
    console().print(
        table(f"{past.count()} runs in {past.path}", ("run", "workload", "model", "device", "outcome"), rows)
    )


COMMAND = history
