"""Next-token confidences over a text, a chunk at a time: memory of one block's logits, whatever the text's length."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.errors import RefusedError
from harness.ports import Session

INVERSE_TEMPERATURES: Final = np.round(np.arange(0.5, 1.4001, 0.05), 2)
"""Values of b = 1 / T at which the normaliser of each row is kept (T from 0.71 to 2)."""

BLOCK_TOKENS: Final = 64
"""Tokens whose logits are held at once; a session needs ``output_tokens`` no larger than this."""

Floats = NDArray[np.float64]


class TokenScores(NamedTuple):
    """One row a scored token.

    Attributes:
        top_probability: Probability of the most likely token [n]: the confidence.
        is_top_right: Whether that token came [n].
        nll: Negative log-probability of the token that came, nats [n].
        gap: Logit of the token that came minus the largest logit [n], at most 0.
        normaliser: log sum over tokens of exp(b (z - max z)) at each b of ``INVERSE_TEMPERATURES`` [n, b].
    """

    top_probability: Floats
    is_top_right: NDArray[np.bool_]
    nll: Floats
    gap: Floats
    normaliser: Floats


def score_text(
    session: Session, tokens: Sequence[int], *, chunk_tokens: int = 512, chunk_count: int = 0
) -> TokenScores:
    """Score the second half of every chunk, each read after a fresh beginning.

    Args:
        session: With room for a chunk and ``BLOCK_TOKENS`` outputs.
        tokens: The text's, without special ones; each chunk gets those the model begins with.
        chunk_tokens: Length of a chunk.
        chunk_count: Chunks from the beginning; 0 for all whole ones.

    Raises:
        RefusedError: The text is shorter than one chunk.
    """
    begin = session.tokenize("")
    size = chunk_tokens - len(begin)
    whole = len(tokens) // size
    if not whole:
        raise RefusedError(f"the text has {len(tokens)} tokens, one chunk needs {size}")
    rows: list[tuple[float, bool, float, float]] = []
    normalisers: list[NDArray[np.float64]] = []
    for start in range(0, (min(whole, chunk_count) if chunk_count else whole) * size, size):
        chunk = [*begin, *tokens[start : start + size]]
        half = chunk_tokens // 2
        session.clear()
        session.decode(chunk[:half], position=0, logits="none")
        for at in range(half, chunk_tokens - 1, BLOCK_TOKENS):
            block = chunk[at : min(at + BLOCK_TOKENS, chunk_tokens - 1)]
            session.decode(block, position=at, logits="all")
            for row in range(len(block)):
                came = chunk[at + row + 1]
                logits = session.logits(row)
                top = int(logits.argmax())
                gaps = logits - logits[top]
                normaliser = normalisers_of(gaps)
                log_sum = float(normaliser[_ONE])
                rows.append((float(np.exp(-log_sum)), top == came, log_sum - float(gaps[came]), float(gaps[came])))
                normalisers.append(normaliser)
    p, right, nll, gap = zip(*rows, strict=True)
    return TokenScores(np.array(p), np.array(right), np.array(nll), np.array(gap), np.stack(normalisers))


_ONE: Final = int(np.flatnonzero(INVERSE_TEMPERATURES == 1.0)[0])


def normalisers_of(gaps: NDArray[np.float32]) -> Floats:
    """The logarithm of sum exp(b g) at each b: two rounds of exponentials, then one product for each further b.

    exp((b + d) g) = exp(b g) exp(d g); 18 products of single precision lose 1e-6 at most.
    """
    weights = np.exp(gaps * np.float32(INVERSE_TEMPERATURES[0]))
    factor = np.exp(gaps * np.float32(INVERSE_TEMPERATURES[1] - INVERSE_TEMPERATURES[0]))
    sums = [weights.sum(dtype=np.float64)]
    for _ in INVERSE_TEMPERATURES[1:]:
        weights *= factor
        sums.append(weights.sum(dtype=np.float64))
    logs: Floats = np.log(np.array(sums))
    return logs


def best_temperature(scores: TokenScores) -> float:
    """T = 1 / b that minimises the mean NLL of the rows: N(b) - b gap, convex in b (Guo et al. 2017).

    The minimum of the values kept, moved to that of the parabola through it and its neighbours; at an end of the range
    the end itself.
    """
    loss = scores.normaliser.mean(0) - INVERSE_TEMPERATURES * scores.gap.mean()
    at = int(loss.argmin())
    if at in {0, len(loss) - 1}:
        return float(1 / INVERSE_TEMPERATURES[at])
    before, here, after = loss[at - 1 : at + 2]
    step = INVERSE_TEMPERATURES[1] - INVERSE_TEMPERATURES[0]
    moved = INVERSE_TEMPERATURES[at] + 0.5 * step * (before - after) / (before - 2 * here + after)
    return float(1 / moved)


def at_temperature(scores: TokenScores, temperature: float) -> tuple[Floats, Floats]:
    """Confidence of the most likely token, and NLL of the one that came, at T: both [n].

    The normaliser between the values of b that are kept is read off the parabola through the three nearest ones.

    Raises:
        RefusedError: T lies outside the range kept.
    """
    b, grid = 1 / temperature, INVERSE_TEMPERATURES
    if not grid[0] - 1e-9 <= b <= grid[-1] + 1e-9:
        raise RefusedError(f"temperature {temperature:.3f} is outside {1 / grid[-1]:.2f} to {1 / grid[0]:.2f}")
    middle = int(np.clip(np.abs(grid - b).argmin(), 1, len(grid) - 2))
    x0, x1, x2 = grid[middle - 1 : middle + 2]
    y0, y1, y2 = scores.normaliser[:, middle - 1 : middle + 2].T
    log_sum = (
        y0 * (b - x1) * (b - x2) / ((x0 - x1) * (x0 - x2))
        + y1 * (b - x0) * (b - x2) / ((x1 - x0) * (x1 - x2))
        + y2 * (b - x0) * (b - x1) / ((x2 - x0) * (x2 - x1))
    )
    return np.exp(-log_sum), log_sum - b * scores.gap


def part(scores: TokenScores, rows: slice | NDArray[np.intp]) -> TokenScores:
    """Some of the rows."""
    return TokenScores._make(column[rows] for column in scores)
