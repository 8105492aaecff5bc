"""How often a gate may look, how long it will take, and how many turns would settle it: said before it runs."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import ceil, log, sqrt
from statistics import NormalDist
from typing import Final

import numpy as np

_PATHS: Final = 100_000
_GATES: Final = 4_000
SPREADS: Final = (0.005, 0.01, 0.02, 0.04)
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


def turns_needed(spread: float, distance: float, confidence: float, power: float = 0.8) -> int:
    """Turns (or samples) with which an interval of that level clears a limit in that share of gates (``power``).

    n = ((z(1 - (1 - confidence) / 2) + z(power)) s / d)^2, at least 6: s, the ``spread``, is the standard deviation of
    the log of one turn's ratio, d the ``distance`` of the log ratio from the limit's.
    """
    quantiles = NormalDist().inv_cdf(1.0 - (1.0 - confidence) / 2.0) + NormalDist().inv_cdf(power)
    return max(6, ceil((quantiles * spread / abs(distance)) ** 2)) if distance else 10**6


@lru_cache(maxsize=256)
def outlook(
    spread: float, slowdown: float, limit: float, looks: tuple[int, ...], confidence: float
) -> tuple[float, float]:
    """Mean number of turns of a gate on a cost (greatest ratio ``limit``), and the share of such gates that decide.

    Its candidate is really ``slowdown`` slower. Simulated with normal noise: a t interval at each look, at its level.
    """
    from scipy.special import stdtrit

    level = look_confidence(looks, confidence)
    logs = np.random.default_rng(2).normal(log(1.0 + slowdown), spread, (_GATES, looks[-1]))
    turns, open_ = np.full(_GATES, looks[-1]), np.ones(_GATES, bool)
    for look in looks:
        part = logs[:, :look]
        half = stdtrit(look - 1, 1.0 - (1.0 - level) / 2.0) * part.std(axis=1, ddof=1) / sqrt(look)
        settled = open_ & (np.abs(part.mean(axis=1) - log(limit)) > half)
        turns[settled], open_ = look, open_ & ~settled
    return float(turns.mean()), 1.0 - float(open_.mean())


def plan_lines(limits: Sequence[float], looks: tuple[int, ...], confidence: float) -> list[str]:
    """What to expect of a gate with these limits on ratios, for people, before it is run."""
    lines = [f"looks after {', '.join(map(str, looks))} turns; expected turns by the spread from turn to turn:"]
    for limit, slowdown in product(sorted(set(limits)), (0.0, 0.05)):
        parts = [outlook(spread, slowdown, max(limit, 1 / limit), looks, confidence) for spread in SPREADS]
        told = zip(SPREADS, parts, strict=True)
        cells = [f"{turns:.0f} at {spread:.1%} ({decided:.0%} decide)" for spread, (turns, decided) in told]
        lines.append(f"  limit {limit:g}, {f'{slowdown:.0%} slower' if slowdown else 'no change'}: {', '.join(cells)}")
    return lines
