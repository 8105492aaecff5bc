"""``edge-harness workloads``: systems that run beside a language model, measured like one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import click
from msgspec import Meta

from harness.cli import _options as options
from harness.cli._command import Verbs, refuse_typed, typed
from harness.cli._output import Answer, say, table
from harness.domain.option import Option
from harness.errors import Exit, HarnessError

_OF_RUNS_HERE = frozenset({"devices", "thread_count", "memory_bytes", "nli"})


class _Measuring(options.Anywhere):
    memory_bytes: options.MemoryLimit = None


@click.group(cls=Verbs)
def workloads() -> None:
    """Run, predict and score systems around a language model: memory, answers with confidence and others."""


@workloads.command("run", epilog="edge-harness workloads run memory")
def run(
    measuring: _Measuring,
    names: Annotated[tuple[str, ...], Option(metavar="[NAME...]")] = (),
    cases: Annotated[
        Path | None,
        Meta(
            description="Your own cases, as JSON lines; `workloads run --json` without a NAME lists their columns."
        ),
        Option("--cases", path="file", is_here=True),
    ] = None,
    size: Annotated[
        str,
        Meta(description="A named size, or changes to the default one, such as entry_count=5000."),
        Option("--size"),
    ] = "default",
    model: Annotated[
        str | None,
        Meta(description="Language model: a name, name:quant or file."),
        Option("--model", metavar="MODEL", names="models"),
    ] = None,
    encoder: Annotated[
        str | None,
        Meta(description="Sentence encoder: a GGUF file, or a folder with model.onnx."),
        Option("--encoder", metavar="FILE", default="MiniLM"),
    ] = None,
    nli: Annotated[
        str | None,
        Meta(description="NLI cross-encoder (does one text contradict another?): a folder with model.onnx."),
        Option("--nli", metavar="FOLDER"),
    ] = None,
    evaluate: Annotated[
        bool,
        Meta(description="Answer every case, rather than just enough to time each step."),
        Option("--evaluate"),
    ] = False,
    devices: Annotated[
        tuple[str, ...],
        Meta(description="Also predict this device; repeatable."),
        Option("--predict-for", metavar="DEVICE", is_repeated=True, names="devices"),
    ] = (),
    repetitions: options.Repetitions = 30,
    thread_count: Annotated[
        int,
        Meta(ge=1, le=1024, description="CPU threads."),
        Option("--threads -t", "Engine and placement"),
    ] = 1,
    seed: options.Seed = 1,
) -> Answer:
    """Predict the named systems, time them on their cases, and score the answers.

    Without a NAME, list them all.

    With --on and --programs every pass that llama-bench can run is timed on the target; the rest has no
    figure there.

    Exit status: 0 well, 1 a wrong answer, 3 inconclusive, 4 one could not run.
    """
    from harness.app.run import exit_of
    from harness.workloads.page import median_error, views
    from harness.workloads.run import Given, SystemRun
    from harness.workloads.run import run as run_here
    from harness.workloads.system import load_all
    from harness.workloads.target import run_on

    if measuring.is_handed_over:
        return options.handed_over(measuring)
    if not names:
        refuse_typed(typed(click.get_current_context()), "without a NAME")
        return _listed()
    is_alone = len(names) == 1
    refuse_typed({"cases"}, "unless one system is named", when=not is_alone)
    systems, skipped = load_all(names)
    _refuse_unused(part for system in systems for part in (*system.parts, *system.options))
    programs = measuring.programs
    if programs is not None:
        refuse_typed(_OF_RUNS_HERE, "with --programs: the target runs no Python")
    runs: list[SystemRun] = []
    with measuring.started() as how:
        given = Given(
            language=options.model_file(model, "", how) if model else None,
            encoder=Path(encoder) if encoder else None,
            nli=Path(nli) if nli else None,
            cases=cases,
        )
        for index, system in enumerate(systems):
            how.listener.plan(len(systems) - index)
            try:
                if programs is None:
                    one = run_here(
                        system.name,
                        given,
                        size=size,
                        devices=devices,
                        thread_count=thread_count,
                        how=how,
                        evaluate=evaluate,
                        repetitions=repetitions,
                        seed=seed,
                    )
                else:
                    one = run_on(
                        system.name,
                        given,
                        size=size,
                        on=measuring.target,
                        programs=programs,
                        how=how,
                        evaluate=evaluate,
                        repetitions=repetitions,
                        seed=seed,
                    )
            except HarnessError as error:
                if is_alone:
                    raise
                skipped[system.name] = str(error)
            else:
                runs.append(one)
    made = [(one.name, one.record) for one in runs]
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
    rows = []
    document = []
    for system in systems:
        parts = [*system.parts, *(f"[{part}]" for part in system.options)]
        rows.append(
            [system.name, ", ".join(parts) or "-", ", ".join(system.sizes), system.extra or "-", system.title]
        )
        told = {"name": system.name, "title": system.title, "parts": parts, "extra": system.extra}
        document.append(told | {"sizes": system.sizes, "columns": system.columns()})
    view = table("", ["system", "parts", "sizes", "extra", "what it does"], rows)
    return Answer(document, lambda: say(view, *gone.values()))


def _refuse_unused(wanted: Iterable[str]) -> None:
    """Refuse a part that none of the systems takes (UsageError)."""
    taken = set(wanted)
    for name, option in (("language", "model"), ("encoder", "encoder"), ("nli", "nli")):
        refuse_typed(
            {option},
            f"here: what runs takes {', '.join(sorted(taken)) or 'no model'}",
            when=name not in taken,
        )
