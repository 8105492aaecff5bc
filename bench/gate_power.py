"""What the gate finds and how often it errs, by kinds of noise, through its own functions: the table of docs/gates.md.

    python -m bench gate_power --record reports/gates/power.json

A file holds eight budgets on decoding speed, each with noise of its own; runs follow each other in time. False red is
the share of files of an unchanged build in which any budget fails; found is the share of gates of a slower build that
fail on the slower budget.
"""

from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Final

import click
import numpy as np
from numpy.typing import NDArray

from bench._kept import write
from bench.renderers import json_table
from harness.core.budget import Budget
from harness.core.metric import FIGURES
from harness.core.stats.intervals import share_interval
from harness.core.stats.runs import estimate, spread_of
from harness.gates.judge import MOST_TURNS, Errors, GateAnswer, judge
from harness.gates.live import looks_within
from harness.gates.propose import propose_limit

BUDGETS: Final = 8
BUDGET: Final = Budget(metric="decode_tokens_per_s", slowdown_ratio=0.10)
FIGURE: Final = FIGURES["decode_tokens_per_s"]
SLOWDOWNS: Final = (0.10, 0.20)
Series = NDArray[np.float64]
"""ln(median) of runs in the order of time."""
Draw = Callable[[np.random.Generator, int], Series]


def _lagging(share: float) -> Draw:
    def draw(generator: np.random.Generator, count: int) -> Series:
        steps = generator.normal(0, 0.03 * (1 - share**2) ** 0.5, count)
        values = [generator.normal(0, 0.03)]
        for step in steps[1:]:
            values.append(share * values[-1] + step)
        return np.array(values)

    return draw


def _modes(stay: float) -> Draw:
    def draw(generator: np.random.Generator, count: int) -> Series:
        mode = (np.cumsum(generator.random(count) > stay) + generator.integers(0, 2)) % 2
        return generator.normal(0, 0.01, count) - 0.10 * mode

    return draw


def _hotter(step: float) -> Draw:
    return lambda generator, count: generator.normal(0, 0.01, count) - step * np.arange(count)


NOISE: Final[dict[str, Draw]] = {
    "runs differ by 3 %, independent": lambda g, n: g.normal(0, 0.03, n),
    "3 %, each like the one before (.9)": _lagging(0.9),
    "3 %, each like the one before (.97)": _lagging(0.97),
    "two modes 10 % apart, drawn": _modes(0.5),
    "two modes 10 % apart, lasting": _modes(0.95),
    "heat: 0.3 % slower a run": _hotter(0.003),
    "heat: 1 % slower a run": _hotter(0.01),
    "heavy tail (t of 2 degrees, 1.5 %)": lambda g, n: g.standard_t(2, n) * 0.015,
    "1 %, one run in eight 25 % slower": lambda g, n: g.normal(0, 0.01, n) + log(0.75) * (g.random(n) < 0.125),
    "1 %, 15 % boost that fades": lambda g, n: g.normal(0, 0.01, n) + 0.15 * np.exp(-np.arange(n) / 4),
}
Gate = Callable[[Draw, np.random.Generator, float], tuple[GateAnswer, int]]
"""The answer to a build that is slower by that share, and the runs or turns that it took."""


def _judged(budget: Budget, new: Series, old: Series, unit: str, errors: Errors) -> GateAnswer:
    sides = [[[float(value)] for value in np.exp(side)] for side in (new, old)]
    spread = spread_of([side for side in sides if side], None if unit == "turn" else FIGURE.spread, unit)
    before = sides[1] if budget.slowdown_ratio else []
    value = estimate(sides[0], spread, *errors.ends(higher_is_better=True), before)
    return judge(budget, value, spread, (len(new), len(before)), errors=errors, evidence=()).answer


def in_turns(draw: Draw, generator: np.random.Generator, slowdown: float) -> tuple[GateAnswer, int]:
    """``gate live``: which side goes first is drawn, and every turn is a look."""
    errors = Errors.of(BUDGETS, 1)
    errors = Errors(errors.alarm / 2, errors.missed / 2)  # two ways to read a turn
    runs = draw(generator, 2 * MOST_TURNS).reshape(MOST_TURNS, 2)
    first = generator.integers(0, 2, MOST_TURNS)
    turns = np.arange(MOST_TURNS)
    ratios = runs[turns, first] - runs[turns, 1 - first] + log(1.0 - slowdown)
    for look in looks_within(MOST_TURNS):
        answer = _judged(BUDGET, ratios[:look], np.array([]), "turn", errors)
        if answer != "inconclusive":
            return answer, look
    return "inconclusive", MOST_TURNS


