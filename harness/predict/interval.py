"""90 % intervals: what a fit expects, scaled by the errors it made on sources that it had not seen.

For each prediction the fit expects a spread, s = sqrt(g' S g + n^2): n the noise of one measurement, g the gradient of
ln t and S the covariance of the terms, levels that nobody has measured among them; so s grows where a chip, a family, a
runtime or an api had few rows or none. The 5 % and 95 % quantiles of ln(measured / predicted) / s, one vote each, over
sources left out, turn it into an interval: normalised split conformal prediction (Lei et al. 2018, section 5.2). Groups
with few votes borrow from the wider group.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from harness.domain.prediction import Interval

_POOL_VOTES: Final = 15
"""Votes of the whole that are mixed into each group."""

UNSETTLED_RATIO: Final = 4.0
"""High / low from which a prediction is not known well enough to decide by."""


def interval(mid: float, residual: tuple[float, float], extra: float = 0.0, spread: float = 1.0) -> Interval:
    """``mid`` with its interval: quantiles in units of ``spread``; ``extra`` is a further one, added in squares."""
    low, high = residual[0] * spread, residual[1] * spread
    return Interval(
        mid=mid,
        low=mid * math.exp(-math.hypot(min(low, 0.0), extra)),
        high=mid * math.exp(math.hypot(max(high, 0.0), extra)),
    )


def residual_for(residuals: Mapping[str, tuple[float, float]], phase: str, api: str, group: str) -> tuple[float, float]:
    """Quantiles for the closest group there is: phase, group and api; phase and group; phase."""
    for key in (f"{phase}/{group}/{api}", f"{phase}/{group}", phase):
        if key in residuals:
            return residuals[key]
    return (-2.5, 2.5)


def quantiles(
    own: Sequence[tuple[str, float, float]], parent: Sequence[tuple[str, float, float]]
) -> tuple[float, float]:
    """5 % and 95 % quantiles of (source, value, weight), mixed with a parent group's as if that were a few votes.

    The levels are those of split conformal prediction for n sources (Lei et al. 2018): the 0.95 (n + 1)-th of n values,
    which stands at 0.95 + 0.45 / n when the i-th stands at (i - 1/2) / n. Rows of one source err together, so sources
    are counted, not rows, and a parent's sources as no more than the votes that they are mixed in for.
    """
    pooled = sum(w for _, _, w in parent)
    values = np.array([v for _, v, _ in (*own, *parent)])
    scale = _POOL_VOTES / pooled if pooled else 0.0
    weights = np.array([*(w for _, _, w in own), *(w * scale for _, _, w in parent)])
    mine = {source for source, _, _ in own}
    sources = len(mine) + min(len({source for source, _, _ in parent} - mine), _POOL_VOTES)
    level = min(0.95 + 0.45 / sources, 1.0)
    order = np.argsort(values, kind="stable")
    share = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    low, high = np.interp([1 - level, level], share, values[order])
    return float(low), float(high)


def grouped(residuals: Iterable[tuple[str, str, float, float]], least: float = 4.0) -> dict[str, tuple[float, float]]:
    """Quantiles for each key of at least ``least`` votes, pooled with its parent (what is before its last ``/``).

    Args:
        residuals: (key, source, value, weight), keys like ``decode/dense/cuda``.
        least: Votes below which a group has none of its own.
    """
    listed = list(residuals)
    names = {key.rsplit("/", depth)[0] if depth else key for key, *_ in listed for depth in (0, 1, 2)}

    def of(name: str) -> list[tuple[str, float, float]]:
        return [(source, v, w) for key, source, v, w in listed if key == name or key.startswith(name + "/")]

    result = {}
    for name in sorted(names):
        own = of(name)
        if sum(w for _, _, w in own) >= least:
            parent = name.rpartition("/")[0]
            result[name] = quantiles(own, of(parent) if parent else [])
    return result
