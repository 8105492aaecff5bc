"""Judge runs one by one and together: the spread from run to run is part of the interval.

The median of one run says how fast that run was, not how fast the build is: two runs of one build differ by more than
their samples tell (placement in memory, clocks, neighbours). So the value of a build is the mean of its runs' medians,

    half width of ln(value) = t(level, df) sqrt((b^2 + w^2) / k)

with k runs, b the spread from run to run, and w the error of a run's own median. b is learnt from earlier runs of the
same pins (five or more); until then it is assumed, and said to be.
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
_DISTURBED_FACTOR: Final = 3.0
"""How much slower a disturbed run is believed to have been made at most; beyond it, no disturbance is the cause."""


class Spread(NamedTuple):
    """Spread of ln(median) from run to run; ``run_count`` is of earlier runs, 0 where it is assumed."""

    ratio: float
    run_count: int

    @property
    def words(self) -> str:
        """Where it comes from, for people."""
        if not self.run_count:
            return f"{self.ratio:.1%} from run to run is assumed: {KNOWN_RUNS} earlier runs would tell"
        return f"{self.ratio:.1%} from run to run, learnt from {self.run_count} runs"


def spread_of_runs(earlier: Sequence[Sequence[float]]) -> Spread:
    """Spread from run to run, from the values of earlier runs of one build on one machine."""
    logs = [log(median(values)) for values in earlier if values and min(values) > 0]
    return Spread(stdev(logs), len(logs)) if len(logs) >= KNOWN_RUNS else Spread(ASSUMED_RATIO, 0)


def value_of_runs(runs: Sequence[Sequence[float]], spread: Spread, level: float) -> Estimate:
    """Value of a build from its runs' values, with an interval at that level; no interval below three samples."""
    count = sum(map(len, runs))
    mid = fmean(log(median(values)) for values in runs)
    if count < 3:
        return Estimate(exp(mid), None, None, count)
    half = _quantile(1.0 - (1.0 - level) / 2.0, spread) * _error(runs, spread)
    return Estimate(exp(mid), exp(mid - half), exp(mid + half), count)


def ratio_of_runs(
    candidate: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]], spread: Spread, level: float
) -> Estimate:
    """Ratio candidate / baseline of builds that were not measured in turns; no interval below three samples a side."""
    count = min(sum(map(len, side)) for side in (candidate, baseline))
    new, old = (fmean(log(median(values)) for values in side) for side in (candidate, baseline))
    if count < 3:
        return Estimate(exp(new - old), None, None, count)
    half = _quantile(1.0 - (1.0 - level) / 2.0, spread) * sqrt(
        sum(_error(side, spread) ** 2 for side in (candidate, baseline))
    )
    return Estimate(exp(new - old), exp(new - old - half), exp(new - old + half), count)


def detectable(candidate_count: int, baseline_count: int, spread: Spread, level: float) -> float:
    """Smallest slowdown that so many runs show in 95 of 100 gates, as a share; ``baseline_count`` 0: a fixed limit.

    Source:
        J. Cohen 1988, "Statistical Power Analysis for the Behavioral Sciences", 2nd ed., chapter 2.
    """
    quantiles = _quantile(1.0 - (1.0 - level) / 2.0, spread) + _quantile(POWER, spread)
    sides = 1.0 / candidate_count + (1.0 / baseline_count if baseline_count else 0.0)
    return 1.0 - exp(-quantiles * spread.ratio * sqrt(sides))


def runs_needed(distance: float, baseline_count: int, spread: Spread, level: float) -> int | None:
    """Runs with which a build at that distance (of logs) from its limit is decided in 95 of 100 gates.

    None where the baseline's own runs are too few for any number.
    """
    quantiles = _quantile(1.0 - (1.0 - level) / 2.0, spread) + _quantile(POWER, spread)
    room = (abs(distance) / (quantiles * spread.ratio)) ** 2 - (1.0 / baseline_count if baseline_count else 0.0)
    return max(1, ceil(1.0 / room)) if room > 0 else None


def beyond_disturbance(values: Sequence[float], limit: float, *, higher_is_better: bool) -> bool:
    """Whether even the best of disturbed values misses a limit by more than a disturbance explains."""
    if higher_is_better:
        return max(values) * _DISTURBED_FACTOR < limit
    return min(values) > limit * _DISTURBED_FACTOR


def _error(runs: Sequence[Sequence[float]], spread: Spread) -> float:
    """Standard error of the mean of the runs' logs."""
    own = [
        _MEDIAN_ERROR * stdev([log(v) for v in values]) / sqrt(len(values)) if len(values) > 1 else 0.0
        for values in runs
    ]
    return sqrt((spread.ratio**2 + fmean(each**2 for each in own)) / len(runs))


def _quantile(share: float, spread: Spread) -> float:
    from scipy.special import ndtri, stdtrit

    return float(stdtrit(spread.run_count - 1, share) if spread.run_count else ndtri(share))
