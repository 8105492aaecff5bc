"""``edge-harness compare``: what was predicted before a run, beside what it measured; and two runs with each other."""

import os
from pathlib import Path

import click

from harness.cli import _options as options
from harness.cli._command import Verb
from harness.cli._output import Answer, answers, say
from harness.errors import Exit, RefusedError


@click.command(cls=Verb)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--max-error", "max_error_percent", type=options.Amount(or_zero=True), help="Exit 1 above this error, in percent."
)
@answers
def compare(runs: tuple[str, ...], max_error_percent: float | None) -> Answer:
    """Compare prediction and measurement of each RUN (a record file, or a run of the history).

    Two runs are compared with each other too: ratio of the second to the first, 95 % interval, effect size.
    --max-error judges decode, prefill and peak memory; times of loading are shown only.
    """
    from harness.app.check import gate
    from harness.app.trend import differences, not_alike
    from harness.cli._records import comparison_table, difference_view, title_of
    from harness.measure.pipeline import open_history
    from harness.records.compare import compare as compare_record
    from harness.records.store import load

    files = [r.endswith(".json") or os.path.exists(r) for r in runs]  # noqa: PTH110 - a run may have any name
    records = [load(Path(r)) if is_file else open_history().get(r) for r, is_file in zip(runs, files, strict=True)]
    found = [(record, compare_record(record)) for record in records]
    missing = [record.run_id for record, comparison in found if comparison is None]
    if missing and len(records) != 2:
        raise RefusedError(f"nothing was predicted before {', '.join(missing)}: run edge-harness check")
    comparisons = [(record, c) for record, c in found if c is not None]
    broken = gate([c for _, c in comparisons], max_error_percent)
    document: list[dict[str, object]] = [
        {"run": c, "errors": {r.name: r.error_ratio for r in c.rows}} for _, c in comparisons
    ]
    if len(records) == 2:
        document.append({"differences": differences(*records), "not_alike": not_alike(*records)})

    def show() -> None:
        for record, comparison in comparisons:
            say(comparison_table(comparison, title_of(record)), *comparison.notes)
        if len(records) == 2:
            say(*difference_view(*records))
        say(*broken)

    return Answer(document, show, Exit.BROKEN if broken else Exit.OK)