def beside(kept: int, count: int, unit: str = "run") -> Gate:
    """``gate --baseline``: some runs after those that were kept; of ``sittings`` each value is a day's."""

    def gate(draw: Draw, generator: np.random.Generator, slowdown: float) -> tuple[GateAnswer, int]:
        series = draw(generator, kept + count)
        new = series[kept:] + log(1.0 - slowdown)
        return _judged(BUDGET, new, series[:kept], unit, Errors.of(BUDGETS, 1)), count

    return gate


def by_limit(draw: Draw, generator: np.random.Generator, slowdown: float) -> tuple[GateAnswer, int]:
    """The limit that ``gate init`` writes by itself from five runs, held to three later ones."""
    series = draw(generator, 8)
    kept = [[float(value)] for value in np.exp(series[:5]) * 100]
    limit = propose_limit("decode_tokens_per_s", kept, spread_of([kept], FIGURE.spread), BUDGETS)
    budget = Budget(metric="decode_tokens_per_s", floor=limit)
    new = series[5:] + log(100.0 * (1.0 - slowdown))
    return _judged(budget, new, np.array([]), "run", Errors.of(BUDGETS, 1)), 3


WAYS: Final[dict[str, Gate]] = {
    "gate live, at most 24 turns": in_turns,
    "limits of gate init: 5 runs, then 3": by_limit,
    "5 runs beside 5 of the same hour": beside(5, 5),
    "3 runs beside 20 of the same hour": beside(20, 3),
    "a day beside 20 days": beside(20, 1, "sitting"),
}
COLUMNS: Final = (
    "way", "noise", "false red, of a file of eight (at most)", "unchanged budget passed",
    "10 % found", "20 % found", "20 % passed", "runs or turns until 20 % is decided",
)  # fmt: skip


def row(way: str, noise: str, files: int) -> list[str]:
    """Rates of one way under one kind of noise."""
    generator = np.random.default_rng(1)
    gate, draw = WAYS[way], NOISE[noise]
    same = [gate(draw, generator, 0.0)[0] for _ in range(files * BUDGETS)]
    red_count = sum("fail" in same[at : at + BUDGETS] for at in range(0, len(same), BUDGETS))
    most = share_interval(red_count, files).high or 0.0
    cells = [way, noise, f"{red_count / files:.1%} ({most:.1%})", f"{same.count('pass') / len(same):.0%}"]
    outcomes = []
    for slowdown in SLOWDOWNS:
        outcomes = [gate(draw, generator, slowdown) for _ in range(files)]
        cells.append(f"{sum(answer == 'fail' for answer, _ in outcomes) / files:.0%}")
    cells.append(f"{sum(answer == 'pass' for answer, _ in outcomes) / files:.0%}")
    return [*cells, f"{np.mean([count for _, count in outcomes]):.1f}"]


def rot_row(noise: str, count: int) -> list[str]:
    """Releases, each 2 % slower than the one before, in turns with the best one kept: when one is red."""
    generator = np.random.default_rng(1)
    red_at = []
    for _ in range(count):
        slower = [1.0 - 0.98**release for release in range(1, 13)]
        answers = (in_turns(NOISE[noise], generator, ratio)[0] for ratio in slower)
        red_at.append(next((ratio for ratio, answer in zip(slower, answers, strict=True) if answer == "fail"), 1.0))
    return [noise, f"{np.median(red_at):.1%}", f"{sum(ratio < 0.10 for ratio in red_at) / count:.0%}"]


def _rot(record: Path, files: int) -> None:
    columns = ["noise", "slower by that much when red, median", "red before 10 %"]
    rows = [rot_row(noise, files) for noise in NOISE]
    write(record, f"python -m bench gate_power --rot --files {files}", {"columns": columns, "rows": rows}, "simulated")
    click.echo(json_table(record))


@click.command()
@click.option("--rot", is_flag=True, help="Releases that lose 2 % each, beside the best one that was kept.")
@click.option("--record", type=click.Path(path_type=Path), required=True, help="JSON file for the table.")
@click.option("--files", default=400, show_default=True, help="Budgets files of each cell, of eight budgets.")
@click.option("--way", "only", default="", help="Only ways whose name begins so.")
def main(record: Path, files: int, only: str, rot: bool) -> None:
    """Simulate every way under every kind of noise, and write the table."""
    if rot:
        _rot(record, files)
        return
    rows = [row(way, noise, files) for way in WAYS if way.startswith(only) for noise in NOISE]
    write(record, f"python -m bench gate_power --files {files}", {"columns": list(COLUMNS), "rows": rows}, "simulated")
    click.echo(json_table(record))


if __name__ == "__main__":
    main()
