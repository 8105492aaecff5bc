"""90 % intervals from the errors made on chips that a fit had not seen.

The 5 % and 95 % quantiles of ln(measured / predicted), one vote each, over left-out chips: a jackknife interval (Barber
et al. 2021, "Predictive inference with the jackknife+"). Groups with few votes borrow from the wider group.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from harness.domain.prediction import Interval

_POOL_VOTES = 15
"""Votes of the whole that are mixed into each group."""


_NOVELTY_RATIO = 1.15
"""Widening: a chip of tomorrow is less like the others than one left out of a table that holds its siblings."""


def interval(mid: float, residual: tuple[float, float], extra: float = 0.0) -> Interval:
    """``mid`` with its interval; ``extra`` is a further spread in ln, added in squares."""
    low, high = residual
    return Interval(
        mid=mid,
        low=mid * math.exp(-math.hypot(min(low, 0.0), extra)),
        high=mid * math.exp(math.hypot(max(high, 0.0), extra)),
    )


def residual_for(
    residuals: Mapping[str, tuple[float, float]], phase: str, backend: str, group: str
) -> tuple[float, float]:
    """Quantiles for the closest group there is: phase, group and backend; phase and group; phase."""
    for key in (f"{phase}/{group}/{backend}", f"{phase}/{group}", phase):
        if key in residuals:
            return residuals[key]
    return (-0.5, 0.5)


def quantiles(
    own: Sequence[tuple[str, float, float]], parent: Sequence[tuple[str, float, float]]
) -> tuple[float, float]:
    """5 % and 95 % quantiles of (chip, value, weight), mixed with a parent group's as if that were a few votes.

    The levels are those of split conformal prediction for n chips, 0.95 (1 + 1 / n) (Lei et al. 2018):
    rows of one chip err together, so chips are counted, not rows.
    """
    pooled = sum(w for _, _, w in parent)
    values = np.array([v for _, v, _ in (*own, *parent)])
    scale = _POOL_VOTES / pooled if pooled else 0.0
    weights = np.array([*(w for _, _, w in own), *(w * scale for _, _, w in parent)])
    chips = len({chip for chip, _, _ in (*own, *parent)})
    level = min(0.95 * (1 + 1 / chips), 1.0)
    order = np.argsort(values, kind="stable")
    share = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    low, high = np.interp([1 - level, level], share, values[order])
    return float(low) * _NOVELTY_RATIO, float(high) * _NOVELTY_RATIO


def grouped(residuals: Iterable[tuple[str, str, float, float]], least: float = 4.0) -> dict[str, tuple[float, float]]:
    """Quantiles for each key of at least ``least`` votes, pooled with its parent (what is before its last ``/``).

    Args:
        residuals: (key, chip, value, weight), keys like ``decode/dense/cuda``.
        least: Votes below which a group has none of its own.
    """
    listed = list(residuals)
    names = {key.rsplit("/", depth)[0] if depth else key for key, *_ in listed for depth in (0, 1, 2)}

    def of(name: str) -> list[tuple[str, float, float]]:
        return [(chip, v, w) for key, chip, v, w in listed if key == name or key.startswith(name + "/")]

    result = {}
    for name in sorted(names):
        own = of(name)
        if sum(w for _, _, w in own) >= least:
            parent = name.rpartition("/")[0]
            result[name] = quantiles(own, of(parent) if parent else [])
    return result
