"""How far confidences are from what comes true.

``confidences`` [n] are the probabilities a model gave to its own answers (or to one class), ``correct`` [n] says
whether they came true. Bins of equal width are [k / bins, (k + 1) / bins), the last one closed: 1.0 lies in the last
bin. The edge of a bin is the double nearest to k / bins, and a confidence that equals it belongs to the bin above.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import RefusedError

FEW: Final = 200
"""Below so many rows an ECE is noise: ten bins of perfectly calibrated data give 0.066 at n = 200."""

_CHUNK: Final = 32_768

Floats = NDArray[np.float64]


class Bins(NamedTuple):
    """What each bin holds: rows, mean confidence and share of correct ones (NaN in an empty bin)."""

    counts: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats


def checked(confidences: ArrayLike, correct: ArrayLike, *, allow_few: bool = False) -> tuple[Floats, Floats]:
    """Both columns as doubles.

    Raises:
        RefusedError: Not of one dimension, of unequal length, NaN, out of range, or fewer than 200 rows without
            ``allow_few``.
    """
    p, y = np.asarray(confidences, np.float64), np.asarray(correct, np.float64)
    if p.ndim != 1 or p.shape != y.shape:
        raise RefusedError(f"confidences and outcomes must be two columns of one length, got {p.shape} and {y.shape}")
    if len(p) < (1 if allow_few else FEW):
        raise RefusedError(f"{len(p)} rows: below {FEW} an ECE is noise (allow_few asks for it all the same)")
    if not (p.min() >= 0.0 and p.max() <= 1.0):  # NaN fails both
        raise RefusedError("confidences must lie in [0, 1] and be no NaN")
    if np.asarray(correct).dtype != np.bool_ and not ((y == 0.0) | (y == 1.0)).all():
        raise RefusedError("outcomes must be 0 or 1")
    return p, y


def equal_width(confidences: ArrayLike, correct: ArrayLike, bin_count: int = 10, *, allow_few: bool = False) -> Bins:
    """Bins of equal width; errors as ``checked``."""
    p, y = checked(confidences, correct, allow_few=allow_few)
    outcomes = np.asarray(correct) if np.asarray(correct).dtype == np.bool_ else y == 1.0
    by_outcome, total = np.zeros((bin_count, 2), np.int64), np.zeros(bin_count)
    for start in range(0, len(p), _CHUNK):  # temporaries that stay in the cache
        part = p[start : start + _CHUNK]
        at = _bin_of(part, bin_count)
        total += np.bincount(at, part, bin_count)
        at *= 2
        at += outcomes[start : start + _CHUNK]
        by_outcome += np.bincount(at, minlength=2 * bin_count).reshape(-1, 2)
    counts = by_outcome.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Bins(counts, total / counts, by_outcome[:, 1] / counts)


def ece(bins: Bins) -> float:
    """Expected calibration error: sum over bins of n_b / n |accuracy_b - confidence_b| (Naeini et al. 2015)."""
    filled = bins.counts > 0
    gaps = np.abs(bins.accuracy[filled] - bins.confidence[filled])
    return float(bins.counts[filled] / bins.counts.sum() @ gaps)


def _bin_of(p: Floats, bin_count: int) -> NDArray[np.intp]:
    """Bin by edges k / bins as doubles; a product that may have rounded across an edge is put right by comparing."""
    place = p * bin_count
    at = place.astype(np.intp)
    near = np.flatnonzero(np.abs(place - np.rint(place)) < 1e-9 * bin_count)
    if len(near):
        edges = np.arange(bin_count + 2) / bin_count
        at[near] += p[near] >= edges[at[near] + 1]
        at[near] -= p[near] < edges[at[near]]
    np.minimum(at, bin_count - 1, out=at)
    return at
