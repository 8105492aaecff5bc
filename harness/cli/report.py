"""``edge-harness report``: one self-contained page, or the same for a comment."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from harness.cli._command import verb
from harness.cli._effect import refuse_typed
from harness.cli._output import put
from harness.errors import RefusedError
from harness.printable import clean_lines
from harness.units import counted, format_bytes


@verb
def report(
    results: tuple[str, ...],
    out: Path | None,
    form: str | None,
    predictions: bool,
    budget: Path | None,
    **asked: Any,
) -> None:
    """Make a report of each RESULT: a record, a folder of them, a run of the history, or another tool's file.

    Files of llama-bench (JSON, JSON lines, tables), Ollama, LM Studio, llama-server and guidellm are read, too. Without
    a RESULT the report holds predictions alone.
    """
    from harness.app.results import gather
    from harness.catalog.budgets import load_budgets
    from harness.cli._progress import RunProgress
    from harness.gates.evaluate import evaluate
    from harness.gates.formats import chart_rows
    from harness.report.choices import beside
    from harness.report.document import build

    endings = {".html": "html", ".htm": "html", ".md": "md"}
    form = form or (endings.get(out.suffix.lower()) if out else "html")
    if form is None:
        others = "; a program reads `edge-harness history RUN... --json`"
        raise click.UsageError(f"{out}: give a --format, or one of the endings {', '.join(endings)}{others}")
    if form == "html" and out is None:
        raise click.UsageError("a page needs a file: -o report.html")
    records = gather(results)
    refuse_typed({"budget", "predictions", *asked}, f"in {form}: only a page (.html) shows it", when=form != "html")
    wanted = form == "html" and predictions
    if not wanted and not records:
        raise RefusedError("nothing to report: no RESULT, and no predictions wanted")
    given = {name: each for name, each in asked.items() if each}
    with RunProgress("predicting") as progress:
        predicted = beside(records, each=progress.each, **given) if wanted else None
    limits = load_budgets(budget) if budget else ()
    judged = chart_rows(evaluate([b for b in limits if not (b.baseline_ratio or b.slowdown_ratio)], records))
    document = build(records, predicted, command=("edge-harness", *sys.argv[1:]), budgets=judged)
    text = clean_lines(import_module(f"harness.report.formats.{form}").render(records, document))
    put(text, out).show()
    if out is not None:
        click.echo(f"{out}: {counted(len(records), 'run')}, {format_bytes(len(text.encode()))}", err=True)
