"""How far confidences are from what comes true.

``confidences`` [n] are the probabilities a model gave to its own answers (or to one class), ``correct`` [n]
says whether they came true. Bins of equal width are [k / bins, (k + 1) / bins), the last one closed: 1.0 lies
in the last bin. The edge of a bin is the double nearest to k / bins, and a confidence that equals it belongs
to the bin above.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.core.arrays import Doubles
from harness.core.errors import RefusedError


def checked(confidences: ArrayLike, correct: ArrayLike) -> tuple[Doubles, Doubles]:
    """Both columns as doubles.

    Raises:
        RefusedError: Not of one dimension, of unequal length, without a row, NaN, or out of range.
    """
    p = np.asarray(confidences, np.float64)
    y = np.asarray(correct, np.float64)
    if p.ndim != 1 or p.shape != y.shape or not len(p):
        raise RefusedError(
            f"confidences and outcomes must be two columns of one length, got {p.shape} and {y.shape}"
        )
    if not (p.min() >= 0.0 and p.max() <= 1.0):  # NaN fails both
        raise RefusedError("confidences must lie in [0, 1] and be no NaN")
    if not ((y == 0.0) | (y == 1.0)).all():
        raise RefusedError("outcomes must be 0 or 1")
    return p, y


def bins_of(confidences: Doubles, bin_count: int) -> NDArray[np.intp]:
    """The bin of equal width of each confidence [n], from 0 on."""
    return np.searchsorted(np.arange(1, bin_count) / bin_count, confidences, side="right")


def ece(confidences: ArrayLike, correct: ArrayLike, bin_count: int = 10) -> float:
    """Expected calibration error: sum over bins of n_b / n |accuracy_b - confidence_b| (Naeini et al. 2015).

    Raises:
        RefusedError: The input is one that :func:`checked` refuses.
    """
    p, y = checked(confidences, correct)
    gaps = np.bincount(bins_of(p, bin_count), y - p)  # n_b (accuracy_b - confidence_b)
    return float(np.abs(gaps).sum() / len(p))


def accuracy_at(confidences: ArrayLike, correct: ArrayLike, coverage: float) -> float:
    """Accuracy among the surest rows that make up at least ``coverage`` of all."""
    shares, risk = _risk_at_coverage(confidences, correct)
    at = int(np.searchsorted(shares, coverage - 1e-12))
    return float(1.0 - risk[min(at, len(risk) - 1)])


def _risk_at_coverage(confidences: ArrayLike, correct: ArrayLike) -> tuple[Doubles, Doubles]:
    """Share of rows answered and share of errors among them, from the surest row on.

    Rows of equal confidence are answered together, so that their order does not matter.
    """
    p, y = checked(confidences, correct)
    order = np.argsort(-p, kind="stable")
    p = p[order]
    wrong = np.cumsum(1.0 - y[order])
    last = np.flatnonzero(np.append(p[1:] != p[:-1], True))
    return (last + 1.0) / len(p), wrong[last] / (last + 1.0)
