"""Speculative decoding: tokens of a cycle, its cost, and the draft length that pays.

A cycle drafts gamma tokens and verifies them in one pass over gamma + 1. With per-token acceptance alpha, independent:

    E = (1 - alpha^(gamma + 1)) / (1 - alpha)           expected tokens of a cycle
    S = E / (gamma c + V(gamma + 1))                    speedup over plain decoding

c: cost of drafting a token, V(k): cost of a pass over k tokens, both relative to a pass over one. V = 1 (free
verification) is theorem 3.8 of Leviathan et al. 2023 (arXiv 2211.17192).
"""

from collections.abc import Callable, Mapping
from typing import Final

from harness.domain.base import Frozen
from harness.predict.decode import Machine

WORTH_RATIO: Final = 1.03
"""Speedup below which the advice is not to speculate: acceptance varies by more than that with the text."""

SLOPE_PER_BALANCE: Final[Mapping[str, float]] = {"metal": 25.3, "cpu": 4.5, "other": 8.2}
"""Median of (cost of an extra token) x (peak / bandwidth) by api. ``metal`` and ``other``: ``fitted_slopes`` of
spec_decode.csv (published.other_rows). ``cpu``: a Q4_K model on two x86 cores takes 31 ms for one token and 99 to 125
ms for five, 0.55 to 0.76 of a token each, at the 8 FLOP a byte that an unlisted CPU is given."""


VERIFIED_S: Final = 2e-3
"""What a drafted token costs beside passes: sampling, comparing, undoing the cache. What remains of published cycles
(spec_decode.csv) after the passes of target and draft."""


class BestLength(Frozen, frozen=True, kw_only=True):
    """Tokens to draft that pay most, and the speedup expected of them; 0 and 1 mean "do not"."""

    gamma: int
    speedup: float


def expected_tokens_per_cycle(alpha: float, gamma: int) -> float:
    """Tokens that one cycle yields in the mean, the target's own one included.

    Source: Leviathan et al. 2023, equation 1.

    Raises:
        ValueError: ``alpha`` is no probability, or ``gamma`` negative.
    """
    if not 0 <= alpha <= 1 or gamma < 0:
        raise ValueError(f"alpha must lie in 0..1 and gamma be at least 0, got {alpha} and {gamma}")
    if alpha == 1:
        return gamma + 1.0
    return (1 - alpha ** (gamma + 1)) / (1 - alpha)


def speculative_speedup(alpha: float, gamma: int, draft_cost_ratio: float, verify_cost_ratio: float = 1.0) -> float:
    """S above: ``draft_cost_ratio`` is c, 0 for a prompt lookup; ``verify_cost_ratio`` V, 1 where it is free."""
    return expected_tokens_per_cycle(alpha, gamma) / (gamma * draft_cost_ratio + verify_cost_ratio)


def best_gamma(
    alpha: float, draft_cost_ratio: float, verify_cost: Callable[[int], float], max_gamma: int = 16
) -> BestLength:
    """Draft length up to ``max_gamma`` of the greatest speedup, 0 where none is worth it; ``verify_cost`` is V(k)."""
    best = BestLength(gamma=0, speedup=1.0)
    for gamma in range(1, max_gamma + 1):
        speedup = speculative_speedup(alpha, gamma, draft_cost_ratio, verify_cost(gamma + 1))
        if speedup > max(best.speedup, WORTH_RATIO):
            best = BestLength(gamma=gamma, speedup=speedup)
    return best


def verify_slope(machine: Machine, slopes: Mapping[str, float] = SLOPE_PER_BALANCE) -> float:
    """Cost of one more token in a pass, relative to a pass over one."""
    kappa = slopes.get(machine.api, slopes["other"])
    return min(kappa * machine.bandwidth_bytes_per_s / machine.traits.peak_flops_per_s, 1.5)
