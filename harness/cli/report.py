"""``edge-harness report``: one self-contained page, or the same as Markdown."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from harness.cli import _options as options
from harness.cli.command import verb
from harness.core.option import Option
from harness.core.printable import clean_lines
from harness.core.units import counted, format_bytes

if TYPE_CHECKING:
    from harness.core.record import Record
    from harness.gates.judge import Judgement


@verb
def report(
    out: Annotated[
        Path,
        Option(
            "--out -o",
            "File to write: .html, or .md for a comment on a pull request.",
            "Output",
            reads=options.ending(".html", ".htm", ".md"),
        ),
    ],
    results: options.Results = (),
    devices: Annotated[
        tuple[str, ...],
        Option("--devices -d", "Devices to predict: names or patterns.", default="five usual ones"),
    ] = (),
    models: Annotated[
        tuple[str, ...],
        Option(
            "--models -m",
            "Models to predict: names or patterns.",
            default="the models of the results, and five others",
        ),
    ] = (),
    budget: Annotated[
        Path | None,
        Option(
            "--budget -b",
            "Budgets file (TOML): judge the results as `gate` does, and show what came of it first.",
            path="file",
        ),
    ] = None,
    baseline: options.Baseline = (),
) -> None:
    """Make a report of each RESULT: a record, a folder of them, a run of the history, or another tool's file.

    Files of llama-bench (JSON, JSON lines, tables), and what Ollama, LM Studio and llama-server answer, are
    read too. Without a RESULT the report holds predictions alone.

    Example: edge-harness report results/ -o report.html
    """
    from harness.records.store import write_atomically
    from harness.show import html
    from harness.show.elsewhere import tables
    from harness.show.pages import page_of
    from harness.verbs.results import gather

    records = gather(results)
    judgements = _judged(records, budget, baseline)
    predicted = []
    if len(records) != 1 or devices or models:
        predicted = tables(records, devices=devices, models=models)
    made = page_of(records, tables=predicted, judgements=judgements)
    render = html.render_markdown if out.suffix == ".md" else html.render
    page = clean_lines(render(made)).encode()
    write_atomically(out, page)
    click.echo(f"{out}: {counted(len(records), 'run')}, {format_bytes(len(page))}", err=True)


def _judged(records: "list[Record]", budget: Path | None, baseline: tuple[str, ...]) -> "list[Judgement]":
    """Judge the records by a file of budgets.

    Without a file, judge that no record is slower than its baseline.
    """
    from harness.gates.budget_file import load_budgets
    from harness.gates.evaluate import evaluate
    from harness.gates.propose import propose
    from harness.verbs.results import gather

    earlier = gather(baseline)
    budgets = list(load_budgets(budget) if budget else ())
    if not budget:
        budgets = [proposal.budget for proposal in propose(earlier, "regression")]
    if not budgets:
        return []
    return evaluate(budgets, records, baseline=earlier)
