"""``edge-harness report``: one self-contained page, or the same for a comment."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import click
from msgspec import Meta

from harness.cli import _options as options
from harness.cli._command import verb
from harness.cli._effect import refuse_typed
from harness.cli._output import put
from harness.domain.option import Option
from harness.errors import RefusedError
from harness.printable import clean_lines
from harness.units import counted, format_bytes


@verb
def report(
    results: options.Results = (),
    out: Annotated[
        Path | None,
        Meta(description="File to write, in the format of its ending: .html or .md."),
        Option(("--out", "-o"), "Output", path="file"),
    ] = None,
    form: Annotated[
        Literal["html", "md"] | None,
        Meta(description="Format."),
        Option(("--format", "-f"), "Output", default="by the ending of --out; html without --out"),
    ] = None,
    devices: Annotated[
        tuple[str, ...],
        Meta(description="Devices to predict: names or patterns."),
        Option(("--devices", "-d"), default="the machines of the results, and five others"),
    ] = (),
    models: Annotated[
        tuple[str, ...],
        Meta(description="Models to predict: names or patterns."),
        Option(("--models", "-m"), default="the models of the results, and four others"),
    ] = (),
    quants: Annotated[
        tuple[str, ...],
        Meta(description="Quantisations to predict."),
        Option(("--quants", "-q"), default="five usual ones"),
    ] = (),
    contexts: Annotated[options.ContextLengths, Option(("--contexts", "-c"), default="four usual ones")] = (),
    predictions: Annotated[
        bool,
        Meta(description="Add predictions for other models and devices, or leave them out."),
        Option(("--predictions/--no-predictions",)),
    ] = True,
    budget: Annotated[
        Path | None,
        Meta(description="Budgets file (TOML): judge the results as `gate` does, and draw the limits."),
        Option(("--budget", "-b"), path="file"),
    ] = None,
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
    shape: str | None = form
    if form is None:
        shape = endings.get(out.suffix.lower()) if out else "html"
    if shape is None:
        others = "; a program reads `edge-harness history RUN... --json`"
        raise click.UsageError(f"{out}: give a --format, or one of the endings {', '.join(endings)}{others}")
    if shape == "html" and out is None:
        raise click.UsageError("a page needs a file: -o report.html")
    records = gather(results)
    asked: dict[str, Any] = {"devices": devices, "models": models, "quants": quants, "contexts": contexts}
    refuse_typed({"budget", "predictions", *asked}, f"in {shape}: only a page (.html) shows it", when=shape != "html")
    wanted = shape == "html" and predictions
    if not wanted and not records:
        raise RefusedError("nothing to report: no RESULT, and no predictions wanted")
    given = {name: each for name, each in asked.items() if each}
    with RunProgress("predicting") as progress:
        predicted = beside(records, each=progress.each, **given) if wanted else None
    limits = load_budgets(budget) if budget else ()
    judged = chart_rows(evaluate([b for b in limits if not (b.baseline_ratio or b.slowdown_ratio)], records))
    document = build(records, predicted, command=("edge-harness", *sys.argv[1:]), budgets=judged)
    text = clean_lines(import_module(f"harness.report.formats.{shape}").render(records, document))
    put(text, out).show()
    if out is not None:
        click.echo(f"{out}: {counted(len(records), 'run')}, {format_bytes(len(text.encode()))}", err=True)
