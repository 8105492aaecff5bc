"""What a change (a quantisation) does to calibration, on the same rows: differences with intervals, and flips.

An ECE alone does not see quantisation; the paired NLL does.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import RefusedError
from harness.core.quality import CalibrationChange, QualityChange
from harness.core.stats.calibration.metrics import checked, ece

_DRAWS: Final = 1000


def calibration_change(before: Sequence[Any], after: Sequence[Any]) -> CalibrationChange:
    """Calibration of ``after`` beside ``before``, differences with 95 % bootstrap intervals.

    Whole rows are drawn, so that the pairing is kept. Of the reference (``before``) and of the other model, in
    the order of the same rows: confidence of the top answer, whether it was right, NLL of the true one in
    nats, each [n]. RefusedError where the two did not answer the same rows, or as ``metrics.checked``.
    """
    p0, y0 = checked(*before[:2])
    p1, y1 = checked(*after[:2])
    n0 = np.asarray(before[2], np.float64)
    n1 = np.asarray(after[2], np.float64)
    if not (p0.shape == p1.shape == n0.shape == n1.shape):
        raise RefusedError("both models must have answered the same rows")
    if not (np.isfinite(n0).all() and np.isfinite(n1).all()):
        raise RefusedError("NLLs must be finite")

    def changes(rows: NDArray[np.intp]) -> tuple[float, float]:
        return float((n1 - n0)[rows].mean()), ece(p1[rows], y1[rows]) - ece(p0[rows], y0[rows])

    loss, error = _bootstrap(changes, len(p0))
    return CalibrationChange(
        row_count=len(p0),
        nll_change=loss,
        ece_change=error,
        lost_count=int(((y0 == 1) & (y1 == 0)).sum()),
        gained_count=int(((y0 == 0) & (y1 == 1)).sum()),
    )


def _bootstrap(changes: Callable[[NDArray[np.intp]], tuple[float, ...]], n: int) -> list[QualityChange]:
    """Values over all n rows, each with its 95 % percentile interval."""
    rng = np.random.default_rng(0)
    drawn = [changes(rng.integers(0, n, n)) for _ in range(_DRAWS)]
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    value = changes(np.arange(n))
    return [
        QualityChange(value=v, low=float(a), high=float(b)) for v, a, b in zip(value, low, high, strict=True)
    ]
