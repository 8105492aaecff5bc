"""What a change (a quantisation) does to calibration, on the same rows: differences with intervals, and flips.

An ECE alone does not see quantisation; the paired NLL does.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import RefusedError
from harness.stats.calibration.metrics import checked, ece, equal_width
from harness.stats.calibration.smooth import smooth_ece_at, smoothing_width

Floats = NDArray[np.float64]


class Change(NamedTuple):
    """Candidate minus baseline, with the 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


class PairedReport(NamedTuple):
    """All that a report of a quantisation must say."""

    row_count: int
    nll: Change
    ece: Change
    accuracy: Change
    lost_count: int
    gained_count: int

    @property
    def flip_count(self) -> int:
        """Rows whose answer went from right to wrong or back."""
        return self.lost_count + self.gained_count


def compare(
    baseline: tuple[ArrayLike, ArrayLike, ArrayLike],
    candidate: tuple[ArrayLike, ArrayLike, ArrayLike],
    *,
    draws: int = 1000,
    seed: int = 0,
    allow_few: bool = False,
) -> PairedReport:
    """Compare two models on the same rows.

    Args:
        baseline: (confidence of the top answer, whether it was right, NLL of the true answer in nats), each [n].
        candidate: The same for the other model, rows in the same order.
        draws: Bootstrap draws; whole rows are drawn, so that the pairing is kept.
        seed: Seed of the draws.
        allow_few: Accept fewer than 200 rows.

    Raises:
        RefusedError: Lengths differ, or as ``metrics.checked``.
    """
    p0, y0 = checked(*baseline[:2], allow_few=allow_few)
    p1, y1 = checked(*candidate[:2], allow_few=allow_few)
    n0, n1 = np.asarray(baseline[2], np.float64), np.asarray(candidate[2], np.float64)
    if not (p0.shape == p1.shape == n0.shape == n1.shape):
        raise RefusedError("both models must have answered the same rows")
    if not (np.isfinite(n0).all() and np.isfinite(n1).all()):
        raise RefusedError("NLLs must be finite")
    n = len(p0)
    rng = np.random.default_rng(seed)
    changes = np.empty((draws, 3))
    for draw in range(draws):
        rows = rng.integers(0, n, n)
        changes[draw] = _changes(p0[rows], y0[rows], n0[rows], p1[rows], y1[rows], n1[rows])
    low, high = np.percentile(changes, [2.5, 97.5], axis=0)
    value = _changes(p0, y0, n0, p1, y1, n1)
    loss, gap, right = (Change(float(v), float(a), float(b)) for v, a, b in zip(value, low, high, strict=True))
    return PairedReport(n, loss, gap, right, int(((y0 == 1) & (y1 == 0)).sum()), int(((y0 == 0) & (y1 == 1)).sum()))


def smooth_change(
    baseline: tuple[ArrayLike, ArrayLike], candidate: tuple[ArrayLike, ArrayLike], *, draws: int = 200, seed: int = 0
) -> Change:
    """Difference of the smooth ECEs of two models on the same rows, with its interval; arguments as ``compare``.

    The draws keep the smoothing width that each model's own rows ask for.

    Raises:
        RefusedError: As ``compare``.
    """
    p0, y0 = checked(*baseline, allow_few=True)
    p1, y1 = checked(*candidate, allow_few=True)
    if p0.shape != p1.shape:
        raise RefusedError("both models must have answered the same rows")
    before, after = (smoothing_width(p, y, allow_few=True) for p, y in ((p0, y0), (p1, y1)))

    def change(rows: NDArray[np.intp]) -> float:
        return smooth_ece_at(p1[rows], y1[rows], after, allow_few=True) - smooth_ece_at(
            p0[rows], y0[rows], before, allow_few=True
        )

    rng = np.random.default_rng(seed)
    n = len(p0)
    low, high = np.percentile([change(rng.integers(0, n, n)) for _ in range(draws)], [2.5, 97.5])
    return Change(change(np.arange(n)), float(low), float(high))


def _changes(p0: Floats, y0: Floats, n0: Floats, p1: Floats, y1: Floats, n1: Floats) -> tuple[float, float, float]:
    def error(p: Floats, y: Floats) -> float:
        return ece(equal_width(p, y, allow_few=True))

    return float((n1 - n0).mean()), error(p1, y1) - error(p0, y0), float((y1 - y0).mean())
