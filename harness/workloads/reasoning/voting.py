"""Self-consistency that stops when the vote is settled: no sample more than the answer needs."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from math import comb
from typing import NamedTuple


class Vote(NamedTuple):
    """The answer, and how many samples were taken."""

    answer: Hashable
    sample_count: int


def doubt(first: int, second: int) -> float:
    """Probability that the runner-up is the more likely answer, with a uniform prior on the two's shares.

    P(p < 1/2) for p ~ Beta(first + 1, second + 1), which is a binomial tail: with n = first + second + 1,
    sum over k from first + 1 to n of C(n, k) / 2**n. Source: Aggarwal et al. 2023, "Let's Sample Step by Step".
    """
    n = first + second + 1
    return float(sum(comb(n, k) for k in range(first + 1, n + 1)) / 2**n)


def vote_in_waves(
    draw: Callable[[Sequence[int]], Sequence[Hashable]], waves: Sequence[int], *, tolerance: float = 0.05
) -> Vote:
    """Draw answers, several at a time as one batch of a language model, until the majority is settled.

    Args:
        draw: Gives the answers of the samples of these numbers.
        waves: Samples of each wave; the vote is looked at after each.
        tolerance: Stop when ``doubt`` falls to it; 0 stops only when no sample left could change the answer, and then
            the answer is that of all samples.
    """
    counts: Counter[Hashable] = Counter()
    most_count, taken = sum(waves), 0
    for size in waves:
        counts.update(draw(range(taken, taken + size)))
        taken += size
        first, second = ([c for _, c in counts.most_common(2)] + [0])[:2]
        is_decided = first - second > most_count - taken  # whatever the samples still to come say
        if is_decided or doubt(first, second) <= tolerance:
            break
    return Vote(counts.most_common(1)[0][0], taken)
