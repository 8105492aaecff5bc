"""``edge-harness gate``: judge runs and predictions against budgets, and keep the baseline that they are held to."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import click
from msgspec import Meta

from harness.cli import _options as options
from harness.cli.command import Verbs, refuse_typed
from harness.core.base import Frozen
from harness.core.errors import CouldNotRunError, RefusedError
from harness.core.option import Option
from harness.core.printable import clean_lines, print_commands
from harness.core.units import counted
from harness.show.output import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.core.record import Record
    from harness.gates.judge import Judgement

FILES = {".txt": "terminal", ".md": "markdown", ".xml": "junit", ".svg": "badge"}
"""Format of a file by its ending."""

_Given = Annotated[tuple[str, ...], Option(metavar="RESULT...")]


class _Presentation(Frozen):
    """How a judgement is shown, and where it is written."""

    form: Annotated[
        Literal["terminal", "markdown", "junit", "github", "badge"],
        Option("--format", "Format of what is printed; github: annotations of a workflow.", "Output"),
    ] = "terminal"
    out: Annotated[
        tuple[Path, ...],
        Option(
            "--out -o",
            "Also write the answer to this file, in the format of its ending: .txt, .md, .xml "
            "(JUnit), .svg (badge). Repeatable.",
            "Output",
            is_repeated=True,
            reads=options.ending(*FILES),
        ),
    ] = ()
    show_all: Annotated[bool, Option("--all", "Print every budget, with its evidence.", "Output")] = False


def _time(text: str) -> datetime:
    """The time that a text tells, in UTC where it does not say."""
    given = datetime.fromisoformat(text)
    return given if given.tzinfo else given.replace(tzinfo=UTC)


def _share(text: str) -> float:
    """A share from ``10%`` or ``0.1``."""
    return float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)


class _Gate(Verbs):
    """``gate RESULT...`` judges; ``gate init`` and ``gate live`` are verbs of their own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take everything that names no verb for options and results to judge."""
        if args and args[0] not in {*self.commands, "--help", "-h"}:
            args = ["judge", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Gate)
def gate() -> None:
    """Judge results against budgets, and say whether a build may go out.

    \b
      edge-harness gate --budget budgets.toml RESULT...     judge records (the default)
      edge-harness gate live --budget budgets.toml ...      run a build in turns with its baseline
      edge-harness gate init RESULT...                      propose budgets
      edge-harness gate update RESULT... -o FOLDER          keep runs as the baseline

    Exit status: 0 PASS, 1 FAIL, 2 usage, 3 UNDECIDED, 4 NO EVIDENCE (no run matches a budget, or one
    crashed).
    """  # noqa: D301 - click reads the backspace as "do not wrap"


@gate.command()
def judge(
    budget: options.Budget,
    shown: _Presentation,
    results: options.Results = (),
    baseline: options.Baseline = (),
    against: Annotated[
        str | None,
        Option(
            "--against",
            "Git commit to read the folders of --baseline from, instead of the working tree.",
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        Option(
            "--since",
            "Judge only runs made at or after this time, such as 2026-12-01T09:00:00Z: this build's.",
            reads=_time,
        ),
    ] = None,
    differs: Annotated[
        tuple[str, ...],
        Option(
            "--differs",
            "Pins in which a run may differ from its budget or baseline, separated by commas: thread_count, variant, ...",
            metavar="FIELD[,FIELD...]",
        ),
    ] = (),
    answers: Annotated[
        Path | None,
        Option(
            "--answers",
            "File in which the answers of gates are kept.",
            path="file",
            default="gate-answers.json in the first folder of results",
        ),
    ] = None,
) -> Output:
    """Judge results against the budgets: records, folders of them, runs of the history, or other tools' files.

    Example: edge-harness gate --budget budgets.toml results/
    """
    from harness.core.budget import PINS
    from harness.gates.baselines import at_commit
    from harness.gates.budget_file import load_budgets
    from harness.gates.evaluate import evaluate
    from harness.gates.evidence import evidence_of
    from harness.gates.sittings import time_of
    from harness.verbs.results import ANSWERS, gather, manifests_in

    budgets = load_budgets(budget)
    if unknown := sorted(set(differs) - set(PINS)):
        raise click.UsageError(f"--differs: found {unknown[0]!r}, expected some of {', '.join(PINS)}")
    refuse_typed({"against"}, "without --baseline, which names the folder", when=not baseline)
    if against:
        before = [record for name in baseline for record in at_commit(name, against)]
    else:
        before = gather(baseline)
    everything = gather(results)
    manifests = [
        one for one in manifests_in(results) if since is None or datetime.fromisoformat(one.created) >= since
    ]
    in_time = [record for record in everything if since is None or time_of(record) >= since]
    judged, faults, left_out = evidence_of(in_time, manifests)
    for record in judged:
        if record in before:
            raise RefusedError(f"run {record.run_id} is in --baseline too: a run says nothing beside itself")
    if answers is None:
        answers = next((Path(name) / ANSWERS for name in results if Path(name).is_dir()), None)
    notes = [_baseline_note(judged, before)] if before else []
    notes += [f"Left out: {run}: {why}." for run, why in left_out]
    if len(in_time) < len(everything):
        notes.insert(0, f"{counted(len(everything) - len(in_time), 'run')} made before --since left out.")
    before, _, unfit = evidence_of(before)
    notes += [f"Left out of the baseline: {run}: {why}." for run, why in unfit]
    found = evaluate(budgets, judged, baseline=before, differs=frozenset(differs), faults=faults)
    return _answer(found, budget, shown, notes, answers)


@gate.command()
def live(
    candidate: Annotated[
        str,
        Option(
            "--candidate",
            "Command that runs the new build and prints one record, such as: edge-harness run MODEL --json",
        ),
    ],
    baseline: Annotated[str, Option("--baseline", "The same for the build to compare with.")],
    budget: options.Budget,
    shown: _Presentation,
    max_turns: Annotated[
        int, Meta(ge=6, le=1000), Option("--max-turns", "Stop after this many turns, decided or not.")
    ] = 24,
    timeout_s: Annotated[
        float,
        Meta(gt=0, le=1e6),
        Option("--timeout", "Time limit for each command, in seconds.", "Measuring"),
    ] = 900.0,
) -> Output:
    """Run a new build and its baseline in turns until the decision is clear.

    Example: edge-harness gate live --budget b.toml --candidate 'new/edge-harness run m.gguf --json' --baseline
    'old/edge-harness run m.gguf --json'
    """
    from harness.gates.budget_file import load_budgets
    from harness.gates.live import gate_in_turns, looks_within, plan_line, run_side
    from harness.show.progress_line import RunProgress

    budgets = load_budgets(budget)
    click.echo(plan_line(looks_within(max_turns), len(budgets)), err=True)
    with RunProgress() as progress:
        progress.begin(f"the gate, at most {max_turns} turns", max_turns)
        judgements, _, _ = gate_in_turns(
            budgets,
            partial(run_side, candidate, timeout_s=timeout_s),
            partial(run_side, baseline, timeout_s=timeout_s),
            max_turns=max_turns,
            progress=lambda done, most: progress.step(f"{done} done", f"turn {done} of at most {most}"),
        )
    return _answer(judgements, budget, shown)


@gate.command()
def update(
    results: _Given,
    folder: Annotated[
        Path, Option("--out -o", "Folder of the baseline, best kept in the repository.", path="folder")
    ],
) -> Output:
    """Keep results as the baseline: the newest 20 runs of each model, machine and setting.

    From five runs on the gate knows how much runs of one build differ, and so finds smaller slowdowns.

    Example: edge-harness gate update results/ -o baseline
    """
    from harness.gates.baselines import update as keep
    from harness.verbs.results import gather

    added, removed = keep(folder, gather(results))
    line = f"{folder}: {counted(added, 'run')} added, {removed} old removed"
    return Output({"added": added, "removed": removed}, lambda: click.echo(line))


@gate.command()
def init(
    results: _Given,
    preset: Annotated[
        Literal["limits", "regression", "phone", "first-token"],
        Option(
            "--preset",
            "limits: no worse than what these results reached. regression: no speed 10 % below the "
            "baseline. phone: that, and no more than 200 MB of added memory. first-token: a limit on "
            "the time to the first token.",
        ),
    ] = "limits",
    finds: Annotated[
        Annotated[float, Meta(ge=0.01, le=0.9)] | None,
        Option(
            "--finds",
            "Slowdown that each budget must find in 95 of 100 gates, such as 10%. A budget that cannot is not "
            "written, and is named with the runs that it lacks.",
            reads=_share,
            default="10% for comparisons; limits that pass no build 20% slower",
        ),
    ] = None,
    out: Annotated[
        Path | None, Option("--out -o", "File to write.", "Output", path="file", default="stdout")
    ] = None,
) -> Output:
    """Propose budgets from results, and say what they will find.

    They are pinned to the model's file, its quantisation, the runtime, the scenario and the class of machine:
    a run that differs in any of these is not evidence for them.

    Example: edge-harness gate init results/ -o budgets.toml
    """
    from harness.gates.propose import propose, to_toml
    from harness.records.store import write_atomically
    from harness.verbs.results import gather

    every = propose(gather(results), preset, finds)
    if not every:
        raise RefusedError("no successful run to propose budgets from: make one with edge-harness run MODEL")
    proposals = [each for each in every if not each.lacks]
    for each in every:
        said = f"not written: {each.lacks} ({each.finds})" if each.lacks else each.finds
        click.echo(f"{each.budget.metric}, {each.budget.model}: {said}", err=True)
    if not proposals:
        raise RefusedError(f"no budget can find a slowdown of {finds:.0%} with these results")
    text = to_toml(proposals)
    if out:
        write_atomically(out, text.encode())
    return Output([each.budget for each in proposals], lambda: None if out else click.echo(text, nl=False))


def _baseline_note(judged: "Sequence[Record]", before: "Sequence[Record]") -> str:
    """Of when the baseline is, and whether its runtime is another one."""
    from harness.gates.sittings import time_of

    versions = {record.engine.version for record in (*judged, *before) if record.engine}
    runtime = "another runtime"
    if len(versions) == 1:
        runtime = "the same runtime: suspect the machine first"
    return f"Baseline: {max(map(time_of, before)):%-d %B, %H:%M}, {runtime}."


def _answer(
    judgements: "list[Judgement]",
    budget: Path,
    shown: _Presentation,
    notes: "Sequence[str]" = (),
    answers: Path | None = None,
) -> Output:
    from harness.gates import formats
    from harness.gates.budget_file import budget_lines
    from harness.gates.evaluate import exit_code
    from harness.gates.past_answers import keep_answers, read_answers, with_deadlines
    from harness.records.store import write_atomically

    lines = budget_lines(budget, len(judgements))
    if answers is not None:
        now = datetime.now(UTC)
        earlier = read_answers(answers)
        try:
            keep_answers(answers, earlier, judgements, now)
        except CouldNotRunError as error:  # the answer does not depend on whether it can be kept
            click.echo(f"edge-harness: warning: {error}", err=True)
        judgements = with_deadlines(judgements, earlier, now)
    elif any(j.budget.undecided_days or j.budget.undecided_builds for j in judgements):
        raise RefusedError(
            f"{budget}: undecided_days and undecided_builds need --answers FILE, to be counted in"
        )
    judgements = [j.replace(file=budget.as_posix(), line=n) for j, n in zip(judgements, lines, strict=True)]
    for path in shown.out:
        write_atomically(path, clean_lines(getattr(formats, FILES[path.suffix.lower()])(judgements)).encode())
    if shown.form == "terminal" and not shown.show_all:
        text = formats.summary(judgements, notes)
    else:
        text = getattr(formats, shown.form)(judgements)
    show = partial(print_commands if shown.form == "github" else _print, text)
    return Output(judgements, show, exit_code(judgements))


def _print(text: str) -> None:
    click.echo(clean_lines(text), nl=False)
