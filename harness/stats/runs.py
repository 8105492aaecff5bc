"""Runs one by one and together: the spread from run to run is part of the interval.

The median of one run says how fast that run was, not how fast the build is: two runs of one build differ by more than
their samples tell (placement in memory, clocks, neighbours). So the value of a build is the mean of its runs' medians,

    half width of ln(value) = t(level, df) sqrt((b^2 + w^2) / k)

with k runs, b the spread from run to run, and w the error of a run's own median. b is learnt from earlier runs of the
same kind (five or more); until then it is assumed, and said to be.
"""

from collections.abc import Sequence
from math import ceil, exp, log, sqrt
from statistics import fmean, median, stdev
from typing import Final, NamedTuple

from harness.stats.intervals import Estimate

KNOWN_RUNS: Final = 5
"""Earlier runs from which a spread is learnt."""
ASSUMED_RATIO: Final = 0.02
"""Spread from run to run where nobody knows it: medians of one build on a quiet machine of two cores."""
POWER: Final = 0.95
_MEDIAN_ERROR: Final = 1.2533
"""Standard error of a median over that of a mean, for normal noise: sqrt(pi / 2)."""

Runs = Sequence[Sequence[float]]
"""Values of the samples of each run; all are positive, and no run is without one."""


class Spread(NamedTuple):
    """Spread of ln(median) from run to run; ``run_count`` is of the runs that told it, 0 where it is assumed."""

    ratio: float
    run_count: int
    unit: str = "run"

    @property
    def words(self) -> str:
        """Where it comes from, for people."""
        share = f"{self.ratio:.1%} from {self.unit} to {self.unit}"
        if not self.run_count:
            return f"{share} is assumed: {KNOWN_RUNS} earlier runs would tell"
        return f"{share}, learnt from {self.run_count} {self.unit}s"


def spread_of_runs(earlier: Runs) -> Spread:
    """Spread from run to run, from the values of earlier runs of one build on one machine."""
    logs = [log(median(values)) for values in earlier if values and min(values) > 0]
    return Spread(stdev(logs), len(logs)) if len(logs) >= KNOWN_RUNS else Spread(ASSUMED_RATIO, 0)


def estimate_of_runs(runs: Runs, spread: Spread, level: float, baseline: Runs = ()) -> Estimate:
    """Value of a build from its runs' values, or its ratio to a ``baseline`` that was not measured in turns with it.

    There is no interval where a side has fewer than three samples.
    """
    sides = [runs, baseline] if baseline else [runs]
    means = [fmean(log(median(values)) for values in side) for side in sides]
    mid = means[0] - sum(means[1:])
    count = min(sum(map(len, side)) for side in sides)
    if count < 3:
        return Estimate(exp(mid), None, None, count)
    half = _quantile((1.0 + level) / 2.0, spread) * sqrt(sum(_variance(side, spread) for side in sides))
    return Estimate(exp(mid), exp(mid - half), exp(mid + half), count)


def detectable(estimate: Estimate, spread: Spread, level: float) -> float | None:
    """Smallest slowdown that an interval as wide shows in 95 of 100 gates, as a share; None without one.

    Source:
        J. Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", 2nd ed., chapter 2.
    """
    if not estimate.low or not estimate.high:
        return None
    half = log(estimate.high / estimate.low) / 2.0
    return 1.0 - exp(-half * (1.0 + _quantile(POWER, spread) / _quantile((1.0 + level) / 2.0, spread)))


def runs_needed(distance: float, baseline_count: int, spread: Spread, level: float) -> int | None:
    """Runs with which a build at that distance (of logs) from its limit is decided in 95 of 100 gates.

    None where it lies on its limit, or the baseline's own runs are too few for any number.
    """
    if not spread.ratio:
        return 1
    quantiles = _quantile((1.0 + level) / 2.0, spread) + _quantile(POWER, spread)
    room = (distance / (quantiles * spread.ratio)) ** 2
    room -= 1.0 / baseline_count if baseline_count else 0.0
    return max(1, ceil(1.0 / room)) if room > 0 else None


def _variance(runs: Runs, spread: Spread) -> float:
    """Squared standard error of the mean of the runs' logs."""
    own = [
        _MEDIAN_ERROR * stdev([log(v) for v in values]) / sqrt(len(values)) if len(values) > 1 else 0.0
        for values in runs
    ]
    return (spread.ratio**2 + fmean(each**2 for each in own)) / len(runs)


def _quantile(share: float, spread: Spread) -> float:
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(spread.run_count - 1, share) if spread.run_count else ndtri(share))
