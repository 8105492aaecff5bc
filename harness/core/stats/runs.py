"""Judge a build by some of its runs: each run counts once, and the spread of runs is part of the answer.

The median of one run says how fast that run was, not how fast the build is: two runs of one build differ by
more than their samples tell (placement in memory, clocks, neighbours). So a build's value is the mean of its
runs' ln(median),

    half width of ln(value) = q sqrt(1/k + 1/n)

with k runs of the build and n of its baseline (none beside a fixed limit). q is the narrower of two, each of
which errs in half of the cases that are allowed:

    t(1 - error/2, degrees) s     s told by the runs themselves, both sides pooled, whatever it is
    z(1 - error/2) a              a the most by which runs of that figure were ever seen to differ

The second does not count where the runs differ by more than that. The first does not where at most three runs are to
tell an error of less than 1 in 100: all three may be disturbed alike. Turns have another interval
(``harness.core.stats.turns``), which may be read after each of them.

Source:
    Student 1908, "The probable error of a mean", Biometrika 6(1), for the first; Bonferroni's inequality for
    the two.
"""

from collections.abc import Sequence
from math import exp, log, sqrt
from statistics import fmean, median, stdev
from typing import Final, NamedTuple

from harness.core.stats.intervals import Estimate
from harness.core.stats.steady import unsteady
from harness.core.stats.turns import middle_of, turn_ends, typical_half_width
from harness.core.units import format_percent

POWER: Final = 0.95
_MOST_RUNS: Final = 200
_FAR: Final = 700.0
"""Of logarithms: what lies beyond is no number any more."""
_TELLING: Final = 3
_RARE: Final = 0.01
_MEDIAN_ERROR: Final = 1.2533
"""Standard error of a median over that of a mean, for normal noise: sqrt(pi / 2)."""

Runs = Sequence[Sequence[float]]
"""Values of the samples of each run; all are positive, and no run is without one."""


class Spread(NamedTuple):
    """Standard deviation of ln(median) from run to run, or from turn to turn.

    Attributes:
        assumed: At most so much; None: nothing is assumed.
        told: What runs told; None where they told nothing.
        degrees: Degrees of freedom of what they told.
        unit: What is repeated: ``run``, ``sitting`` (runs within an hour of each other) or ``turn``.
        doubt: What speaks against one level of the runs on a side, in words (``unsteady``); never of turns.
    """

    assumed: float | None
    told: float | None = None
    degrees: int = 0
    unit: str = "run"
    doubt: str = ""

    @property
    def likely(self) -> float:
        """The best guess."""
        if self.told is not None:
            return self.told
        return self.assumed or 0.0

    def half_width(self, error: float) -> float | None:
        """How far one value may lie above the truth, in logs, but for ``error`` of all cases.

        It is None where neither the runs nor earlier ones show how far.
        """
        from scipy.special import ndtri, stdtrit

        if self.told is None:
            if self.assumed is None:
                return None
            return float(-ndtri(error)) * self.assumed
        if self.assumed is None or self.told > self.assumed:
            return float(-stdtrit(self.degrees, error)) * self.told
        if self.degrees < _TELLING and error < _RARE:
            return float(-ndtri(error)) * self.assumed
        return min(
            float(-stdtrit(self.degrees, error / 2.0)) * self.told, float(-ndtri(error / 2.0)) * self.assumed
        )

    def words(self) -> str:
        """Where it comes from, for people."""
        if self.told is None:
            most = format_percent(self.likely)
            return f"how much {self.unit}s differ is not known: up to {most} was seen elsewhere"
        return f"{self.unit}s differ by {self.told:.1%}"


def value_of(runs: Runs) -> float:
    """What the runs say together, as a logarithm."""
    return fmean(log(median(values)) for values in runs)


