"""The interval of turns by simulation: it errs as said under every kind of noise, however often it is read."""

from collections.abc import Callable
from math import log

import numpy as np
import pytest

from harness.core.stats.turns import least_turns, middle_of, turn_ends, typical_half_width

Draw = Callable[[np.random.Generator, int], np.ndarray]


def lagging(generator: np.random.Generator, count: int) -> np.ndarray:
    values = [generator.normal(0, 0.03)]
    for step in generator.normal(0, 0.03 * (1 - 0.97**2) ** 0.5, count - 1):
        values.append(0.97 * values[-1] + step)
    return np.array(values)


def modes(generator: np.random.Generator, count: int) -> np.ndarray:
    return generator.normal(0, 0.01, count) - 0.1 * (np.cumsum(generator.random(count) < 0.05) % 2)


NOISE: dict[str, Draw] = {
    "independent": lambda g, n: g.normal(0, 0.03, n),
    "each run like the one before": lagging,
    "two modes drawn": lambda g, n: g.normal(0, 0.01, n) - 0.1 * g.integers(0, 2, n),
    "two modes that last": modes,
    "1 % slower a run": lambda g, n: g.normal(0, 0.01, n) - 0.01 * np.arange(n),
    "heavy tail": lambda g, n: g.standard_t(2, n) * 0.015,
    "one in eight a quarter slower": lambda g, n: g.normal(0, 0.01, n) + log(0.75) * (g.random(n) < 0.125),
    "boost at first": lambda g, n: g.normal(0, 0.01, n) + 0.15 * np.exp(-np.arange(n) / 4),
}


def turns(draw: Draw, generator: np.random.Generator, slowdown: float, count: int = 24) -> np.ndarray:
    """Log ratios of turns of two runs each, whose order is drawn."""
    level = draw(generator, 2 * count).reshape(count, 2)
    first = generator.integers(0, 2, count)
    rows = np.arange(count)
    return level[rows, first] - level[rows, 1 - first] + log(1 - slowdown)


@pytest.mark.parametrize("kind", NOISE)
def test_an_unchanged_build_is_seldom_accused_at_any_look(kind: str) -> None:
    """At 5 % for one end: of 150 courses, each read after every turn, 14 or more are an event of 1 in 50."""
    generator = np.random.default_rng(5)
    wrong = 0
    for _ in range(150):
        logs = turns(NOISE[kind], generator, 0.0)
        wrong += any((turn_ends(logs[:n], 0.5, 0.05)[1] or 1.0) < 0 for n in range(6, 25, 3))
    assert wrong <= 13


@pytest.mark.parametrize("kind", NOISE)
def test_a_fifth_slower_is_found_within_24_turns(kind: str) -> None:
    generator = np.random.default_rng(6)
    found = 0
    for _ in range(60):
        logs = turns(NOISE[kind], generator, 0.2)
        found += any((turn_ends(logs[:n], 0.5, 0.01 / 8)[1] or 1.0) < 0 for n in (12, 16, 20, 24))
    assert found >= 55


def test_the_fewest_turns_double_a_stake_to_what_is_needed() -> None:
    assert least_turns(0.01) == 7  # 2 ** 7 = 128
    assert least_turns(0.01 / 8) == 10  # 2 ** 10 = 1024 of 800
    assert turn_ends([-1.0] * 6, 0.01, 0.01) == (None, None)
    low, high = turn_ends([-1.0] * 40, 0.01, 0.01)
    assert low is not None and high is not None
    assert low < -1.0 < high < 0


def test_ends_mirror_each_other() -> None:
    logs = list(np.random.default_rng(1).normal(-0.05, 0.03, 20))
    low, high = turn_ends(logs, 0.01, 0.02)
    other = turn_ends([-each for each in logs], 0.02, 0.01)
    assert (low, high) == pytest.approx((-(other[1] or 0), -(other[0] or 0)))
    assert middle_of(logs) == pytest.approx(np.exp(np.median(logs)), rel=0.03)


def test_the_typical_width_is_what_simulations_reach() -> None:
    generator = np.random.default_rng(2)
    half = typical_half_width(0.03, 24, 0.005)
    assert half is not None
    ends = [turn_ends(generator.normal(-half, 0.03, 24), 0.5, 0.005)[1] for _ in range(200)]
    assert 0.35 <= np.mean([end is not None and end < 0 for end in ends]) <= 0.75
    assert typical_half_width(0.03, 6, 0.005) is None
