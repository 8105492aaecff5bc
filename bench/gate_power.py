"""What the gate finds and how often it errs, by simulation through its own functions: the table of docs/gates.md.

    python -m bench gate_power --record reports/gates/power.json

A file holds eight budgets. ln(median) of a run is normal with a spread between runs (1, 3, 6, 8 %), its samples differ
by 1 % within it. False red is the share of files of an unchanged build in which any budget fails; found is the share of
gates of a slower build that fail on the slower budget.
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from math import exp
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import click

from bench._kept import write
from bench.gate_noise import MACHINE, MODEL
from bench.renderers import json_table
from harness.core.budget import Budget
from harness.core.record import SCHEMA_VERSION, Record, Sample
from harness.core.scenario import Scenario
from harness.gates.evaluate import evaluate
from harness.gates.judge import Judgement
from harness.gates.live import gate_in_turns
from harness.gates.propose import Preset, propose

BUDGETS: Final = 8
WITHIN: Final = 0.01
SPREADS: Final = (0.01, 0.03, 0.06, 0.08)
SLOWDOWNS: Final = (0.05, 0.10, 0.20)
_START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Bench:
    """Draws runs of one build on one machine, a minute apart: runs differ by a spread, or days do."""

    def __init__(self, spread: float, seed: int) -> None:
        self.spread, self.draw, self.number = spread, Random(seed), 0
        self.days: dict[int, float] = {}

    def run(self, slowdown: float, *, day: int | None = None) -> Record:
        """One run that decodes at about 100 tokens/s, less the slowdown."""
        self.number += 1
        if day is None:
            effect = self.draw.gauss(0.0, self.spread)
        else:
            effect = self.days.setdefault(day, self.draw.gauss(0.0, self.spread)) + self.draw.gauss(0.0, WITHIN)
        speed = 100.0 * (1.0 - slowdown) * exp(effect)
        samples = [
            Sample(
                phase="decode",
                label="tg64",
                token_count=64,
                duration_s=64.0 / speed * exp(self.draw.gauss(0.0, WITHIN)),
                started_unix_s=0.0,
            )
            for _ in range(5)
        ]
        made = _START + timedelta(days=day or 0, minutes=self.number)
        return Record(
            schema_version=SCHEMA_VERSION,
            run_id=f"r{self.number}",
            harness_version="0",
            command=(),
            created=made.isoformat(),
            workload="generate",
            machine=MACHINE,
            scenario=Scenario(),
            outcome="ok",
            model=MODEL,
            samples=tuple(samples),
        )


class Outcome(NamedTuple):
    """What a gate answered to the one budget of its file that is drawn, and after how many runs of the build."""

    judged: Judgement
    runs: int


def _file(budget: Budget) -> list[Budget]:
    """A file of eight budgets, of which one is of the runs that are drawn."""
    return [budget, *(budget.replace(model=f"other-{number}") for number in range(1, BUDGETS))]


def _kept(preset: Preset, bench: Bench, count: int, *, days: bool) -> tuple[list[Record], Budget]:
    """Runs of the build that is known, and the budget that they propose as one of eight."""
    earlier = [bench.run(0.0, day=number if days else None) for number in range(count)]
    models = [earlier[0].replace(model=MODEL.replace(name=f"m{number}")) for number in range(1, BUDGETS)]
    budgets = [proposal.budget for proposal in propose([*earlier, *models], preset)]
    return earlier, next(budget for budget in budgets if budget.model == MODEL.name)


def from_files(
    spread: float, slowdown: float, seed: int, *, preset: Preset, kept: int, runs: int, days: bool
) -> Outcome:
    """``gate`` of some runs beside what was kept: of the same hour, or of other days."""
    bench = Bench(spread, seed)
    earlier, budget = _kept(preset, bench, kept, days=days)
    new = [bench.run(slowdown, day=kept if days else None) for _ in range(runs)]
    return Outcome(evaluate(_file(budget), new, baseline=earlier)[0], runs)


def in_turns(spread: float, slowdown: float, seed: int) -> Outcome:
    """``gate live``: both sides in turns."""
    bench = Bench(spread, seed)
    budget = Budget(metric="decode_tokens_per_s", slowdown_ratio=0.10)
    judged, new, _ = gate_in_turns(_file(budget), partial(bench.run, slowdown), partial(bench.run, 0.0))
    return Outcome(judged[0], len(new))


WAYS: Final[dict[str, Callable[[float, float, int], Outcome]]] = {
    "regression, 5 runs beside 5 of the same hour": partial(
        from_files, preset="regression", kept=5, runs=5, days=False
    ),
    "regression, 7 runs beside 7 of the same hour": partial(
        from_files, preset="regression", kept=7, runs=7, days=False
    ),
    "regression, 1 run beside 20 of the same hour": partial(
        from_files, preset="regression", kept=20, runs=1, days=False
    ),
    "regression, 3 runs beside 20 of the same hour": partial(
        from_files, preset="regression", kept=20, runs=3, days=False
    ),
    "regression, a day beside 20 days": partial(from_files, preset="regression", kept=20, runs=3, days=True),
    "limits of 5 runs of one hour, 3 runs": partial(from_files, preset="limits", kept=5, runs=3, days=False),
    "limits of 20 days, a day": partial(from_files, preset="limits", kept=20, runs=3, days=True),
    "gate live, at most 24 turns": in_turns,
}


def row(way: str, spread: float, gates: int) -> list[str]:
    """Rates of one way at one spread."""
    cells = [way, f"{spread:.0%}"]
    unchanged = [WAYS[way](spread, 0.0, seed) for seed in range(gates * BUDGETS)]
    red_count = 0
    for at in range(0, len(unchanged), BUDGETS):
        red_count += any(outcome.judged.answer == "fail" for outcome in unchanged[at : at + BUDGETS])
    cells += [f"{red_count / gates:.1%}", f"{_share(unchanged, 'pass'):.0%}"]
    for slowdown in SLOWDOWNS:
        outcomes = [WAYS[way](spread, slowdown, seed) for seed in range(gates)]
        cells.append(f"{_share(outcomes, 'fail'):.0%}")
    cells.append(f"{sum(outcome.runs for outcome in outcomes) / gates:.1f}")
    return cells


def _share(outcomes: Sequence[Outcome], answer: str) -> float:
    return sum(outcome.judged.answer == answer for outcome in outcomes) / len(outcomes)


COLUMNS: Final = (
    "way",
    "runs differ by",
    "false red, of a file of eight",
    "unchanged budget passed",
    "5 % found",
    "10 % found",
    "20 % found",
    "runs until 20 % is decided",
)


@click.command()
@click.option("--record", type=click.Path(path_type=Path), required=True, help="JSON file for the table.")
@click.option("--gates", default=1000, show_default=True, help="Of each cell; eight times as many unchanged budgets.")
@click.option("--way", "only", default="", help="Only ways whose name begins so.")
def main(record: Path, gates: int, only: str) -> None:
    """Simulate, and write the table row by row; rows that are there already are not made again."""
    command = f"python -m bench gate_power --gates {gates}"
    rows: list[list[str]] = json.loads(record.read_text())["rows"] if record.exists() else []
    for way in (name for name in WAYS if name.startswith(only)):
        for spread in SPREADS:
            if not any(each[:2] == [way, f"{spread:.0%}"] for each in rows):
                rows.append(row(way, spread, gates))
                write(record, command, {"columns": list(COLUMNS), "rows": rows}, "simulated")
    click.echo(json_table(record))


if __name__ == "__main__":
    main()
