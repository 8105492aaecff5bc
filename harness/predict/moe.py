"""Mixtures of experts: bytes of a token, and how often the experts it wants are in memory already.

Routing is skewed: expert i of n is wanted with probability p_i ~ 1 / i^z. A token wants k different experts
of a layer, so the first few are wanted nearly always, and no oftener. With choices drawn one after the other
without putting back, expert i is among them with about pi_i = 1 - exp(-p_i t), t such that sum pi_i = k
(Rosen 1997, asymptotic theory for order sampling; each expert's exponential clock has rung by t). A memory of
C experts that keeps the most wanted hits with the sum of the C largest pi_i / k, which is the most that any
can where choices are independent (Aho, Denning & Ullman 1971).
"""

import math
from collections import Counter
from functools import lru_cache
from typing import Final

from harness.domain.model import Weights

DEFAULT_SKEW: Final = 0.75
"""z: by the middle of 89 published speeds of mixtures read from disk (streaming.csv), which keep experts in
ways of their own. Routers trained for balance are flatter."""

EXPERTS_RATIO: Final = 0.6
"""Speed of a token whose experts are fetched one by one, to that with whole matrices in memory."""

WAITING_S: Final = 0.5e-3
"""Of each block, waiting for its router's choice: 0.3 to 0.6 ms where published systems have all experts in
memory."""

_LONGEST: Final = 2.0**60


def popularity(expert_count: int, skew: float = DEFAULT_SKEW) -> tuple[float, ...]:
    """Probabilities [expert_count] of a Zipf law, most wanted first."""
    weights = [rank**-skew for rank in range(1, expert_count + 1)]
    total = sum(weights)
    return tuple(weight / total for weight in weights)


@lru_cache(maxsize=64)
def inclusion(expert_count: int, used_count: int, skew: float = DEFAULT_SKEW) -> tuple[float, ...]:
    """Probabilities [expert_count] that a token wants each expert, most wanted first.

    They sum to ``used_count``.
    """
    p = popularity(expert_count, skew)
    if used_count <= 1:
        return p
    if used_count >= expert_count:
        return (1.0,) * expert_count

    def rung(time: float) -> tuple[float, ...]:
        return tuple(1 - math.exp(-one * time) for one in p)

    low = 0.0
    high = 1.0
    while sum(rung(high)) < used_count and high < _LONGEST:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(rung(middle)) < used_count else (low, middle)
    return rung(high)


def hit_ratio(
    expert_count: int, cached_count: float, *, used_count: int = 1, skew: float = DEFAULT_SKEW
) -> float:
    """Share of wanted experts that a memory of the most wanted holds.

    ``cached_count`` of a layer's experts may be a fraction (a mean over layers); ``used_count`` is k;
    ``skew`` is z, 0 for uniform routing.

    Raises:
        ValueError: No experts, or a negative number in memory.
    """
    if expert_count < 1 or cached_count < 0:
        raise ValueError(f"needs an expert and no negative cache, got {expert_count} and {cached_count}")
    if cached_count >= expert_count:
        return 1.0
    wanted = inclusion(expert_count, used_count, skew)
    whole = int(cached_count)
    return (sum(wanted[:whole]) + (cached_count - whole) * wanted[whole]) / sum(wanted)


def expert_bytes(weights: Weights) -> tuple[int, int]:
    """Bytes of all routed experts, and of everything else but the token table."""
    sizes = Counter[str]()
    for tensor in weights.tensors:
        sizes[tensor.role] += tensor.size_bytes
    return sizes["expert"], sizes["output"] + sizes["other"]


def cached_experts(
    weights: Weights, room_bytes: float, disk_bytes_per_s: float, compute_s: float
) -> tuple[float, float]:
    """Seconds of a token of a mixture, and the share of wanted experts that a room of so many bytes finds there.

    The most wanted experts fill the room, the others come from disk once the router asks for them.
    ``compute_s``: of a token with all weights in memory.
    """
    experts = weights.shape.experts
    assert experts is not None
    routed, _ = expert_bytes(weights)
    cached = min(float(experts.expert_count), experts.expert_count * max(room_bytes, 0.0) / routed)
    hit = hit_ratio(experts.expert_count, cached, used_count=experts.used_count)
    missed_bytes = routed * weights.shape.expert_ratio * (1 - hit)
    waiting_s = WAITING_S * weights.shape.layer_count
    return missed_bytes / disk_bytes_per_s + compute_s / EXPERTS_RATIO + waiting_s, hit
