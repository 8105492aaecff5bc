"""``edge-harness gate``: judge runs and predictions against budgets, and keep the baseline that they are held to."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import click
from msgspec import Meta

from harness.cli import _options as options
from harness.cli._command import Verbs
from harness.cli._effect import refuse_typed
from harness.cli._output import Answer, put
from harness.domain.base import Frozen
from harness.domain.option import Option
from harness.errors import RefusedError
from harness.printable import clean_lines
from harness.units import counted

if TYPE_CHECKING:
    from harness.gates.judge import Judgement

FILES = {".txt": "terminal", ".md": "markdown", ".xml": "junit", ".svg": "badge"}
"""Format of a file by its ending."""


class _Shown(Frozen):
    """How a judgement is shown, and where it is written."""

    form: Annotated[
        Literal["terminal", "markdown", "junit", "github", "badge"],
        Meta(description="Format of what is printed; github: annotations of a workflow."),
        Option(("--format",), "Output"),
    ] = "terminal"
    out: Annotated[
        tuple[Path, ...],
        Meta(
            description="Also write the answer to this file, in the format of its ending: .txt, .md, .xml (JUnit), "
            ".svg (badge). Repeatable."
        ),
        Option(("--out", "-o"), "Output", is_repeated=True, endings=(".txt", ".md", ".xml", ".svg")),
    ] = ()


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
      edge-harness gate update RESULT... --to FOLDER        keep runs as the baseline

    Exit status: 0 pass, 1 fail, 2 usage, 3 inconclusive, 4 no evidence (no run matches a budget, or one crashed).
    A budget that stays inconclusive, three gates in a row unless it says otherwise, fails.
    """  # noqa: D301 - click reads the backspace as "do not wrap"


@gate.command()
def judge(
    budget: options.Budget,
    shown: _Shown,
    results: options.Results = (),
    baseline: Annotated[
        tuple[str, ...],
        Meta(description="Result, or folder of results, to compare with; repeatable."),
        Option(("--baseline",), is_repeated=True),
    ] = (),
    against: Annotated[
        str | None,
        Meta(description="Git commit to read the folders of --baseline from, instead of the working tree."),
        Option(("--against",), metavar="COMMIT"),
    ] = None,
) -> Answer:
    """Judge results against the budgets: records, folders of them, runs of the history, or other tools' files."""
    from harness.app.results import gather
    from harness.catalog.budgets import load_budgets
    from harness.gates.baselines import at_commit
    from harness.gates.evaluate import evaluate

    budgets = load_budgets(budget)
    refuse_typed({"against"}, "without --baseline, which names the folder", when=not baseline)
    before = [record for name in baseline for record in at_commit(name, against)] if against else gather(baseline)
    judged = gather(results)
    earlier = {record.run_id: record for record in before}
    if both := [record.run_id for record in judged if earlier.get(record.run_id) == record]:
        raise RefusedError(f"run {both[0]} is in --baseline too: a run says nothing beside itself")
    return _answer(evaluate(budgets, judged, baseline=before), budget, shown)


@gate.command()
def live(
    candidate: Annotated[
        str,
        Meta(
            description="Command that runs the new build and prints one record, such as: edge-harness run MODEL --json"
        ),
        Option(("--candidate",), metavar="COMMAND"),
    ],
    baseline: Annotated[
        str,
        Meta(description="The same for the build to compare with."),
        Option(("--baseline",), metavar="COMMAND"),
    ],
    budget: options.Budget,
    shown: _Shown,
    max_turns: Annotated[
        int,
        Meta(ge=6, le=1000, description="Stop after this many turns, decided or not."),
        Option(("--max-turns",)),
    ] = 24,
    timeout_s: Annotated[
        float,
        Meta(gt=0, le=1e6, description="Time limit for each command, in seconds."),
        Option(("--timeout",), "Measuring"),
    ] = 900.0,
) -> Answer:
    """Run a new build and its baseline in turns until the decision is clear."""
    from harness.catalog.budgets import load_budgets
    from harness.cli._progress import RunProgress
    from harness.gates.live import gate_in_turns, looks_within, run_side
    from harness.gates.plan import plan_line

    budgets = load_budgets(budget)
    click.echo(plan_line(looks_within(max_turns), 0.95), err=True)
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
    results: Annotated[tuple[str, ...], Option(metavar="RESULT...")],
    folder: Annotated[
        Path,
        Meta(description="Folder of the baseline, best kept in the repository."),
        Option(("--to",), path="folder"),
    ],
) -> Answer:
    """Keep results as the baseline: the newest 20 runs of each model, machine and setting.

    From five runs on the gate knows how much runs of one build differ, and so finds smaller slowdowns.
    """
    from harness.app.results import gather
    from harness.gates.baselines import update as keep

    added, removed = keep(folder, gather(results))
    line = f"{folder}: {counted(added, 'run')} added, {removed} old removed"
    return Answer({"added": added, "removed": removed}, lambda: click.echo(line))


@gate.command()
def init(
    results: options.Results = (),
    preset: Annotated[
        Literal["limits", "regression", "phone", "first-token"],
        Meta(
            description="limits: no worse than what these results reached. regression: no speed 10 % below the "
            "baseline. phone: that, and no more than 200 MB of added memory. first-token: a limit on the time to the "
            "first token."
        ),
        Option(("--preset",)),
    ] = "limits",
    out: Annotated[
        Path | None,
        Meta(description="File to write."),
        Option(("--out", "-o"), "Output", path="file", default="stdout"),
    ] = None,
) -> Answer:
    """Propose budgets from results, or from the run history when none is named.

    They are pinned to the model's file, its quantisation, the runtime, the scenario and the class of machine: a run
    that differs in any of these is not evidence for them.
    """
    from harness.app.results import gather
    from harness.gates.propose import propose, to_toml
    from harness.measure.pipeline import open_history

    past = open_history()
    own = past.records(limit=1000) if not results and past.path.exists() else []
    budgets = propose([*gather(results), *own], preset)
    if not budgets:
        raise RefusedError("no successful run to propose budgets from: make one with edge-harness run MODEL")
    return put(to_toml(budgets), out, budgets)


def _answer(judgements: "list[Judgement]", budget: Path, shown: _Shown) -> Answer:
    from harness.catalog.budgets import budget_lines
    from harness.catalog.paths import home_dir
    from harness.gates import formats
    from harness.gates.evaluate import exit_code
    from harness.gates.streaks import with_streaks
    from harness.records.store import write_atomically

    lines = budget_lines(budget, len(judgements))
    judgements = with_streaks(judgements, home_dir() / "gate-streaks.json")
    judgements = [j.replace(file=budget.as_posix(), line=n) for j, n in zip(judgements, lines, strict=True)]

    def rendered(name: str) -> str:
        return clean_lines(getattr(formats, name)(judgements))

    for path in shown.out:
        write_atomically(path, rendered(FILES[path.suffix.lower()]).encode())
    return Answer(judgements, lambda: click.echo(rendered(shown.form), nl=False), exit_code(judgements))
