"""What a change (a quantisation) does to calibration, on the same rows: differences with intervals, and flips.

An ECE alone does not see quantisation; the paired NLL does.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.domain.quality import CalibrationChange, Change
from harness.errors import RefusedError
from harness.stats.calibration.metrics import checked, ece
from harness.stats.calibration.smooth import smooth_ece, smoothing_width

_DRAWS: Final = 1000
_SMOOTH_DRAWS: Final = 200


def calibration_change(before: Sequence[Any], after: Sequence[Any]) -> CalibrationChange:
    """Calibration of ``after`` beside ``before``, differences with 95 % bootstrap intervals.

    Whole rows are drawn, so that the pairing is kept; a smooth ECE keeps the width that each model's own rows
    ask for. Of the reference (``before``) and of the other model, in the order of the same rows: confidence
    of the top answer, whether it was right, NLL of the true one in nats, each [n]. RefusedError where the two
    did not answer the same rows, or as ``metrics.checked``.
    """
    sides = [checked(*side[:2]) for side in (before, after)]
    (p0, y0), (p1, y1) = sides
    n0 = np.asarray(before[2], np.float64)
    n1 = np.asarray(after[2], np.float64)
    if not (p0.shape == p1.shape == n0.shape == n1.shape):
        raise RefusedError("both models must have answered the same rows")
    if not (np.isfinite(n0).all() and np.isfinite(n1).all()):
        raise RefusedError("NLLs must be finite")
    widths = [smoothing_width(p, p - y) for p, y in sides]

    def changes(rows: NDArray[np.intp]) -> tuple[float, ...]:
        error0, error1 = (ece(p[rows], y[rows]) for p, y in sides)
        return float((n1 - n0)[rows].mean()), error1 - error0, float((y1 - y0)[rows].mean())

    def smooth_changes(rows: NDArray[np.intp]) -> tuple[float, ...]:
        error0, error1 = (
            smooth_ece(p[rows], y[rows], width=w) for (p, y), w in zip(sides, widths, strict=True)
        )
        return (error1 - error0,)

    loss, error, accuracy = _bootstrap(changes, len(p0), _DRAWS)
    (smooth_error,) = _bootstrap(smooth_changes, len(p0), _SMOOTH_DRAWS)
    return CalibrationChange(
        row_count=len(p0),
        accuracy=float(y1.mean()),
        mean_confidence=float(p1.mean()),
        ece=ece(p1, y1),
        smooth_ece=smooth_ece(p1, y1, width=widths[1]),
        nll=float(n1.mean()),
        nll_change=loss,
        ece_change=error,
        smooth_ece_change=smooth_error,
        accuracy_change=accuracy,
        lost_count=int(((y0 == 1) & (y1 == 0)).sum()),
        gained_count=int(((y0 == 0) & (y1 == 1)).sum()),
    )


def _bootstrap(changes: Callable[[NDArray[np.intp]], tuple[float, ...]], n: int, draws: int) -> list[Change]:
    """Values over all n rows, each with its 95 % percentile interval."""
    rng = np.random.default_rng(0)
    low, high = np.percentile([changes(rng.integers(0, n, n)) for _ in range(draws)], [2.5, 97.5], axis=0)
    value = changes(np.arange(n))
    return [Change(value=v, low=float(a), high=float(b)) for v, a, b in zip(value, low, high, strict=True)]
