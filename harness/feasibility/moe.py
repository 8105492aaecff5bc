"""Mixtures of experts: bytes of a token, and how often the experts it wants are cached already.

Routing is skewed: expert i of n is wanted with probability p_i ~ 1 / i^z. A cache of C experts that drops the least
recently used one hits with h = sum p_i (1 - exp(-p_i T)), T such that sum (1 - exp(-p_i T)) = C (Che's approximation:
Che, Tung & Wang 2002); one that keeps the most wanted hits with the sum of the C largest p_i.
"""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from harness.domain.model import Weights
from harness.feasibility.weights import role_of

DEFAULT_SKEW: Final = 0.9
"""z. Between two reported hit ratios, each with about a fifth of the experts in RAM (streaming.csv): 71 % asks for 1.1,
38 to 41 % for 0.65. Routers trained for balance are flatter."""

ROUTED_RATIO: Final = 0.6
"""Share of a token's active weights in routed experts, where the shape is not known: attention, shared experts and
dense layers are needed by every token and stay in RAM. Assumed; ``expert_bytes`` counts it for a known shape."""

Policy = Literal["lru", "lfu"]


def popularity(expert_count: int, skew: float = DEFAULT_SKEW) -> NDArray[np.float64]:
    """Probabilities [expert_count] of a Zipf law, most wanted first."""
    weight = np.arange(1, expert_count + 1, dtype=np.float64) ** -skew
    total: NDArray[np.float64] = weight / weight.sum()
    return total


def hit_ratio(expert_count: int, cached_count: float, *, skew: float = DEFAULT_SKEW, policy: Policy = "lru") -> float:
    """Share of wanted experts that the cache holds.

    Args:
        expert_count: Experts of a layer.
        cached_count: How many of them fit; may be a fraction (a mean over layers).
        skew: Exponent z of the Zipf law; 0 is uniform routing.
        policy: ``lru``, or ``lfu`` for a cache that keeps the most wanted ones.

    Raises:
        ValueError: No experts, or a negative cache.
    """
    if expert_count < 1 or cached_count < 0:
        raise ValueError(f"needs an expert and no negative cache, got {expert_count} and {cached_count}")
    if cached_count >= expert_count:
        return 1.0
    p = popularity(expert_count, skew)
    if policy == "lfu":
        whole = int(cached_count)
        return float(p[:whole].sum() + (cached_count - whole) * p[whole])
    low, high = 0.0, 1.0
    while (1 - np.exp(-p * high)).sum() < cached_count:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - np.exp(-p * middle)).sum() < cached_count else (low, middle)
    return float((p * (1 - np.exp(-p * high))).sum())


def expert_bytes(weights: Weights) -> tuple[int, int]:
    """Bytes of all routed experts, and of everything else but the token table."""
    experts = sum(t.size_bytes for t in weights.tensors if role_of(t.name) == "expert")
    rest = sum(t.size_bytes for t in weights.tensors if role_of(t.name) not in {"expert", "embedding"})
    return experts, rest


def streamed_token_s(
    active_expert_bytes: float, hit: float, disk_bytes_per_s: float, compute_s: float, *, overlap: bool = False
) -> float:
    """Seconds of one token: misses from disk, and arithmetic, which waits for the router's choice without overlap."""
    disk_s = active_expert_bytes * (1 - hit) / disk_bytes_per_s
    return max(disk_s, compute_s) if overlap else disk_s + compute_s
