"""How often a gate in turns may look at its decision, and what it will find: said before it runs."""

from functools import lru_cache
from typing import Final

import numpy as np

from harness.stats.runs import Spread, detectable, estimate_of_runs

_PATHS: Final = 100_000
_SPREADS: Final = (0.005, 0.01, 0.02, 0.04)
"""Spreads from turn to turn that the plan is printed for: a quiet machine, and ever busier ones."""


@lru_cache(maxsize=64)
def look_confidence(looks: tuple[int, ...], confidence: float) -> float:
    """Level of each look's interval such that all looks together keep ``confidence``.

    The looks see the same turns again, so that they err together: P(max over looks of |Z_k| <= c) = confidence, with
    Z_k = W(n_k) / sqrt(n_k) of one random walk W; the level is 1 - 2 Phi(-c). Bonferroni, which takes the looks for
    independent, asks for 98.75 % at four looks where 98.2 % is enough. ``looks`` are numbers of turns, rising.

    Source:
        S. J. Pocock 1977, "Group sequential methods in the design and analysis of clinical trials", Biometrika 64(2).
    """
    from scipy.special import ndtr

    steps = np.diff((0, *looks))
    draws = np.random.default_rng(1).standard_normal((_PATHS, len(looks))) * np.sqrt(steps)
    highest = np.abs(np.cumsum(draws, axis=1) / np.sqrt(looks)).max(axis=1)
    return float(1.0 - 2.0 * ndtr(-np.quantile(highest, confidence)))


def plan_line(looks: tuple[int, ...], confidence: float) -> str:
    """How far from its limit a build must lie for a gate in turns to decide, by the spread from turn to turn."""
    level, most = look_confidence(looks, confidence), looks[-1]
    shares = []
    for ratio in _SPREADS:
        spread = Spread(ratio, most, "turn")
        share = detectable(estimate_of_runs([[1.0]] * most, spread, level), spread, level)
        shares.append(f"{share:.1%} at {ratio:.1%}")
    looked = ", ".join(map(str, looks))
    return (
        f"looks after {looked} turns; in 95 of 100 gates the last one decides about a build that lies this far from "
        f"its limit, by the spread from turn to turn: {', '.join(shares)}"
    )
