"""Routers of synthetic models that choose with a stated skew, and tokens that do not repeat themselves.

A router of random weights behind random blocks chooses nearly the same experts for every token, and greedy output
repeats one token: nothing like a trained model. Here the token table outweighs what the blocks add, so that a hidden
state is that of its own token, and an eighth of its entries are one constant: the router's rows hold there what an
expert is preferred by, and noise elsewhere. A token's logits are then preference + standard normal noise, drawn anew
for each token, and preferences are found such that experts are chosen as often as asked for.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

TABLE_STD: Final = 16.0
"""Of the token table. Blocks add some units to each entry over a model's depth, so they do not drown it."""

_CONSTANT_DIVISOR: Final = 8
_SAMPLES: Final = 8192
_STEPS: Final = 200


def table_rows(count: int, hidden_dim: int, random: np.random.Generator) -> NDArray[np.float16]:
    """Rows [count, hidden_dim] of the token table: the first eighth is constant."""
    rows = random.standard_normal((count, hidden_dim), dtype=np.float32) * np.float32(TABLE_STD)
    rows[:, : hidden_dim // _CONSTANT_DIVISOR] = TABLE_STD
    return rows.astype(np.float16)


def last_norm(hidden_dim: int) -> NDArray[np.float32]:
    """Weights [hidden_dim] of the norm before the output matrix.

    Without the constant, which would favour the same few tokens after every token.
    """
    found = np.ones(hidden_dim, np.float32)
    found[: hidden_dim // _CONSTANT_DIVISOR] = 0.0
    return found


def router_rows(preferences: NDArray[np.float64], hidden_dim: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Rows [experts, hidden_dim] of one layer's router; which expert has which preference is drawn anew."""
    constant = hidden_dim // _CONSTANT_DIVISOR
    rows = random.standard_normal((preferences.size, hidden_dim)) / np.sqrt(hidden_dim - constant)
    rows[:, :constant] = random.permutation(preferences)[:, None] / constant
    found: NDArray[np.float32] = rows.astype(np.float32)
    return found


def preferences_for(shares: Sequence[float]) -> NDArray[np.float64]:
    """What is added to logits with standard normal noise so that the largest ones are as often chosen as asked.

    Args:
        shares: Probability [experts] that a token chooses each expert; they sum to the number that it chooses.
            Those next to 0 and 1 are approached only.
    """
    wanted = np.clip(np.asarray(shares, np.float64), 1e-4, 1 - 1e-4)
    used = round(float(np.sum(shares)))
    if used >= wanted.size:
        return np.zeros(wanted.size)
    noise = np.random.default_rng(0).standard_normal((_SAMPLES, wanted.size))
    found = np.zeros(wanted.size)
    for step in range(_STEPS):
        logits = found + noise
        # Of each draw the last that is chosen and the first that is not: the threshold lies between.
        edge = np.partition(logits, (-used - 1, -used), axis=1)
        threshold = (edge[:, -used] + edge[:, -used - 1]) / 2
        got = np.clip((logits > threshold[:, None]).mean(axis=0), 0.5 / _SAMPLES, 1 - 0.5 / _SAMPLES)
        error = np.log(wanted / (1 - wanted)) - np.log(got / (1 - got))
        found += error * (0.5 if step < _STEPS // 2 else 0.25)
        found -= found.mean()
    return found
