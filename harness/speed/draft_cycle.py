"""Speculative decoding: tokens of a cycle, its cost, and the draft length that pays.

A cycle drafts gamma tokens and verifies them in one pass over gamma + 1. With per-token acceptance alpha,
independent:

    E = (1 - alpha^(gamma + 1)) / (1 - alpha)           expected tokens of a cycle
    S = E / (gamma c + V(gamma + 1))                    speedup over plain decoding

c: cost of drafting a token, V(k): cost of a pass over k tokens, both relative to a pass over one. V = 1 (free
verification) is theorem 3.8 of Leviathan et al. 2023 (arXiv 2211.17192).
"""

import re
from collections.abc import Callable
from typing import Final

from harness.core.base import Frozen
from harness.speed.work import Machine

WORTH_RATIO: Final = 1.03
"""Speedup below which the advice is not to speculate: acceptance varies by more than that with the text."""

VERIFIED_S: Final = 1e-3
"""What a drafted token costs beside passes: sampling, comparing, undoing the cache. What remains of published
cycles (spec_decode.csv) after the passes of target and draft."""
DRAFT_S: Final = 4e-3
"""Of a token of a draft model beside its bytes: its launches and its sampling."""
HEAD_S: Final = 0.5e-3
HEAD_RATIO: Final = 0.03
"""Of a drafting head (MTP, EAGLE, Medusa): launches, and its share of the target's bytes (a layer of thirty)."""
BLOCK_RATIO: Final = 0.15
"""Of a block drafter (DFlash): its share of the target's bytes, five layers of thirty; read once for a whole
draft."""
HEADS: Final = {"mtp": 0.83, "eagle": 0.7, "dflash": 0.8}
"""Ways to draft without a model of one's own, and the share of drafted tokens that is accepted: MTP the
middle of 117 published runs; EAGLE by its 4.3 tokens a cycle, DFlash by 7.1 of at most 16
(spec_decode.csv)."""


class BestLength(Frozen):
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


def speculative_speedup(
    alpha: float, gamma: int, draft_cost_ratio: float, verify_cost_ratio: float = 1.0
) -> float:
    """The speedup S of this module's head.

    ``draft_cost_ratio`` is c, which is 0 for a prompt lookup; ``verify_cost_ratio`` is V, which is 1 where a
    check of several tokens costs as much as one.
    """
    return expected_tokens_per_cycle(alpha, gamma) / (gamma * draft_cost_ratio + verify_cost_ratio)


def best_gamma(
    alpha: float,
    draft_cost_ratio: float,
    verify_cost: Callable[[int], float],
    max_gamma: int = 16,
    min_gamma: int = 1,
) -> BestLength:
    """Draft length between these of the greatest speedup, 0 where none is worth it.

    ``verify_cost`` gives V for a number of tokens that are checked at once.
    """
    best = BestLength(gamma=0, speedup=1.0)
    for gamma in range(min_gamma, max_gamma + 1):
        speedup = speculative_speedup(alpha, gamma, draft_cost_ratio, verify_cost(gamma + 1))
        if speedup > max(best.speedup, WORTH_RATIO):
            best = BestLength(gamma=gamma, speedup=speedup)
    return best


def draft_s(method: str, machine: Machine, draft_bytes: float, target_bytes: float) -> float:
    """Seconds of drafting one token, by the words of a method: reading a draft model, or a head on the target.

    Of a block drafter (DFlash) those of a whole draft, whatever its length.
    """
    if re.search(r"lookup|\bpld\b|lookahead|ngram|recycl|\brest\b", method):
        return 0.0
    if re.search(r"draft model|speculative sampling|\bsps\b", method):
        return draft_bytes / (0.7 * machine.bandwidth_bytes_per_s) + DRAFT_S
    if method == "dflash":
        return BLOCK_RATIO * target_bytes / machine.bandwidth_bytes_per_s + DRAFT_S
    return HEAD_RATIO * target_bytes / machine.bandwidth_bytes_per_s + HEAD_S
