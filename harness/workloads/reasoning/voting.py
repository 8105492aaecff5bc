"""Self-consistency that stops when the vote is settled: no sample more than the answer needs."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from math import comb
from typing import NamedTuple


class Vote(NamedTuple):
    """The answer, how many samples were taken, and whether no further one could matter."""

    answer: Hashable
    sample_count: int
    is_decided: bool


def is_decided(counts: Sequence[int], left_count: int) -> bool:
    """Whether the leader stays ahead whatever the ``left_count`` samples still to come say."""
    ordered = sorted(counts, reverse=True)
    second = ordered[1] if len(ordered) > 1 else 0
    return bool(ordered) and ordered[0] - second > left_count


def doubt(first: int, second: int) -> float:
    """Probability that the runner-up is the more likely answer, with a uniform prior on the two's shares.

    P(p < 1/2) for p ~ Beta(first + 1, second + 1), which is a binomial tail: with n = first + second + 1,
    sum over k from first + 1 to n of C(n, k) / 2**n. Source: Aggarwal et al. 2023, "Let's Sample Step by Step".
    """
    n = first + second + 1
    return float(sum(comb(n, k) for k in range(first + 1, n + 1)) / 2**n)


def vote(sample: Callable[[int], Hashable], most_count: int, *, tolerance: float = 0.05, least_count: int = 2) -> Vote:
    """Draw answers until the majority is settled.

    Args:
        sample: Gives the answer of sample number i.
        most_count: Samples at most.
        tolerance: Stop when ``doubt`` falls to it; 0 stops only when no sample left could change the answer, and then
            the answer is that of all samples.
        least_count: Samples at least.
    """
    counts: Counter[Hashable] = Counter()
    for at in range(most_count):
        counts[sample(at)] += 1
        top = [c for _, c in counts.most_common(2)] + [0]
        decided = is_decided(list(counts.values()), most_count - at - 1)
        if decided or (at + 1 >= least_count and doubt(top[0], top[1]) <= tolerance):
            break
    taken = sum(counts.values())
    return Vote(counts.most_common(1)[0][0], taken, is_decided(list(counts.values()), most_count - taken))


def vote_in_waves(
    draw: Callable[[Sequence[int]], Sequence[Hashable]], waves: Sequence[int], *, tolerance: float = 0.05
) -> Vote:
    """The same where samples are drawn several at a time, as one batch of a language model.

    Args:
        draw: Gives the answers of the samples of these numbers.
        waves: Samples of each wave; the vote is looked at after each.
        tolerance: As ``vote``.
    """
    counts: Counter[Hashable] = Counter()
    most_count, taken = sum(waves), 0
    for size in waves:
        counts.update(draw(range(taken, taken + size)))
        taken += size
        top = [c for _, c in counts.most_common(2)] + [0]
        if is_decided(list(counts.values()), most_count - taken) or doubt(top[0], top[1]) <= tolerance:
            break
    return Vote(counts.most_common(1)[0][0], taken, is_decided(list(counts.values()), most_count - taken))
