"""Answer only when sure: risk against coverage."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.workloads.calibration.metrics import checked

Floats = NDArray[np.float64]


class RiskCoverage(NamedTuple):
    """Share answered and share wrong among those, from the surest row on; one point for each distinct confidence."""

    coverage: Floats
    risk: Floats
    threshold: Floats


def risk_coverage(confidences: ArrayLike, correct: ArrayLike, *, allow_few: bool = False) -> RiskCoverage:
    """The curve: with threshold t every row with confidence >= t is answered; equal ones go together."""
    p, y = checked(confidences, correct, allow_few=allow_few)
    order = np.argsort(-p, kind="stable")
    p, wrong = p[order], np.cumsum(1.0 - y[order])
    last = np.flatnonzero(np.append(p[1:] != p[:-1], True))
    count = last + 1.0
    return RiskCoverage(count / len(p), wrong[last] / count, p[last])


def aurc(confidences: ArrayLike, correct: ArrayLike, *, allow_few: bool = False) -> float:
    """Area under the curve: mean over rows of the risk at that row's own confidence (Geifman et al. 2019)."""
    curve = risk_coverage(confidences, correct, allow_few=allow_few)
    return float(np.diff(curve.coverage, prepend=0.0) @ curve.risk)


def accuracy_at(confidences: ArrayLike, correct: ArrayLike, coverage: float, *, allow_few: bool = False) -> float:
    """Accuracy among the surest rows that make up at least ``coverage`` of all."""
    curve = risk_coverage(confidences, correct, allow_few=allow_few)
    at = int(np.searchsorted(curve.coverage, coverage - 1e-12))
    return float(1.0 - curve.risk[min(at, len(curve.risk) - 1)])
