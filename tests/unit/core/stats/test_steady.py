"""Tests of one level: how often they doubt noise, and that they see what moves a block of runs."""

from itertools import permutations

import numpy as np
import pytest

from harness.core.stats.steady import _kendall_tail, unsteady


@pytest.mark.parametrize("count", [5, 8, 10, 14, 20, 30])
def test_normal_noise_is_doubted_in_a_few_of_100_series(count: int) -> None:
    """Three tests at 2 % each at most: of 400 series at most 24, and what 400 can tell (4 spreads: 20)."""
    generator = np.random.default_rng(count)
    doubted = sum(bool(unsteady(np.exp(generator.normal(0, 0.03, count)))) for _ in range(400))
    assert doubted <= 44


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.00, 0.99, 0.98, 0.97, 0.96, 0.95], "the runs have a trend (-1.0% a run)"),
        ([1.00, 1.01, 0.90, 0.91, 1.005, 0.905], "the runs lie around two values"),
        ([1.0, 1.01, 1.02, 1.03, 1.02, 1.01, 1.0, 0.99, 0.98, 0.97, 0.98, 0.99, 1.0, 1.01], "like the one before it"),
        ([1.0, 1.01, 0.99, 1.005, 0.995], ""),
        ([1.0, 1.0, 1.0, 1.0, 1.0], ""),
        ([1.0, 0.5, 0.25, 0.1], ""),  # too few to say
    ],
)
def test_what_moves_is_named(values: list[float], said: str) -> None:
    assert (said in unsteady(values)) if said else not unsteady(values)


def test_the_chance_of_a_trend_is_that_of_all_orders() -> None:
    """All 120 orders of five values, counted one by one."""
    sums = [
        sum(1 if b > a else -1 for i, a in enumerate(order) for b in order[i + 1 :]) for order in permutations(range(5))
    ]
    for rises in (0, 2, 6, 8, 10):
        assert _kendall_tail(5, rises) == pytest.approx(sum(abs(one) >= rises for one in sums) / 120)
