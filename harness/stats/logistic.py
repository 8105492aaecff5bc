"""Logistic regression by Newton's method: convex, so that some ten steps end at the optimum."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.stats.calibration.metrics import Floats, checked


class Platt(NamedTuple):
    """p -> sigmoid(slope * logit(p) + offset): puts confidences right. Fit on other data than are judged."""

    slope: float
    offset: float

    def __call__(self, confidences: ArrayLike) -> Floats:
        """Scaled confidences [n]."""
        return self.of_log_odds(_logit(confidences))

    def of_log_odds(self, log_odds: ArrayLike) -> Floats:
        """The same of confidences that are told as log-odds [n]."""
        scaled: Floats = np.exp(-np.logaddexp(0.0, -self.slope * np.asarray(log_odds, np.float64) - self.offset))
        return scaled


def platt(confidences: ArrayLike, correct: ArrayLike, *, allow_few: bool = False) -> Platt:
    """Logistic regression of the outcome on logit(confidence) (Platt 1999, plain targets)."""
    p, y = checked(confidences, correct, allow_few=allow_few)
    design = np.stack([_logit(p), np.ones_like(p)], axis=1)
    w = logistic(design, y == 1.0, np.zeros(2), tolerance=1e-14, step_count=100)
    return Platt(float(w[0]), float(w[1]))


def logistic(
    design: Floats, labels: NDArray[np.bool_], penalty: Floats, *, tolerance: float, step_count: int
) -> Floats:
    """Weights w [dim] that minimise mean log(1 + exp(-s (x w))) + sum(penalty w^2) / 2, s = +-1 by the label.

    Rows x (``design``) [n, dim], labels of both kinds [n], the weight of each square (``penalty``) [dim]. A step that
    gains less than ``tolerance`` is the last one; there are ``step_count`` at most.
    """
    n, d = design.shape
    sign = np.where(labels, 1.0, -1.0)
    w = np.zeros(d)
    loss = _loss(design, sign, penalty, w)
    for _ in range(step_count):
        p = 1 / (1 + np.exp(np.clip(sign * (design @ w), -500, 500)))  # probability of the wrong label
        gradient = -(design.T @ (sign * p)) / n + penalty * w
        curvature = np.maximum(p * (1 - p), 1e-12)
        hessian = (design.T * curvature) @ design / n + np.diag(penalty + 1e-12)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        # Halve until the loss falls: far from the optimum a full Newton step can overshoot.
        while (new := _loss(design, sign, penalty, w - size * step)) > loss and size > 1e-4:
            size /= 2
        w, gained, loss = w - size * step, loss - new, new
        if gained < tolerance:
            break
    return w


def _loss(design: Floats, sign: Floats, penalty: Floats, w: Floats) -> float:
    return float(np.mean(np.logaddexp(0, -sign * (design @ w))) + 0.5 * np.sum(penalty * w * w))


def _logit(confidences: ArrayLike) -> Floats:
    p = np.clip(np.asarray(confidences, np.float64), 1e-12, 1 - 1e-12)
    odds: Floats = np.log(p) - np.log1p(-p)
    return odds
