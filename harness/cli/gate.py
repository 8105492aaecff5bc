"""``edge-harness gate``: judge runs and predictions against budgets; exit 0 pass, 1 fail, 3 inconclusive, 4 not run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli._options import Amount
from harness.cli._output import emit_json, json_option

if TYPE_CHECKING:
    from harness.gates.judge import Judgement

FORMATS = ("terminal", "markdown", "junit", "sarif", "github")


class _Gate(click.Group):
    """``gate RESULT...`` judges; ``gate init`` and ``gate live`` are verbs of their own."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Take everything that names no verb for results to judge."""
        if args and args[0] not in self.commands:
            args = ["judge", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let options come first, as in ``gate --budget F RESULT``."""
        if args and args[0] not in {*self.commands, "--help", "-h"}:
            args = ["judge", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Gate)
def gate() -> None:
    """Judge results against budgets.

    \b
      edge-harness gate --budget budgets.toml RESULT...     judge records (the default)
      edge-harness gate live --budget budgets.toml ...      run a build in turns with its baseline
      edge-harness gate init RESULT...                      propose budgets

    Exit status: 0 pass, 1 fail, 2 usage, 3 inconclusive, 4 could not run.
    """  # noqa: D301 - click reads the backspace as "do not wrap"


def _shared(function: Any) -> Any:
    for option in (
        click.option(
            "--out", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write there instead of on stdout."
        ),
        click.option("--format", "form", type=click.Choice(FORMATS), default="terminal", show_default=True),
        click.option("--budget", "budget", type=click.Path(path_type=Path), required=True, help="Budgets file (TOML)."),
    ):
        function = option(function)
    return json_option(function)


@gate.command("judge")
@click.argument("results", nargs=-1, metavar="RESULT...")
@click.option("--baseline", multiple=True, help="Result of the baseline; repeatable.")
@_shared
def judge(
    results: tuple[str, ...], baseline: tuple[str, ...], budget: Path, form: str, out: Path | None, as_json: bool
) -> int:
    """Judge results (records, folders of them, runs of the history, other tools' files) against the budgets."""
    from harness.app.gate import predictor
    from harness.app.results import gather
    from harness.catalog.budgets import load_budgets
    from harness.gates.evaluate import evaluate

    budgets = load_budgets(budget)
    records, before = gather(results), gather(baseline)
    return _tell(evaluate(budgets, records, baseline=before, predict=predictor()), budget, form, out, as_json)


@gate.command("live")
@click.option("--candidate", required=True, metavar="COMMAND", help="Prints one record: edge-harness run MODEL --json")
@click.option("--baseline", required=True, metavar="COMMAND", help="The same for the build to compare with.")
@click.option("--max-turns", type=click.IntRange(6, 1000), default=24, show_default=True, help="Turns at most.")
@click.option("--timeout", "timeout_s", type=Amount(0, 1e6), default=900.0, help="Seconds for one command.")
@_shared
def live(
    candidate: str,
    baseline: str,
    max_turns: int,
    timeout_s: float,
    budget: Path,
    form: str,
    out: Path | None,
    as_json: bool,
) -> int:
    """Run a build in turns with its baseline until the decision is clear."""
    from harness.app.gate import single_record
    from harness.catalog.budgets import load_budgets
    from harness.gates.live import gate_in_turns, looks_within, taker
    from harness.gates.plan import plan_lines

    budgets = load_budgets(budget)
    relative = [b for b in budgets if b.baseline_ratio is not None]
    for line in (
        plan_lines([b.baseline_ratio or 1.0 for b in relative], looks_within(max_turns), 0.95) if relative else ()
    ):
        click.echo(line, err=True)
    judgements, _, _ = gate_in_turns(
        budgets,
        taker(candidate, single_record, timeout_s=timeout_s),
        taker(baseline, single_record, timeout_s=timeout_s),
        max_turns=max_turns,
        progress=lambda done, most: click.echo(f"turn {done} of at most {most}", err=True),
    )
    return _tell(judgements, budget, form, out, as_json)


@gate.command("init")
@click.argument("results", nargs=-1, metavar="[RESULT]...")
@click.option("--out", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write there instead of on stdout.")
@json_option
def init(results: tuple[str, ...], out: Path | None, as_json: bool) -> int:
    """Propose budgets from results, or from the run history when none is named."""
    from harness.app.gate import history_records
    from harness.app.results import gather
    from harness.errors import RefusedError
    from harness.gates.propose import propose, to_toml
    from harness.records.store import write_atomically

    budgets = propose(gather(results) if results else history_records())
    if not budgets:
        raise RefusedError("no successful run to propose budgets from: make one with edge-harness run MODEL")
    if as_json:
        emit_json(budgets)
    elif out:
        write_atomically(out, to_toml(budgets).encode())
    else:
        click.echo(to_toml(budgets), nl=False)
    return 0


def _tell(judgements: "list[Judgement]", budget: Path, form: str, out: Path | None, as_json: bool) -> int:
    from msgspec.structs import replace

    from harness.catalog.budgets import budget_lines
    from harness.gates import formats
    from harness.gates.evaluate import exit_code
    from harness.printable import clean_lines
    from harness.records.store import write_atomically

    lines = budget_lines(budget, len(judgements))
    judgements = [replace(j, file=budget.as_posix(), line=n) for j, n in zip(judgements, lines, strict=True)]
    if as_json:
        emit_json(judgements)
    else:
        text = clean_lines(getattr(formats, form)(judgements))
        if out:
            write_atomically(out, text.encode())
        else:
            click.echo(text, nl=False)
    return exit_code(judgements)


COMMAND = gate
