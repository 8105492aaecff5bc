"""Fitted coefficients, with what they were fitted on: read from a data file that ships with the package."""

import math
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Final

import msgspec

from harness.domain.base import Frozen
from harness.predict.terms import prior_of

FILE: Final = "data/coefficients.json"


class Coefficient(Frozen, frozen=True, kw_only=True):
    """One term of a log-linear law.

    Attributes:
        value: Natural logarithm (or slope) added where the term applies.
        rows_count: Votes that it applies to; 0 means that the prior alone stands.
        spread: Standard error, from the curvature of the penalised fit.
    """

    value: float
    rows_count: int = 0
    spread: float = 0.0


class Covariance(Frozen, frozen=True, kw_only=True):
    """How sure a fit is of its terms together.

    Attributes:
        keys: Terms.
        lower: Rows of the lower triangle of their covariance, one after another.
    """

    keys: tuple[str, ...] = ()
    lower: tuple[float, ...] = ()

    def spread(self, gradient: Mapping[str, float]) -> float:
        """Standard error of ln t, sqrt(g' S g); a term that no row spoke for has its prior's width.

        Args:
            gradient: d ln t / d term.
        """
        index = {key: i for i, key in enumerate(self.keys)}
        known = [(index[key], g) for key, g in gradient.items() if key in index]
        total = sum((g * prior_of(key)[1]) ** 2 for key, g in gradient.items() if key not in index)
        for i, g in known:
            for j, h in known:
                row, column = (i, j) if i >= j else (j, i)
                total += g * h * self.lower[row * (row + 1) // 2 + column]
        return math.sqrt(max(total, 0.0))


class Coefficients(Frozen, frozen=True, kw_only=True):
    """All terms of a fit, by key, and the spread that remained.

    Attributes:
        source: Where the rows came from and the command that fitted.
        decode: Terms of ``decode``.
        prefill: Terms of ``prefill``.
        residuals: By group, the 5 % and 95 % quantiles of ln(measured / predicted) on chips left out of the fit, in
            units of the spread that the fit expected there.
        decode_covariance: Of the terms of ``decode``.
        prefill_covariance: Of the terms of ``prefill``.
    """

    source: str
    decode: dict[str, Coefficient]
    prefill: dict[str, Coefficient]
    residuals: dict[str, tuple[float, float]]
    decode_covariance: Covariance = Covariance()
    prefill_covariance: Covariance = Covariance()


@lru_cache(maxsize=1)
def shipped() -> Coefficients:
    """The coefficients that ship with the package."""
    return msgspec.json.decode((files("harness.predict") / FILE).read_bytes(), type=Coefficients)
