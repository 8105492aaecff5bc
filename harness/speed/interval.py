"""90 % intervals: what a fit expects, scaled by the errors it made on chips and sources that it had not seen.

For each prediction the fit expects a spread, s = sqrt(g' S g + n^2): n the noise of one measurement, g the
gradient of ln t and S the covariance of the terms, levels that nobody has measured among them; so s grows
where a chip, a family, a runtime or an api had few rows or none. The 90 % quantile of |ln(measured /
predicted)| / s, one vote each, turns it into an interval: normalised split conformal prediction (Lei et al.
2018, section 5.2). The errors are those on rows whose source was left out, where the chip is known by others,
and those on rows whose chip and source were left out together: what nobody knows is calibrated on what nobody
knew. The quantile is a product: that of the phase, of what is known of the chip against the phase, then of
the kind of model, of the hardware, of the api and, in decode, of llama.cpp or any other runtime, each against
all before it, since drivers and kernels of some move more than others'. A class of few sources borrows from
the phase.
"""

import math
from collections.abc import Mapping
from typing import Final

from harness.core.prediction import Interval
from harness.speed.work import Machine, Work

UNKNOWN_SCALE: Final = 2.0
"""Half-width in units of the expected spread where no row has told: 90 % of a Student-t of 4 degrees."""

UNSETTLED_RATIO: Final = 4.0
"""High / low from which a prediction is not known well enough to decide by."""


def interval(mid: float, below: float, above: float | None = None) -> Interval:
    """``mid`` with this spread in ln below it, and above it the same unless told."""
    return Interval(mid, mid * math.exp(-below), mid * math.exp(below if above is None else above))


def widened(own: Interval, below: float, above: float) -> Interval:
    """An interval with so much further doubt in ln, independent of its own: squares add."""
    low = math.hypot(math.log(own.mid / own.low), below)
    high = math.hypot(math.log(own.high / own.mid), above)
    return interval(own.mid, low, high)


def scale_classes(phase: str, work: Work, machine: Machine, *, known: bool) -> tuple[str, ...]:
    """The classes whose scales multiply that of the phase.

    Whether rows of its chip on its api were ``known``.
    """
    chip = "new chip"
    if known:
        chip = "known chip"
    names = [chip, work.kind, machine.hardware, machine.api]
    if phase == "decode":
        names.append("another runtime" if machine.other_runtime else "llama.cpp")
    return tuple(f"{phase}/{name}" for name in names)


def scale_of(scales: Mapping[str, float], phase: str, work: Work, machine: Machine, *, known: bool) -> float:
    """Half of a 90 % interval in ln, in units of the spread that the fit expects."""
    own = [scales.get(name, 1.0) for name in scale_classes(phase, work, machine, known=known)]
    return scales.get(phase, UNKNOWN_SCALE) * math.prod(own)
