"""``edge-harness report``: one self-contained page, or the same for a comment."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import click
from msgspec import Meta

from harness.cli import _options as options
from harness.cli._command import refuse_typed, verb
from harness.cli._output import put
from harness.domain.option import Option
from harness.errors import RefusedError
from harness.printable import clean_lines
from harness.units import counted, format_bytes

if TYPE_CHECKING:
    from harness.domain.record import RunRecord
    from harness.gates.judge import Judgement

_ENDINGS = {".html": "html", ".htm": "html", ".md": "md"}


@verb
def report(
    results: options.Results = (),
    out: Annotated[
        Path | None,
        Meta(description="File to write, in the format of its ending: .html or .md."),
        Option("--out -o", "Output", path="file"),
    ] = None,
    form: Annotated[
        Literal["html", "md"] | None,
        Meta(description="Format."),
        Option("--format -f", "Output", default="by the ending of --out"),
    ] = None,
    devices: Annotated[
        tuple[str, ...],
        Meta(description="Devices to predict: names or patterns."),
        Option("--devices -d", default="five usual ones"),
    ] = (),
    models: Annotated[
        tuple[str, ...],
        Meta(description="Models to predict: names or patterns."),
        Option("--models -m", default="the models of the results, and five others"),
    ] = (),
    budget: Annotated[
        Path | None,
        Meta(
            description="Budgets file (TOML): judge the results as `gate` does, and show what came of it first."
        ),
        Option("--budget -b", path="file"),
    ] = None,
    baseline: Annotated[
        options.Baseline,
        Option("--baseline", is_repeated=True, default="without --budget: no speed 10 % below it"),
    ] = (),
) -> None:
    """Make a report of each RESULT: a record, a folder of them, a run of the history, or another tool's file.

    Files of llama-bench (JSON, JSON lines, tables), and what Ollama, LM Studio and llama-server answer, are
    read too. Without a RESULT the report holds predictions alone.
    """
    from harness.app.results import gather
    from harness.report.elsewhere import tables
    from harness.report.formats import html, md
    from harness.report.pages import page_of

    shape: str | None = form
    if form is None:
        shape = "html"
        if out:
            shape = _ENDINGS.get(out.suffix.lower())
    if shape is None:
        others = "; a program reads `edge-harness history RUN... --json`"
        raise click.UsageError(f"{out}: give a --format, or one of the endings {', '.join(_ENDINGS)}{others}")
    if shape == "html" and out is None:
        raise click.UsageError("a page needs a file: -o report.html")
    drawn = {"budget", "baseline", "devices", "models"}
    refuse_typed(drawn, f"in {shape}: only a page (.html) shows it", when=shape != "html")
    records = gather(results)
    if shape == "md" and not records:
        raise RefusedError("nothing to report: no RESULT")
    if shape == "md":
        text = md.render(records)
    else:
        judgements = _judged(records, budget, baseline)
        predicted = []
        if len(records) != 1 or devices or models:
            predicted = tables(records, devices=devices, models=models)
        text = html.render(page_of(records, tables=predicted, judgements=judgements))
    put(clean_lines(text), out).show()
    if out is not None:
        click.echo(f"{out}: {counted(len(records), 'run')}, {format_bytes(len(text.encode()))}", err=True)


def _judged(records: "list[RunRecord]", budget: Path | None, baseline: tuple[str, ...]) -> "list[Judgement]":
    """What a gate says of the records: by a file of budgets.

    Without one, that none is slower than its baseline.
    """
    from harness.app.results import gather
    from harness.catalog.budgets import load_budgets
    from harness.gates.evaluate import evaluate
    from harness.gates.propose import propose

    earlier = gather(baseline)
    budgets = list(load_budgets(budget) if budget else ())
    if not budget:
        budgets = [proposal.budget for proposal in propose(earlier, "regression")]
    if not budgets:
        return []
    return evaluate(budgets, records, baseline=earlier)
