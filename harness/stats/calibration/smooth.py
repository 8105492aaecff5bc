"""Smooth ECE: calibration error without bins.

Residuals (confidence - outcome) are smoothed over the confidence by a Gaussian that reflects at 0 and 1; its
width is the smallest one that is not larger than the error it gives. Source: Blasiok and Nakkiran 2023,
"Smooth ECE".
"""

from bisect import bisect_left
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from harness.arrays import Doubles
from harness.stats.calibration.metrics import checked

_MESH: Final = 200
_FLOOR: Final = 0.001
_STEPS: Final = 1024


def smooth_ece(confidences: ArrayLike, correct: ArrayLike, *, width: float | None = None) -> float:
    """Smooth ECE, in [0, 1]; a given ``width`` (of ``smoothing_width``) makes it a tenth of the work.

    Raises:
        RefusedError: As ``metrics.checked``.
    """
    p, y = checked(confidences, correct)
    return _at_width(p, p - y, width or smoothing_width(p, p - y))


def smoothing_width(p: Doubles, residual: Doubles) -> float:
    """The width that ``smooth_ece`` chooses, by bisection on [0, 1], in steps of 1 / 1024, none below 0.001."""

    def is_wide(step: int) -> bool:
        width = step / _STEPS
        return width >= _FLOOR and width >= _at_width(p, residual, width)

    return (1 + bisect_left(range(1, _STEPS), True, key=is_wide)) / _STEPS


def _at_width(p: Doubles, residual: Doubles, width: float) -> float:
    at = np.linspace(0.0, 1.0, max(round(10 / width), _MESH))
    points = max(2000, round(20 / width)) // 2 + 1
    density = _smoothed(p, np.ones_like(residual), at, width, points) + 1e-4
    error = np.abs(_smoothed(p, residual, at, width, points) / density)
    return float((error * density).sum() / density.sum())


def _smoothed(p: Doubles, values: Doubles, at: Doubles, width: float, points: int) -> Doubles:
    """Values on a grid (shared between the two nearest points), convolved with the kernel, read off at ``at``."""
    from scipy.signal import fftconvolve

    place = p * (points - 1)
    left = np.clip(place.astype(np.int64), 0, points - 2)
    share = place - left
    grid = np.bincount(left, (1 - share) * values, points) + np.bincount(left + 1, share * values, points)
    offsets = np.linspace(-0.5, 0.5, points)
    kernel = np.exp(-(offsets**2) / (2 * width**2)) / (np.sqrt(2 * np.pi) * width)
    mirrored = np.concatenate((grid[::-1][:-1], grid, grid[::-1][1:]))
    smooth = fftconvolve(mirrored, kernel, "valid")[points // 2 : points // 2 + points]
    result: Doubles = np.interp(at, np.linspace(0.0, 1.0, points), smooth)
    return result
