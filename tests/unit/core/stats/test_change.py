"""Falls are found where they were put, and none is seen in series without one."""

import numpy as np
import pytest

from harness.core.stats.change import fall


def series(rng, level_after, at, count, noise, correlation=0.0):
    steps = rng.normal(0, noise, count)
    for i in range(1, count):
        steps[i] += correlation * steps[i - 1]
    level = np.where(np.arange(count) < at, 1.0, level_after)
    return list(20 * level * np.exp(steps))


@pytest.mark.parametrize("drop", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("at", [10, 48, 100])
def test_a_fall_is_found_within_one_window(drop, at):
    found = [fall(series(np.random.default_rng(seed), 1 - drop, at, 120, 0.02)) for seed in range(10)]
    assert all(index is not None and abs(index - at) <= 1 for index in found)


def test_noise_and_rises_are_no_falls():
    """Level 1 %: of 60 series of noise, also correlated, hardly one may be called."""
    calls = [fall(series(np.random.default_rng(s), 1, 0, 60, 0.05, correlation=0.3 * (s % 2))) for s in range(60)]
    assert sum(c is not None for c in calls) <= 3
    assert fall(series(np.random.default_rng(1), 1.5, 30, 60, 0.02)) is None
    assert fall(series(np.random.default_rng(1), 0.99, 30, 60, 0.001)) is None  # 1 % is told, but too little to matter
    assert fall([1.0, 0.5]) is None
