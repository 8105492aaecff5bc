"""Logistic regression, and the scaling of confidences by it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.arrays import Doubles
from harness.stats.calibration.metrics import checked


class Platt(NamedTuple):
    """p -> sigmoid(slope * logit(p) + offset): puts confidences right. Fit on other data than are judged."""

    slope: float
    offset: float

    def __call__(self, confidences: ArrayLike) -> Doubles:
        """Scaled confidences [n]."""
        scaled: Doubles = np.exp(-np.logaddexp(0.0, -self.slope * _logit(confidences) - self.offset))
        return scaled


def platt(confidences: ArrayLike, correct: ArrayLike) -> Platt:
    """Logistic regression of the outcome on logit(confidence) (Platt 1999, plain targets)."""
    p, y = checked(confidences, correct)
    weights = logistic(np.stack([_logit(p), np.ones_like(p)], axis=1), y == 1.0, np.zeros(2))
    return Platt(float(weights[0]), float(weights[1]))


def logistic(design: Doubles, labels: NDArray[np.bool_], penalty: Doubles) -> Doubles:
    """Weights w [dim] that minimise mean log(1 + exp(-s (x w))) + sum(penalty w^2) / 2, s = +-1 by the label.

    Rows x (``design``) [n, dim], labels of both kinds [n], the weight of each square (``penalty``) [dim].
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    signed = design * np.where(labels, 1.0, -1.0)[:, None]

    def loss(w: Doubles) -> tuple[float, Doubles]:
        margin = signed @ w
        value = np.logaddexp(0.0, -margin).mean() + 0.5 * penalty @ w**2
        return float(value), penalty * w - signed.T @ expit(-margin) / len(margin)

    solved = minimize(
        loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B", options={"gtol": 1e-9, "ftol": 0.0}
    )
    weights: Doubles = solved.x
    return weights


def _logit(confidences: ArrayLike) -> Doubles:
    from scipy.special import logit

    odds: Doubles = logit(np.clip(np.asarray(confidences, np.float64), 1e-12, 1 - 1e-12))
    return odds
