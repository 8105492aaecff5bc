"""How fast a build is beside another one, from turns whose order was drawn by lot: an interval to be read at any time.

Each turn gives d = ln(candidate / baseline). Which side goes first is drawn by lot in each turn, and neither
side knows. So where the candidate is exp(theta) times the baseline, exchanging the two changes the sign of
d - theta and nothing else: the signs are fair coins whatever the machine does (drift, heat, modes, outliers,
runs that depend on each other). For any scale l > 0

    M_n(theta) = weighted mean over l of the product over turns of 2 / (1 + exp(-2 l (d - theta)))

is a fair game under theta: its mean stays 1, and it ever reaches 1 / error in at most that share of cases
(Ville). The lower end of the interval is the largest theta that the game refuses; the upper end is that of -d.

Source:
    J. Ville 1939; V. de la Pena 1999, "A general class of exponential inequalities", Ann. Probab. 27(1), whose
    exp(l x) / cosh(l x) each factor is; S. Howard et al. 2021, "Time-uniform, nonparametric, nonasymptotic
    confidence sequences", Ann. Stat. 49(2).
"""

from collections.abc import Sequence
from math import exp, log
from typing import Final

import numpy as np

from harness.core.arrays import Doubles

_SCALES: Final = {6.0: 0.4, 20.0: 0.3, 60.0: 0.2, 200.0: 0.1}
"""Scales l, in 1 / ln units, with the share of the stake on each: the best one for turns that differ by s and a
change of d is about d / s**2. Small ones, which outliers cost least, have most."""
_ROUNDS: Final = 4
_PLACES: Final = 33
_BOUND: Final = 20.0
"""Of logarithms: no build is faster or slower by more."""
_COST: Final = log(1.0 / 0.3)
"""What it costs that nobody knows the best scale: the share of the stake on a usual one."""


def turn_ends(logs: Sequence[float], below: float, above: float) -> tuple[float | None, float | None]:
    """Lower and upper end of the mean log ratio, which hold however often they are read.

    They err in the shares ``below`` and ``above`` of cases. An end is None where so few turns give none
    (``least_turns``).
    """
    values = np.asarray(logs, dtype=np.float64)
    low = _lower_end(values, below)
    high = _lower_end(-values, above)
    return low, None if high is None else -high


def least_turns(error: float) -> int:
    """The fewest turns that can give an end which errs in that share of cases: each turn at best doubles the stake."""
    count = 1
    while count * log(2.0) < log(1.0 / error):
        count += 1
    return count


def typical_half_width(spread: float, count: int, error: float) -> float | None:
    """How far an end lies from the middle, where turns differ by ``spread`` (standard deviation of d).

    None where the turns are too few. From the growth of the game for normal turns: n (x / s)^2 / 2 = ln(1 / error)
    + the cost of not knowing the scale; the last factor, as a turn gives at most ln 2, is fitted to simulations.
    """
    needed = log(1.0 / error) + _COST
    if count * log(2.0) <= needed:
        return None
    share = needed / (count * log(2.0))
    return float(spread * (2.0 * needed / count) ** 0.5 * (1.0 - share) ** -0.45)


def _lower_end(values: Doubles, error: float) -> float | None:
    """The largest theta below the values that the game refuses."""
    if len(values) < least_turns(error):
        return None
    needed = log(1.0 / error)
    high = float(np.median(values))
    low = high - _BOUND
    if _log_stakes(values, np.array([low]))[0] < needed:
        return None
    for _ in range(_ROUNDS):  # each narrows the place to a 32nd
        places = np.linspace(low, high, _PLACES)
        refused = _log_stakes(values, places) >= needed
        last = int(np.flatnonzero(refused)[-1]) if refused.any() else 0
        low, high = float(places[last]), float(places[min(last + 1, _PLACES - 1)])
    return low


def _log_stakes(values: Doubles, thetas: Doubles) -> Doubles:
    """Logarithm of M_n(theta) for each theta [thetas]."""
    scales = np.asarray(list(_SCALES))[:, None, None]
    weights = np.asarray(list(_SCALES.values()))
    gaps = values[None, None, :] - thetas[None, :, None]
    logs = (log(2.0) - np.logaddexp(0.0, -2.0 * scales * gaps)).sum(axis=2)
    most = logs.max(axis=0)
    result: Doubles = most + np.log(weights @ np.exp(logs - most))
    return result


def middle_of(logs: Sequence[float]) -> float:
    """The middle of the log ratios as a ratio: Hodges-Lehmann's, which outliers move little."""
    from harness.core.stats.intervals import hodges_lehmann

    return exp(float(hodges_lehmann(np.asarray(logs, dtype=np.float64))))
