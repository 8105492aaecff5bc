"""``edge-harness workloads``: systems that run beside a language model, measured like one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from harness.cli import _options as options
from harness.cli._command import Verbs, typed
from harness.cli._effect import refuse_typed
from harness.cli._output import Answer, say, table
from harness.errors import Exit, HarnessError

_OF_RUNS_HERE = frozenset(
    {"cases", "evaluate", "devices", "repetitions", "thread_count", "seed", "memory_bytes", "nli", "encoder"}
)


@click.group(cls=Verbs)
def workloads() -> None:
    """Run, predict and score the systems around a language model: memory store, calibration, reasoning and others."""


@workloads.command("run", epilog="edge-harness workloads run memory_store")
@options.measuring
def run(
    names: tuple[str, ...],
    cases: Path | None,
    model: str | None,
    encoder: str | None,
    nli: str | None,
    target: str,
    programs: Path | None,
    how: "options.How",
    **fields: Any,
) -> Answer:
    """Predict the named systems, time them on their cases, and score the answers; without a NAME, list them all.

    With --on and --programs the language model runs on the target, and the rest of the cost is scaled from here.

    Exit status: 0 well, 1 a wrong answer, 3 inconclusive, 4 one could not run.
    """
    from harness.app.run import exit_of
    from harness.workloads.parts.onnx_model import folder_of
    from harness.workloads.run import Given, SystemRun, run_on
    from harness.workloads.run import run as run_here
    from harness.workloads.system import load_all
    from harness.workloads.table import median_error, views

    if not names:
        refuse_typed(typed(click.get_current_context()), "without a NAME")
        return _listed()
    is_alone = len(names) == 1
    refuse_typed({"cases"}, "unless one system is named", when=not is_alone)
    systems, skipped = load_all(names)
    _refuse_unused(text for system in systems for text in system.parts)
    given = Given(
        language=options.model_file(model, "", how) if model else None,
        encoder=folder_of(encoder) if encoder else None,
        nli=folder_of(nli) if nli else None,
        cases=cases,
    )
    if programs is not None:
        refuse_typed(_OF_RUNS_HERE, "with --programs: the target runs no Python")
    runs: list[SystemRun] = []
    for index, system in enumerate(systems):
        how.listener.plan(len(systems) - index)
        try:
            if programs is None:
                runs.append(run_here(system.name, given, how=how, **fields))
            else:
                there = {"size": fields["size"], "on": target, "programs": programs, "how": how}
                runs.append(run_on(system.name, given, **there))
        except HarnessError as error:
            if is_alone:
                raise
            skipped[system.name] = str(error)
    made = [(one.name, one.record) for one in runs if one.record]
    lines = [f"{name}: {record.outcome}: {record.detail}" for name, record in made if record.detail]
    lines += [f"not run: {name}: {why}" for name, why in skipped.items()]
    middle = median_error(runs)
    lines += [f"median error: {middle:.1%}"] if middle is not None and not is_alone else []
    document = {"runs": runs, "skipped": skipped, "median_error_ratio": middle}
    is_wrong = any("WrongAnswerError" in record.detail for _, record in made)
    status = Exit.BROKEN if is_wrong else exit_of([record for _, record in made])
    if skipped and status in {Exit.OK, Exit.INCONCLUSIVE}:
        status = Exit.COULD_NOT_RUN
    parts = [*(table(*view) for view in views(runs)), *lines]
    return Answer(runs[0] if is_alone and runs else document, lambda: say(*parts), status)


def _listed() -> Answer:
    """Every system with its parts, its sizes and the columns of its cases."""
    from harness.workloads.system import load_all

    systems, gone = load_all()
    rows = [[s.name, ", ".join(s.parts) or "-", ", ".join(s.sizes), s.extra or "-", s.title] for s in systems]
    shown = ("name", "title", "parts", "extra", "sizes")
    document = [
        {name: getattr(system, name) for name in shown}
        | {"columns": {name: column.what for name, column in system.columns.items()}}
        for system in systems
    ]
    view = table("", ["system", "parts", "sizes", "extra", "what it does"], rows)
    return Answer(document, lambda: say(view, *gone.values()))


def _refuse_unused(wanted: Iterable[str]) -> None:
    """Refuse a part that none of the systems takes (UsageError)."""
    taken = {name for text in wanted for name in text.removesuffix("?").split("|")}
    for name, option in (("language", "model"), ("encoder", "encoder"), ("nli", "nli")):
        refuse_typed(
            {option}, f"here: what runs takes {', '.join(sorted(taken)) or 'no model'}", when=name not in taken
        )
