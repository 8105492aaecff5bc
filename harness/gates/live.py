"""Gate a build by running it in turns with its baseline, until the decision is clear or the limit is reached.

Each side is a command that prints one run record as JSON (``edge-harness run MODEL --json``): two virtual
environments, two builds, two settings. Which side goes first is drawn by lot in each turn: so whatever the
machine does falls on both sides alike, and the error rates hold on any machine (``harness.core.stats.turns``).
"""

import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from random import SystemRandom
from typing import Final

from harness.core.budget import Budget
from harness.core.errors import CouldNotRunError, Exit, InputError
from harness.core.outside import output_of
from harness.core.record import Record
from harness.core.stats.runs import Spread, found
from harness.core.stats.turns import least_turns
from harness.gates.evaluate import evaluate
from harness.gates.judge import MOST_TURNS, Errors, Judgement
from harness.gates.sittings import time_of
from harness.verbs.results import single_record

LEAST_TURNS: Final = 6
"""Before so many turns nothing is decided."""
_SPREADS: Final = (0.01, 0.03, 0.06)
"""Spreads from turn to turn that the plan is printed for: a quiet machine, and ever busier ones."""
_CLOCKS_APART: Final = timedelta(minutes=5)
"""By which another machine's clock may be late."""

Take = Callable[[], Record]
"""Makes one run of a side."""


def gate_in_turns(
    budgets: Sequence[Budget],
    candidate: Take,
    baseline: Take,
    *,
    max_turns: int = MOST_TURNS,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Judgement], list[Record], list[Record]]:
    """Run both sides in turns and judge, asking for more turns while any budget is inconclusive.

    There are at most ``max_turns``, at least 6; the decision is looked at after each from the sixth on, which
    costs nothing: the interval holds however often it is read. ``progress`` is called after each with (turns
    done, turns at most). Gives the judgements, the candidate's records and the baseline's.

    Raises:
        CouldNotRunError: A side gave the same run twice.
    """
    looks = looks_within(max_turns)
    new: list[Record] = []
    old: list[Record] = []
    seen: set[str] = set()
    judgements: list[Judgement] = []
    lot = SystemRandom()
    for look in looks:
        while len(new) < look:
            sides = [(candidate, new), (baseline, old)]
            for take, records in sides if lot.random() < 0.5 else reversed(sides):
                record = take()
                if record.run_id in seen:
                    raise CouldNotRunError(
                        f"run {record.run_id} came twice: a side must make a new run in each turn"
                    )
                seen.add(record.run_id)
                records.append(record)
            if progress:
                progress(len(new), looks[-1])
        judgements = evaluate(budgets, new, baseline=old, in_turns=True)
        if all(j.answer != "inconclusive" for j in judgements):
            break
    return judgements, new, old


def looks_within(max_turns: int) -> tuple[int, ...]:
    """Turns after which the decision is looked at."""
    return tuple(range(min(LEAST_TURNS, max_turns), max_turns + 1))


def plan_line(looks: tuple[int, ...], budget_count: int) -> str:
    """Which slowdown a gate in turns finds, by the spread from turn to turn: said before it runs."""
    most = looks[-1]
    alarm = Errors.of(budget_count, 1).alarm / 2.0
    shares = []
    for ratio in _SPREADS:
        share = found(Spread(None, ratio, most - 1, "turn"), (most, 0), alarm)
        if share is not None:
            shares.append(f"{share:.1%} where turns differ by {ratio:.0%}")
    if not shares:
        needed = least_turns(alarm) + 2
        return f"{most} turns can pass a build and never fail one: give --max-turns {needed} or more"
    return (
        f"looks after each turn from {looks[0]} on, at most {most}; "
        f"the last one finds, in 95 of 100 gates, a slowdown of {', '.join(shares)}"
    )


def run_side(command: str, *, timeout_s: float) -> Record:
    """Run a side that is a command line, and read the record that it prints.

    Raises:
        CouldNotRunError: The command cannot be started, hangs, or prints no record, or that of an earlier
            run.
        InputError: It is no command: a quote is open.
    """
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise InputError(f"{command!r}: found {error}, expected a command as a shell reads it") from error
    if not arguments:
        raise CouldNotRunError("an empty command cannot be run")
    begun = datetime.now(UTC)
    # Inconclusive and failed runs still print their record: the gate judges them as what they are.
    ends = {Exit.OK, Exit.INCONCLUSIVE, Exit.COULD_NOT_RUN}
    printed = output_of(arguments, command, timeout_s=timeout_s, ends=ends)
    if not printed.strip():
        raise CouldNotRunError(f"{command}: it printed no record")
    record = single_record(printed, command)
    if time_of(record) < begun - _CLOCKS_APART:
        raise CouldNotRunError(f"{command}: found a run of {record.created}, expected one made now")
    return record
