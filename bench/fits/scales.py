"""Scales of intervals by phase and class, from what a fit missed of rows that it had not seen (``interval.py``)."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

import numpy as np
from numpy.typing import NDArray

_POOL_SOURCES: Final = 5
"""Sources of decode that are mixed into each of its classes: one that a single table fills keeps a sixth of its own."""
_POOL_VOTES: Final = 15
"""Votes of prompts that are mixed into each of their classes: by sources they are wider and score worse."""
_LEAST_VOTES: Final = 4
"""Votes below which a class has no scale of its own."""

Array = NDArray[np.float64]


def class_scales(
    classes: Sequence[tuple[str, ...]], sources: Sequence[str], values: Array, weights: Array
) -> dict[str, float]:
    """Scales by phase and class of rows with these |ln(measured / predicted)| / s, sources and weights, each [rows]."""
    left, source, result = values.copy(), np.array(sources), {}
    phases = np.array([name.partition("/")[0] for name, *_ in classes])
    for phase in sorted(set(phases)):
        at = phases == phase
        result[phase] = _quantile(left, weights, source, at)
        left[at] /= result[phase]
    for names in map(np.array, zip_longest(*classes, fillvalue="")):  # classes of one phase may be more than another's
        seen = left.copy()
        for name in sorted(set(names) - {""}):
            at = names == name
            if weights[at].sum() >= _LEAST_VOTES:
                phase = name.partition("/")[0]
                result[name] = _quantile(seen, weights, source, at, phases == phase, phase == "decode")
                left[at] /= result[name]
    return result


def _quantile(
    values: Array,
    weights: Array,
    sources: NDArray[np.str_],
    own: NDArray[np.bool_],
    parent: NDArray[np.bool_] | None = None,
    by_source: bool = True,
) -> float:
    """90 % quantile of ``own`` rows, among which a parent's rows count as a few sources, or else as a few votes.

    The level is that of split conformal prediction for n sources (Lei et al. 2018): the 0.9 (n + 1)-th of n values,
    which stands at 0.9 + 0.4 / n when the i-th stands at (i - 1/2) / n. Rows of one source err together, so sources are
    counted, not rows: as many of equal votes as tell as much, (sum v)^2 / sum v^2 (Kish 1965, section 8.2), and a
    parent's as no more than they are mixed in for.
    """
    w = weights * own
    count = _equal_sources(sources, w)
    if parent is not None:
        pool = w.sum() * _POOL_SOURCES / count if by_source else _POOL_VOTES
        count += min(_equal_sources(sources, weights * parent), _POOL_SOURCES if by_source else _POOL_VOTES)
        w = w + weights * parent * (pool / (weights * parent).sum())
    order = np.argsort(values, kind="stable")
    order = order[w[order] > 0]
    share = (np.cumsum(w[order]) - w[order] / 2) / w.sum()
    return float(np.interp(min(0.9 + 0.4 / count, 1.0), share, values[order]))


def _equal_sources(sources: NDArray[np.str_], weights: Array) -> float:
    """Sources of equal weight that tell as much as these."""
    each = np.bincount(np.unique(sources, return_inverse=True)[1], weights)
    return float(each.sum() ** 2 / (each**2).sum())
