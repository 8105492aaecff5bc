"""90 % intervals: what a fit expects, scaled by the errors it made on chips and sources that it had not seen.

For each prediction the fit expects a spread, s = sqrt(g' S g + n^2): n the noise of one measurement, g the gradient of
ln t and S the covariance of the terms, levels that nobody has measured among them; so s grows where a chip, a family, a
runtime or an api had few rows or none. The 90 % quantile of |ln(measured / predicted)| / s, one vote each, turns it
into an interval: normalised split conformal prediction (Lei et al. 2018, section 5.2). The errors are those on rows
whose source was left out, where the chip is known by others, and those on rows whose chip and source were left out
together: what nobody knows is calibrated on what nobody knew. The quantile is the product of five: that of the phase,
of what is known of the chip against the phase, then of the kind of model, of the hardware and of the api, each against
all before it, since drivers and kernels of some move more than others'. A class of few sources borrows from the phase.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from harness.domain.prediction import Interval
from harness.predict.decode import Machine, Work

if TYPE_CHECKING:  # at run time where scales are fitted: a question starts sooner without it
    import numpy as np
    from numpy.typing import NDArray

_POOL_SOURCES: Final = 5
"""Sources of decode that are mixed into each of its classes: one that a single table fills keeps a sixth of its own."""
_POOL_VOTES: Final = 15
"""Votes of prompts that are mixed into each of their classes: by sources they are wider and score worse."""
_LEAST_VOTES: Final = 4
"""Votes below which a class has no scale of its own."""
UNKNOWN_SCALE: Final = 2.0
"""Half-width in units of the expected spread where no row has told: 90 % of a Student-t of 4 degrees."""

UNSETTLED_RATIO: Final = 4.0
"""High / low from which a prediction is not known well enough to decide by."""


def interval(mid: float, below: float, above: float | None = None) -> Interval:
    """``mid`` with this spread in ln below it, and above it the same unless told."""
    return Interval(mid=mid, low=mid * math.exp(-below), high=mid * math.exp(below if above is None else above))


def combined(middle: float, ends: tuple[float, float], own: Interval) -> Interval:
    """``middle`` with the width of ``own`` and that between ``ends``, independent of each other: squares in ln add."""
    low = math.hypot(math.log(own.mid / own.low), max(math.log(middle / ends[0]), 0.0))
    high = math.hypot(math.log(own.high / own.mid), max(math.log(ends[1] / middle), 0.0))
    return interval(middle, low, high)


def scale_classes(phase: str, work: Work, machine: Machine, *, known: bool) -> tuple[str, ...]:
    """The classes whose scales multiply that of the phase; whether rows of its chip on its api were ``known``."""
    chip = "known chip" if known else "new chip"
    return f"{phase}/{chip}", f"{phase}/{work.kind}", f"{phase}/{machine.hardware}", f"{phase}/{machine.api}"


def scale_of(scales: Mapping[str, float], phase: str, work: Work, machine: Machine, *, known: bool) -> float:
    """Half of a 90 % interval in ln, in units of the spread that the fit expects."""
    own = [scales.get(name, 1.0) for name in scale_classes(phase, work, machine, known=known)]
    return scales.get(phase, UNKNOWN_SCALE) * math.prod(own)


def class_scales(
    classes: Sequence[tuple[str, ...]],
    sources: Sequence[str],
    values: "NDArray[np.float64]",
    weights: "NDArray[np.float64]",
) -> dict[str, float]:
    """Scales by phase and class of rows with these |ln(measured / predicted)| / s, sources and weights, each [rows]."""
    import numpy as np

    left, source, result = values.copy(), np.array(sources), {}
    phases = np.array([name.partition("/")[0] for name, *_ in classes])
    for phase in sorted(set(phases)):
        at = phases == phase
        result[phase] = _quantile(left, weights, source, at)
        left[at] /= result[phase]
    for names in map(np.array, zip(*classes, strict=True)):
        seen = left.copy()
        for name in sorted(set(names)):
            at = names == name
            if weights[at].sum() >= _LEAST_VOTES:
                phase = name.partition("/")[0]
                result[name] = _quantile(seen, weights, source, at, phases == phase, phase == "decode")
                left[at] /= result[name]
    return result


def _quantile(
    values: "NDArray[np.float64]",
    weights: "NDArray[np.float64]",
    sources: "NDArray[np.str_]",
    own: "NDArray[np.bool_]",
    parent: "NDArray[np.bool_] | None" = None,
    by_source: bool = True,
) -> float:
    """90 % quantile of ``own`` rows, among which a parent's rows count as a few sources, or else as a few votes.

    The level is that of split conformal prediction for n sources (Lei et al. 2018): the 0.9 (n + 1)-th of n values,
    which stands at 0.9 + 0.4 / n when the i-th stands at (i - 1/2) / n. Rows of one source err together, so sources are
    counted, not rows: as many of equal votes as tell as much, (sum v)^2 / sum v^2 (Kish 1965, section 8.2), and a
    parent's as no more than they are mixed in for.
    """
    import numpy as np

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


def _equal_sources(sources: "NDArray[np.str_]", weights: "NDArray[np.float64]") -> float:
    """Sources of equal weight that tell as much as these."""
    import numpy as np

    each = np.bincount(np.unique(sources, return_inverse=True)[1], weights)
    return float(each.sum() ** 2 / (each**2).sum())
