"""Multiple choice by length-normalised log-probability: no parsing of what a small model says."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.ports import Session
from harness.workloads._language.sampling import log_softmax_at


class Choice(NamedTuple):
    """What the model prefers.

    Attributes:
        best: Index of the option with the highest score; the first of equal ones.
        scores: Mean log-probability of each option's tokens, nats [options].
        shares: softmax(scores): a confidence in each option [options].
        token_count: Tokens read, the kept prefix left out.
    """

    best: int
    scores: NDArray[np.float64]
    shares: NDArray[np.float64]
    token_count: int


def choose(session: Session, prompt: Sequence[int], options: Sequence[Sequence[int]], *, kept_count: int = 0) -> Choice:
    """Score each option as the continuation of the prompt: (1 / m) sum over its m tokens of log P(token | before).

    Length normalisation as in ``acc_norm`` of lm-evaluation-harness, by tokens instead of bytes. The prompt is read
    once; the options share it and go through the model in one batch.

    Args:
        session: With one sequence more than there are options.
        prompt: Token ids, at least one more than ``kept_count``.
        options: Token ids of each option, each at least one.
        kept_count: Tokens of the prompt that sequence 0 holds already.
    """
    if kept_count:
        session.truncate(kept_count)
    else:
        session.clear()
    session.decode(prompt[kept_count:], position=kept_count)
    first = session.logits()
    sums = np.array([log_softmax_at(first, option[0]) for option in options])
    rows = [(token, len(prompt) + at, n) for n, o in enumerate(options) for at, token in enumerate(o[:-1])]
    if rows:
        for n in range(len(options)):
            session.fork(0, n + 1)
        session.decode_rows([t for t, _, _ in rows], [p for _, p, _ in rows], [n + 1 for _, _, n in rows])
        for row, (_, position, n) in enumerate(rows):
            sums[n] += log_softmax_at(session.logits(row), options[n][position - len(prompt) + 1])
        for n in range(len(options)):
            session.truncate(0, sequence=n + 1)
    scores = sums / [len(o) for o in options]
    weights = np.exp(scores - scores.max())
    read = len(prompt) - kept_count + len(rows)
    return Choice(int(scores.argmax()), scores, weights / weights.sum(), read)
