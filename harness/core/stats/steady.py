"""Whether values in the order of time are those of one level: no trend, no lag, no two modes.

The tests come before a comparison of blocks (some runs of one build, then some of another): where one of them
finds something, what the machine did is not told from what the build did.

Source:
    H. Mann 1945, "Nonparametric tests against trend", Econometrica 13(3); J. von Neumann 1941, "Distribution of
    the ratio of the mean square successive difference to the variance", Ann. Math. Stat. 12(4); the cut in two is
    Otsu's (1979), its chance that of normal values.
"""

from collections.abc import Sequence
from math import comb, sqrt
from typing import Final

import numpy as np

LEAST: Final = 5
"""Values that a test needs."""
_TREND_LEVEL: Final = 0.02
_LAG_LEVEL: Final = 0.02
_MODES: Final = {5: 0.972, 6: 0.956, 8: 0.917, 10: 0.899, 14: 0.851, 20: 0.823, 30: 0.783}
"""Share of the variance that a cut in two explains in 98 of 100 series of normal values, by their number: by
simulation (``tests/unit/core/stats/test_steady.py`` draws them anew)."""


def unsteady(values: Sequence[float]) -> str:
    """The reasons, in words, against one level of all values; empty for none, and for fewer values than ``LEAST``.

    The values must be positive, and in the order of time.
    """
    if len(values) < LEAST:
        return ""
    logs = np.log(np.asarray(values, dtype=np.float64))
    if float(np.ptp(logs)) < 1e-9:  # counts, and sizes that never change
        return ""
    if has_trend(logs):
        return f"the runs have a trend ({_per_run(logs):+.1%} a run)"
    if has_lag(logs):
        return "each run is like the one before it"
    if has_modes(logs):
        return "the runs lie around two values"
    return ""


def has_trend(logs: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> bool:
    """Whether more pairs rise than fall, or fall than rise, beyond chance (Mann-Kendall)."""
    n = len(logs)
    first, second = np.triu_indices(n, 1)
    rises = float(np.sign(logs[second] - logs[first]).sum())
    if n <= 8:
        return _kendall_tail(n, abs(rises)) <= _TREND_LEVEL
    from scipy.special import ndtr

    variance = n * (n - 1) * (2 * n + 5) / 18
    return bool(2.0 * ndtr(-(abs(rises) - 1.0) / sqrt(variance)) <= _TREND_LEVEL)


def has_lag(logs: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> bool:
    """Whether neighbours differ by less than strangers do (von Neumann's ratio, one-sided)."""
    from scipy.special import ndtr

    n = len(logs)
    if n < 8:
        return False
    ratio = float((np.diff(logs) ** 2).sum() / ((logs - logs.mean()) ** 2).sum())
    spread = sqrt(4.0 * (n - 2) / ((n + 1.0) * (n - 1.0)))
    return bool(ndtr((ratio - 2.0) / spread) <= _LAG_LEVEL)


def has_modes(logs: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> bool:
    """Whether a cut in two explains more of the variance than it does of normal values; both parts have two or more."""
    n = len(logs)
    ordered = np.sort(logs)
    total = float(((ordered - ordered.mean()) ** 2).sum())
    best = 0.0
    for cut in range(2, n - 1):
        parts = (ordered[:cut], ordered[cut:])
        within = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
        best = max(best, 1.0 - within / total)
    return best > float(np.interp(n, list(_MODES), list(_MODES.values())))


def _kendall_tail(n: int, rises: float) -> float:
    """Chance of a sum of signs at least so far from 0, of n values in random order: by counting inversions."""
    counts = [1]
    for size in range(2, n + 1):
        longer = [0] * (len(counts) + size - 1)
        for index, count in enumerate(counts):
            for more in range(size):
                longer[index + more] += count
        counts = longer
    pairs = comb(n, 2)
    return sum(count for fewer, count in enumerate(counts) if abs(pairs - 2 * fewer) >= rises) / sum(counts)


def _per_run(logs: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    """Median slope a run (Theil-Sen)."""
    first, second = np.triu_indices(len(logs), 1)
    return float(np.expm1(np.median((logs[second] - logs[first]) / (second - first))))
