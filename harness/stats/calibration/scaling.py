"""Put confidences right: temperature, Platt. Fit on one part of the data, judge on another."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import RefusedError
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


def temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """T that minimises the NLL of softmax(logits / T) (Guo et al. 2017).

    Args:
        logits: [n, classes].
        labels: True class of each row [n].

    The NLL is convex in 1 / T: bisection of its slope between T = 1/100 and 100 finds the only minimum.

    Raises:
        RefusedError: Shapes differ or a value is not finite.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels)
    if z.ndim != 2 or y.shape != z.shape[:1] or not len(y) or not np.isfinite(z).all():
        raise RefusedError("logits must be [n, classes] and finite, labels [n]")
    z = z - z.max(1, keepdims=True)
    true = z[np.arange(len(y)), y.astype(np.int64)]
    low, high = np.log(0.01), np.log(100.0)
    for _ in range(100):  # bisection on the sign of the slope in b = 1 / T
        middle = (low + high) / 2
        weights = np.exp(z / np.exp(middle))
        slope = np.mean((weights * z).sum(1) / weights.sum(1) - true)
        # slope > 0: the mean logit exceeds the true one, b must fall, T must rise
        low, high = (middle, high) if slope > 0 else (low, middle)
    return float(np.exp((low + high) / 2))


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
