"""Where the level of a series fell for good, if it did."""

from collections.abc import Sequence
from typing import Final

import numpy as np

_SHUFFLES: Final = 999
_BLOCK: Final = 3
"""Neighbouring values depend on each other (other programs come and go): so many are shuffled together, fewer
in a series so short that hardly an order of such blocks would be unlike the one it has."""
_EDGE: Final = 2
"""Least values on either side of a change."""
_LEAST_RATIO: Final = 0.03
"""A smaller fall between the medians is none."""
_LEVEL: Final = 0.01
"""Chance of calling a series without a change one with."""


def fall(values: Sequence[float]) -> int | None:
    """Index of the first value after the one fall that explains the series best; None where chance does as well.

    The statistic is the maximum over k of the standardised difference of means of ln x before and from k on
    (Page 1954; Hawkins 1977), its distribution that of the same series with blocks of it shuffled. Values are
    positive.
    """
    x = np.log(np.asarray(values, dtype=float))
    n = len(x)
    if n < 4 * _EDGE:
        return None
    at, size = _largest(x)
    if 1 - np.exp(np.median(x[at:]) - np.median(x[:at])) < _LEAST_RATIO:
        return None
    draw = np.random.default_rng(1)
    blocks = np.array_split(x, n // min(max(n // 16, 1), _BLOCK))
    chance = [
        _largest(np.concatenate([blocks[i] for i in draw.permutation(len(blocks))]))[1]
        for _ in range(_SHUFFLES)
    ]
    if (1 + sum(c >= size for c in chance)) / (1 + _SHUFFLES) <= _LEVEL:
        return at
    return None


def _largest(x: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[int, float]:
    """The split with the largest fall, and its size in standard errors (up to a factor all splits share)."""
    n = len(x)
    k = np.arange(_EDGE, n - _EDGE + 1)
    left = np.cumsum(x)[k - 1]
    size = (left / k - (x.sum() - left) / (n - k)) * np.sqrt(k * (n - k) / n)
    best = int(np.argmax(size))
    return int(k[best]), float(size[best])
