"""``edge-harness workloads``: systems that run beside a language model, measured like one."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import _options as options
from harness.cli._command import Verbs
from harness.cli._effect import refuse_typed
from harness.cli._output import Answer, answers, model_file, say, table
from harness.errors import Exit, HarnessError
from harness.units import format_seconds

if TYPE_CHECKING:
    from harness.domain.record import RunRecord
    from harness.workloads.run import Given, OnTarget, SystemRun


@click.group(cls=Verbs)
def workloads() -> None:
    """Run, predict and evaluate systems beside a language model: memory, calibration, reasoning and others."""


@workloads.command("list", epilog="edge-harness workloads list")
@answers
def list_() -> Answer:
    """List every system with its parts, its sizes and the columns of its cases."""
    from harness.workloads.registry import load_all

    gone: list[str] = []
    systems = load_all(missing=lambda _name, why: gone.append(why))
    rows = [[s.name, ", ".join(s.parts) or "-", ", ".join(s.sizes), s.extra or "-", s.title] for s in systems]
    document = [
        {
            "name": system.name,
            "title": system.title,
            "parts": list(system.parts),
            "extra": system.extra,
            "sizes": system.sizes,
            "columns": {name: column.what for name, column in system.columns.items()},
        }
        for system in systems
    ]
    return Answer(document, lambda: say(table("", ["system", "parts", "sizes", "extra", "what it does"], rows), *gone))


_parts = options.together(
    click.option("--model", metavar="MODEL", help="Language model: a name, name:quant or file."),
    click.option("--encoder", metavar="FOLDER", help="Sentence encoder: a folder or hf:org/name; MiniLM unless given."),
    click.option("--nli", metavar="FOLDER", help="NLI cross-encoder: a folder or hf:org/name with model.onnx."),
)
_running = options.together(
    _parts,
    click.option("--evaluate", is_flag=True, help="Answer every case, not only enough of them to time each step."),
    click.option("--predict-for", "devices", multiple=True, metavar="DEVICE", help="Also predict for it; repeatable."),
    options.repetitions(30),
    click.option(
        "--threads",
        "-t",
        "thread_count",
        type=options.Count(1, 1024),
        default=1,
        show_default=True,
        help="CPU threads.",
    ),
    options.seed("the built-in cases", 1),
    options.memory_limit,
)


@workloads.command("run", epilog="edge-harness workloads run memory_store")
@click.argument("name")
@click.option(
    "--cases", type=options.FILE_HERE, help="Your own cases, JSON lines; `workloads list --json` names columns."
)
@click.option("--size", default="default", show_default=True, help="A named size, or parts such as entry_count=5000.")
@_running
@options.on_target
@options.measuring()
def run(
    name: str,
    cases: Path | None,
    size: str,
    model: str | None,
    encoder: str | None,
    nli: str | None,
    target: str,
    programs: Path | None,
    **fields: Any,
) -> Answer:
    """Predict system NAME, answer its cases on the clock, and score the answers.

    With --on and --programs its language model runs on the target, and the rest of its cost is scaled from here.

    Exit status: 0 well, 1 a wrong answer, 2 bad input, 4 it could not run.
    """
    from harness.workloads.registry import load
    from harness.workloads.run import run as run_system
    from harness.workloads.run import run_on

    _refuse_unused(load(name).parts)
    given = _given(model, encoder, nli, cases)
    if programs is not None:
        of_runs = {
            "cases",
            "evaluate",
            "devices",
            "repetitions",
            "thread_count",
            "seed",
            "memory_bytes",
            "nli",
            "encoder",
        }
        refuse_typed(of_runs, "with --programs: the target runs no Python")
        there = run_on(name, given, size=size, on=target, programs=programs, how=fields["how"])
        return Answer(there, lambda: _show_target(there), _status([there.record] if there.record else []))
    result = run_system(name, given, size=size, **fields)
    return Answer(result, lambda: _show([result]), _status([result.record]))


@workloads.command("table", epilog="edge-harness workloads table --size small")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@_running
@options.measuring()
def table_(
    names: tuple[str, ...],
    model: str | None,
    encoder: str | None,
    nli: str | None,
    **fields: Any,
) -> Answer:
    """Run every system (or those named) with the parts given: times, predictions, memory and figures of each.

    Exit status: 0 well, 1 a wrong answer, 2 bad input, 4 one could not run.
    """
    from harness.workloads.registry import load_all
    from harness.workloads.run import run as run_system
    from harness.workloads.table import median_error

    given = _given(model, encoder, nli, None)
    runs: list[SystemRun] = []
    skipped: dict[str, str] = {}
    for system in load_all(names, missing=skipped.__setitem__):
        fields["how"].listener.say(f"running {system.name}")
        try:
            runs.append(run_system(system.name, given, **fields))
        except HarnessError as error:
            skipped[system.name] = str(error)
    middle = median_error(runs)
    lines = [f"not run: {name}: {why}" for name, why in skipped.items()]
    lines += [f"median error: {middle:.1%}"] if middle is not None else []
    document = {"runs": runs, "skipped": skipped, "median_error_ratio": middle}
    return Answer(document, lambda: _show(runs, lines), _status([one.record for one in runs]))


def _given(model: str | None, encoder: str | None, nli: str | None, cases: Path | None) -> "Given":
    from harness.workloads.parts.onnx_model import folder_of
    from harness.workloads.run import Given

    return Given(
        language=model_file(model) if model else None,
        encoder=folder_of(encoder) if encoder else None,
        nli=folder_of(nli) if nli else None,
        cases=cases,
    )


def _refuse_unused(wanted: Iterable[str]) -> None:
    """Refuse a part that the system does not take (UsageError)."""
    taken = {name for text in wanted for name in text.removesuffix("?").split("|")}
    for name, option in (("language", "model"), ("encoder", "encoder"), ("nli", "nli")):
        refuse_typed(
            {option}, f"here: this system takes {', '.join(sorted(taken)) or 'no model'}", when=name not in taken
        )


def _status(records: "Iterable[RunRecord]") -> int:
    bad = [record for record in records if record.outcome != "ok"]
    if not bad:
        return Exit.OK
    if any(record.outcome == "interrupted" for record in bad):
        return 130
    return Exit.BROKEN if any("WrongAnswerError" in record.detail for record in bad) else Exit.COULD_NOT_RUN


def _show(runs: "Sequence[SystemRun]", lines: "Iterable[str]" = ()) -> None:
    from harness.workloads.table import views

    details = [f"{one.record.workload}: {one.record.outcome}: {one.record.detail}" for one in runs if one.record.detail]
    say(*(table(title, columns, rows, right=right) for title, columns, rows, right in views(runs)), *details, *lines)


def _show_target(there: "OnTarget") -> None:
    rows = [
        [step.kind, format_seconds(step.latency_s.mid) if step.latency_s else "-", step.note] for step in there.steps
    ]
    say(table(f"on {there.target}", ["step", "latency", "from"], rows, right=(1,)), there.basis)
    if there.record is not None and there.record.detail:
        say(there.record.detail)
