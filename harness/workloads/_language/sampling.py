"""Draw a token from logits by a random number given beforehand, so that the same numbers give the same text."""

from collections.abc import Iterator, Sequence
from math import log
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.ports import Session

_REACH: Final = 20.0
"""Tokens less than e**-20 as likely as the best one are never drawn: with 150,000 tokens that leaves out 3e-4 of the
probability at most, and spares nine tenths of the exponentials."""


class Pick(NamedTuple):
    """A token and its log-probability (nats, at temperature 1)."""

    token: int
    log_probability: float


def numbers(seed: int, sample: int, count: int) -> list[float]:
    """The random numbers of one sample: they depend on the seed and the sample's own number, on nothing else."""
    return [float(u) for u in np.random.default_rng([seed, sample]).random(count)]


def pick(logits: NDArray[np.float32], temperature: float, number: float) -> Pick:
    """The token at which the cumulative softmax(logits / temperature), in order of tokens, passes ``number``.

    ``logits`` are [vocab_count], ``number`` lies in [0, 1); temperature 0 takes the most likely token.
    """
    top = int(logits.argmax())
    gaps = logits - logits[top]
    near = np.flatnonzero(gaps > -_REACH * max(temperature, 1.0))
    kept = gaps[near].astype(np.float64)
    weights = np.exp(kept)
    at = int(np.searchsorted(near, top))
    if temperature > 0:
        chances = weights if temperature == 1.0 else np.exp(kept / temperature)
        total = np.cumsum(chances)
        at = min(int(np.searchsorted(total, number * total[-1], side="right")), len(near) - 1)
    return Pick(int(near[at]), float(kept[at]) - log(float(weights.sum())))


def log_softmax_at(logits: NDArray[np.float32], token: int) -> float:
    """Log-probability of ``token``, all tokens summed: z_t - max z - log sum exp(z - max z)."""
    gaps = logits - logits.max()
    return float(gaps[token]) - log(float(np.exp(gaps).sum(dtype=np.float64)))


def logits_after(session: Session, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
    """Logits [vocab_count] after each token of a new sequence, read in one pass."""
    session.clear()
    session.decode(tokens, position=0, logits="all")
    for index in range(len(tokens)):
        yield session.logits(index)


def token_losses(session: Session, tokens: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(loss of each token but the first in nats, whether it was the most likely one)."""
    losses, hits = [], []
    for target, logits in zip(tokens[1:], logits_after(session, tokens), strict=False):
        losses.append(-log_softmax_at(logits, target))
        hits.append(int(logits.argmax()) == target)
    return np.array(losses), np.array(hits)
