"""Put confidences right by Platt's curve. Fit on one part of the data, judge on another."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.stats.calibration.metrics import checked
from harness.stats.logistic import logistic

Floats = NDArray[np.float64]


class Platt(NamedTuple):
    """p -> sigmoid(slope * logit(p) + offset)."""

    slope: float
    offset: float

    def __call__(self, confidences: ArrayLike) -> Floats:
        """Scaled confidences [n]."""
        return _sigmoid(self.slope * _logit(np.asarray(confidences, np.float64)) + self.offset)


def platt(confidences: ArrayLike, correct: ArrayLike, *, allow_few: bool = False) -> Platt:
    """Logistic regression of the outcome on logit(confidence), by Newton's method (Platt 1999, plain targets)."""
    p, y = checked(confidences, correct, allow_few=allow_few)
    design = np.stack([_logit(p), np.ones_like(p)], axis=1)
    w = logistic(design, y == 1.0, np.zeros(2), tolerance=1e-14, step_count=100)
    return Platt(float(w[0]), float(w[1]))


def _logit(p: Floats) -> Floats:
    p = np.clip(p, 1e-12, 1 - 1e-12)
    odds: Floats = np.log(p) - np.log1p(-p)
    return odds


def _sigmoid(x: Floats) -> Floats:
    share: Floats = np.exp(-np.logaddexp(0.0, -x))
    return share
