"""Rank predicted speeds with their uncertainty, and say in a sentence what a set of them shows.

A speed is taken as log-normal around its likeliest value, with the 90 % interval of its prediction. Pages, cards and
JSON rank rows here, so that no title contradicts the rows below it.
"""

from collections.abc import Sequence
from math import erf, log, sqrt
from typing import Final, NamedTuple

from harness.core.prediction import Interval
from harness.show.first_screen import two

SURE: Final = 0.9
"""Chance of being faster from which "is faster" is said."""
LIKELY: Final = 0.7
"""Chance from which "is probably faster" is said; below it two speeds are too close to call."""
_HALF_WIDTH: Final = 1.6449
"""Standard deviations from the middle of a normal distribution to the end of its 90 % interval."""
_NARROWEST: Final = 1.02
"""High over low of an interval at the least: two equal predictions are never told apart by rounding."""


class Standing(NamedTuple):
    """One row of a ranking.

    Attributes:
        name: The row as people say it.
        speed: Tokens/s; None where it does not run.
        rank: Place from 1; rows that are too close to call share it. 0 where it does not run.
    """

    name: str
    speed: Interval | None
    rank: int


def chance_faster(one: Interval, other: Interval) -> float:
    """Chance that the first speed is above the second, from 0 to 1; both log-normal and independent."""
    spread = sqrt(_deviation(one) ** 2 + _deviation(other) ** 2)
    return 0.5 * (1 + erf(log(one.mid / other.mid) / spread / sqrt(2)))


def _deviation(speed: Interval) -> float:
    """Standard deviation of the logarithm of a speed."""
    return log(max(speed.high / speed.low, _NARROWEST)) / (2 * _HALF_WIDTH)


def ranked(rows: Sequence[tuple[str, Interval | None]]) -> list[Standing]:
    """Rows from the fastest to the slowest, then those that do not run.

    A row shares the rank of the one above it while the chance that the first of that rank is faster is below
    ``LIKELY``.
    """
    running = sorted(((name, speed) for name, speed in rows if speed), key=lambda row: -row[1].mid)
    found: list[Standing] = []
    leader: Interval | None = None
    for place, (name, speed) in enumerate(running, 1):
        if leader is None or chance_faster(leader, speed) >= LIKELY:
            leader = speed
            rank = place
        else:
            rank = found[-1].rank
        found.append(Standing(name, speed, rank))
    return [*found, *(Standing(name, None, 0) for name, speed in rows if not speed)]


def finding(standings: Sequence[Standing]) -> str:
    """What a ranking shows, as a sentence: a sure winner, a probable one, a tie, or that nothing runs."""
    running = [(one.name, one.speed) for one in standings if one.speed]
    if not running:
        return "None of them runs it"
    (best, speed), *others = running
    if not others:
        return f"Only {best} runs it"
    second = others[0]
    chance = chance_faster(speed, second[1])
    times = two(speed.mid / second[1].mid)
    if chance >= SURE:
        return f"{best} writes {times} times as fast as the next"
    if chance >= LIKELY:
        return f"{best} is probably the fastest: {times} times the next"
    tied = [one.name for one in standings if one.rank == 1]
    if len(tied) == 2:
        return f"{tied[0]} and {tied[1]} are too close to call"
    return f"{_counted(len(tied))} are too close to call, near {two(speed.mid)} tokens/s"


def _counted(count: int) -> str:
    words = ("None", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight")
    return words[count] if count < len(words) else str(count)