def spread_of(sides: Sequence[Runs], assumed: float | None, unit: str = "run") -> Spread:
    """Spread from run to run that some sides tell together, each about its own mean.

    What a run's own samples leave open is added to what is assumed. The runs of a side are in the order of time.
    """
    squares = 0.0
    degrees = 0
    doubt = ""
    own: list[float] = []
    for side in sides:
        logs = [log(median(values)) for values in side]
        squares += sum((each - fmean(logs)) ** 2 for each in logs)
        degrees += len(logs) - 1
        own += [_own_error(values) for values in side]
        if unit != "turn":
            doubt = doubt or unsteady([median(values) for values in side])
    if assumed:
        assumed = sqrt(assumed**2 + fmean(error**2 for error in own))
    return Spread(assumed, sqrt(squares / degrees) if degrees else None, degrees, unit, doubt)


def estimate(runs: Runs, spread: Spread, below: float, above: float, baseline: Runs = ()) -> Estimate:
    """A build's value, or its ratio to a ``baseline``.

    Ends at which it errs in those shares of cases, None: no end.
    """
    if spread.unit == "turn":
        return _of_turns(runs, below, above)
    mid = value_of(runs) - (value_of(baseline) if baseline else 0.0)
    halves = [spread.half_width(error) for error in (below, above)]
    count = sum(map(len, runs))
    if halves[0] is None or halves[1] is None:
        return Estimate(exp(mid), None, None, count)
    scale = _scale(len(runs), len(baseline))
    ends = [mid - halves[0] * scale, mid + halves[1] * scale]
    return Estimate(exp(mid), exp(max(ends[0], -_FAR)), exp(min(ends[1], _FAR)), count)


def _of_turns(turns: Runs, below: float, above: float) -> Estimate:
    """The ratio of turns, each the median of its ratios; an end that so few turns cannot give is None."""
    logs = [log(median(values)) for values in turns]
    low, high = turn_ends(logs, below, above)
    return Estimate(
        middle_of(logs),
        None if low is None else exp(low),
        None if high is None else exp(high),
        sum(map(len, turns)),
    )


def found(spread: Spread, counts: tuple[int, int], error: float) -> float | None:
    """Smallest slowdown that so many runs (of the build, of its baseline; 0: none) show in 95 of 100 gates, as a share.

    Source:
        J. Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", 2nd ed., chapter 2.
    """
    half = _half_of(spread, counts, error)
    if half is None:
        return None
    return 1.0 - exp(-(half + _power_width(spread) * _scale(*counts)))


def runs_needed(distance: float, counts: tuple[int, int], spread: Spread, error: float) -> int | None:
    """Runs with which a build at that distance (of logs) from its limit is decided in 95 of 100 gates.

    They tell the spread too. None where no number of them does, which is so beside a short baseline.
    """
    for count in range(counts[0] + 1, _MOST_RUNS):
        degrees = spread.degrees + count - max(1, counts[0])
        later = spread._replace(told=spread.likely if degrees else None, degrees=degrees)
        half = _half_of(later, (count, counts[1]), error)
        if half is not None and half + _power_width(later) * _scale(count, counts[1]) <= abs(distance):
            return count
    return None


def _half_of(spread: Spread, counts: tuple[int, int], error: float) -> float | None:
    """Half width of ln(value) of so many runs or turns; None where they give none."""
    if spread.unit == "turn":
        return typical_half_width(spread.likely, counts[0], error)
    half = spread.half_width(error)
    return None if half is None else half * _scale(*counts)


def _scale(count: int, baseline_count: int) -> float:
    return sqrt(1.0 / count + (1.0 / baseline_count if baseline_count else 0.0))


def _power_width(spread: Spread) -> float:
    from scipy.special import ndtri

    return float(ndtri(POWER)) * spread.likely


def _own_error(values: Sequence[float]) -> float:
    """Standard error of ln(median) of one run, from its samples."""
    if len(values) < 2:
        return 0.0
    return _MEDIAN_ERROR * stdev([log(value) for value in values]) / sqrt(len(values))
