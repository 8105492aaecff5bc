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


class Decomposition(NamedTuple):
    """Murphy's parts of the Brier score over bins; ``within`` is what the spread inside a bin adds.

    brier = reliability - resolution + uncertainty + within, exactly.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within: float


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


def equal_mass(confidences: ArrayLike, correct: ArrayLike, bin_count: int = 10, *, allow_few: bool = False) -> Bins:
    """Bins of equal numbers of rows (they differ by one at most), in order of confidence; errors as ``checked``."""
    p, y = checked(confidences, correct, allow_few=allow_few)
    order = np.argsort(p, kind="stable")
    of_rank = (np.arange(len(p)) * bin_count) // len(p)
    return _sums(of_rank, p[order], y[order], bin_count)


def ece(bins: Bins) -> float:
    """Expected calibration error: sum over bins of n_b / n |accuracy_b - confidence_b| (Naeini et al. 2015)."""
    weights, gaps = _gaps(bins)
    return float(weights @ gaps)


def mce(bins: Bins) -> float:
    """Maximum calibration error: the largest gap of a bin that holds anything."""
    return float(_gaps(bins)[1].max())


def classwise_ece(
    probabilities: ArrayLike, labels: ArrayLike, bin_count: int = 10, *, allow_few: bool = False
) -> float:
    """Mean over classes of the ECE of that class's probability (Kull et al. 2019).

    Args:
        probabilities: [n, classes], rows summing to 1.
        labels: True class of each row [n].
        bin_count: Bins.
        allow_few: Accept fewer than 200 rows.

    Raises:
        RefusedError: Shapes or values are out of range.
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels)
    if p.ndim != 2 or y.shape != p.shape[:1] or not np.allclose(p.sum(1), 1.0, atol=1e-6):
        raise RefusedError("probabilities must be [n, classes] with rows that sum to 1, labels [n]")
    if not np.isin(y, np.arange(p.shape[1])).all():
        raise RefusedError(f"labels must be whole numbers from 0 to {p.shape[1] - 1}")
    columns = (equal_width(p[:, c], y == c, bin_count, allow_few=allow_few) for c in range(p.shape[1]))
    return float(np.mean([ece(b) for b in columns]))


def brier(confidences: ArrayLike, correct: ArrayLike, *, allow_few: bool = False) -> float:
    """Mean of (confidence - outcome)^2 (Brier 1950)."""
    p, y = checked(confidences, correct, allow_few=allow_few)
    return float(np.mean((p - y) ** 2))


def brier_parts(bins: Bins, confidences: ArrayLike, correct: ArrayLike) -> Decomposition:
    """Murphy's decomposition over given bins (Murphy 1973; the within-bin term: Stephenson et al. 2008)."""
    p, y = checked(confidences, correct, allow_few=True)
    weights, _ = _gaps(bins)
    filled = bins.counts > 0
    base = float(y.mean())
    reliability = float(weights @ (bins.confidence[filled] - bins.accuracy[filled]) ** 2)
    resolution = float(weights @ (bins.accuracy[filled] - base) ** 2)
    uncertainty = base * (1 - base)
    within = float(np.mean((p - y) ** 2)) - (reliability - resolution + uncertainty)
    return Decomposition(reliability, resolution, uncertainty, within)


def nll(confidences: ArrayLike, correct: ArrayLike, *, allow_few: bool = False, floor: float = 2.0**-52) -> float:
    """Mean of -log of the probability given to what happened, in nats; probabilities are kept ``floor`` from 0, 1."""
    p, y = checked(confidences, correct, allow_few=allow_few)
    p = np.clip(p, floor, 1 - floor)
    return float(-np.mean(np.where(y == 1.0, np.log(p), np.log1p(-p))))


def bands(
    confidences: ArrayLike,
    correct: ArrayLike,
    bin_count: int = 10,
    *,
    draws: int = 500,
    seed: int = 0,
    level: float = 0.95,
    allow_few: bool = False,
) -> tuple[Bins, Floats, tuple[float, float]]:
    """A reliability diagram with its uncertainty.

    Returns:
        The bins; low and high accuracy of each bin [2, bins] over bootstrap draws of the rows; and the same interval
        of the ECE. A draw's rows fall into bins by a multinomial, and its outcomes in a bin by a binomial; the mean
        confidence of a bin is kept.
    """
    bins = equal_width(confidences, correct, bin_count, allow_few=allow_few)
    rng = np.random.default_rng(seed)
    total = int(bins.counts.sum())
    counts = rng.multinomial(total, bins.counts / total, draws)
    hits = rng.binomial(counts, np.nan_to_num(bins.accuracy))
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = np.where(counts > 0, hits / counts, np.nan)
    filled = bins.counts > 0
    tails = [50 * (1 - level), 50 * (1 + level)]
    edges = np.full((2, bin_count), np.nan)
    edges[:, filled] = np.nanpercentile(accuracy[:, filled], tails, axis=0)
    gaps = np.abs(np.nan_to_num(accuracy - bins.confidence))
    low, high = np.percentile((counts * gaps).sum(1) / total, tails)
    return bins, edges, (float(low), float(high))


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


def _sums(at: NDArray[np.int64], p: Floats, y: Floats, bin_count: int) -> Bins:
    counts = np.bincount(at, minlength=bin_count)
    with np.errstate(invalid="ignore", divide="ignore"):
        confidence = np.bincount(at, p, bin_count) / counts
        accuracy = np.bincount(at, y, bin_count) / counts
    return Bins(counts, confidence, accuracy)


def _gaps(bins: Bins) -> tuple[Floats, Floats]:
    filled = bins.counts > 0
    return bins.counts[filled] / bins.counts.sum(), np.abs(bins.accuracy[filled] - bins.confidence[filled])
