"""Fitted coefficients, with what they were fitted on: read from a data file that ships with the package."""

from functools import lru_cache
from importlib.resources import files
from typing import Final

import msgspec

from harness.domain.base import Frozen

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


class Coefficients(Frozen, frozen=True, kw_only=True):
    """All terms of a fit, by key, and the spread that remained.

    Attributes:
        source: Where the rows came from and the command that fitted.
        decode: Terms of ``decode``.
        prefill: Terms of ``prefill``.
        residuals: By group, the 5 % and 95 % quantiles of ln(measured / predicted) on chips left out of the fit.
    """

    source: str
    decode: dict[str, Coefficient]
    prefill: dict[str, Coefficient]
    residuals: dict[str, tuple[float, float]]


@lru_cache(maxsize=1)
def shipped() -> Coefficients:
    """The coefficients that ship with the package."""
    return msgspec.json.decode((files("harness.feasibility") / FILE).read_bytes(), type=Coefficients)
