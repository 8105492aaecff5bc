"""Rejection sampling that keeps the target's distribution, whatever the draft proposes.

Source: Leviathan, Kalman, Matias 2023, "Fast Inference from Transformers via Speculative Decoding" (arXiv:2211.17192),
algorithm 1; Chen et al. 2023 (arXiv:2302.01318), theorem 1.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Choice(NamedTuple):
    """The token to emit, and whether it is the drafted one kept."""

    token: int
    accepted: bool


def probabilities(logits: NDArray[np.float32], temperature: float, top_k: int = 0) -> NDArray[np.float64]:
    """Distribution [vocab_count] that a sampler with this temperature draws from (ValueError: none above 0).

    softmax(logits / temperature), restricted to the ``top_k`` largest logits when ``top_k`` > 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    scaled = logits.astype(np.float64)
    scaled -= scaled.max()
    scaled /= temperature
    if 0 < top_k < scaled.size:
        kept = np.argpartition(scaled, scaled.size - top_k)[scaled.size - top_k :]
        weights = np.zeros_like(scaled)
        weights[kept] = np.exp(scaled[kept])
    else:
        weights = np.exp(scaled, out=scaled)
    weights /= weights.sum()
    return weights


def draw(p: NDArray[np.float64], u: float) -> int:
    """Token at the quantile ``u`` in [0, 1) of the distribution ``p`` (which need not sum to one)."""
    cumulative = np.cumsum(p)
    token = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
    # Rounding may put the quantile past the last token with any weight.
    return token if token < p.size and p[token] > 0 else int(np.flatnonzero(p)[-1])


def accept_or_resample(p: NDArray[np.float64], q: NDArray[np.float64], token: int, u: float) -> Choice:
    """Keep the drafted ``token`` with probability min(1, p/q), else draw from max(p - q, 0), normalised.

    With ``token`` drawn from q the result is distributed as p: a token x comes out with probability
    q(x) min(1, p(x)/q(x)) + (1 - sum_y min(p(y), q(y))) (p(x) - q(x))+ / sum_y (p(y) - q(y))+ = p(x), since the two
    sums in the second term are equal. One uniform number serves both decisions: given that it fell into the rejection
    region [a, 1), (u - a) / (1 - a) is uniform on [0, 1) and independent of the first decision.

    Args:
        p: The target's distribution [vocab_count].
        q: The draft's [vocab_count], from which ``token`` was drawn. A deterministic drafter has q = 1 at its token.
        token: The drafted token; q(token) > 0.
        u: Uniform on [0, 1).
    """
    threshold = min(1.0, float(p[token] / q[token])) if q[token] > 0 else 0.0
    if u < threshold:
        return Choice(token, accepted=True)
    rest = np.maximum(p - q, 0.0)
    if not rest.any():  # p equals q up to rounding: nothing was to be rejected
        return Choice(token, accepted=True)
    return Choice(draw(rest, (u - threshold) / (1.0 - threshold)), accepted=False)
