"""Batches of tokens that stand anywhere, for engines that run one sequence at a time."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray


def runs_of(positions: Sequence[int], sequences: Sequence[int]) -> list[tuple[int, int]]:
    """[start, stop) of each stretch of one sequence at ascending positions, in order."""
    starts = [
        i
        for i in range(len(positions))
        if i == 0 or sequences[i] != sequences[i - 1] or positions[i] != positions[i - 1] + 1
    ]
    return list(zip(starts, [*starts[1:], len(positions)], strict=True))


def decode_in_runs(
    decode: Callable[[Sequence[int], int, int], NDArray[np.float32]],
    tokens: Sequence[int],
    positions: Sequence[int],
    sequences: Sequence[int],
    keep: Sequence[bool] | None,
    vocab_count: int,
) -> NDArray[np.float32]:
    """Run each stretch with ``decode(tokens, position, sequence)``, which gives the logits of all its tokens.

    Returns:
        Logits [kept, vocab_count] of the tokens kept, in the order given.
    """
    wanted = [True] * len(tokens) if keep is None else list(keep)
    rows = np.empty((sum(wanted), vocab_count), np.float32)
    done = 0
    for start, stop in runs_of(positions, sequences):
        found = decode(tokens[start:stop], positions[start], sequences[start])
        for index, kept in enumerate(wanted[start:stop]):
            if kept:
                rows[done] = found[index]
                done += 1
    return rows
