"""Intervals: exact ranks by hand, coverage by simulation, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness.core.stats.intervals as intervals
from harness.core.stats.intervals import hodges_lehmann, quantile_interval, ratio_interval


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [
        # P(all on one side) = 2 / 2^n: 6 is the first n with 1 - 2/64 = 96.9 % >= 95 %
        (5, None, None),
        (6, 1.0, 6.0),
        (8, 1.0, 8.0),
        # n = 9: 1 - 2 (1 + 9) / 512 = 96.1 %: the second from each end
        (9, 2.0, 8.0),
        # n = 20: 1 - 2 (1 + 20 + 190 + 1140 + 4845) / 2^20 = 98.8 %, one rank more 95.86 %: r = 6
        (20, 6.0, 15.0),
    ],
)
def test_median_interval_ranks(count: int, low: float | None, high: float | None) -> None:
    estimate = quantile_interval([float(i) for i in range(1, count + 1)])

    assert (estimate.low, estimate.high) == (low, high)


def test_hodges_lehmann_by_hand() -> None:
    # pairwise means of 1, 2, 10: 1, 1.5, 5.5, 2, 6, 10 -> median of six = (2 + 5.5) / 2
    assert float(hodges_lehmann(np.array([1.0, 2.0, 10.0]))) == 3.75


def test_common_drift_cancels() -> None:
    drift = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]

    estimate = ratio_interval([0.9 * d for d in drift], drift)

    assert estimate.mid == pytest.approx(0.9)
    assert estimate.low == pytest.approx(0.9)
    assert estimate.high == pytest.approx(0.9)


@pytest.mark.parametrize("count", [6, 10, 20])
def test_ratio_interval_covers_the_truth(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of 3 % on both sides, truth 0.95: a 95 % interval must cover it in about 95 of 100 runs."""
    monkeypatch.setattr(intervals, "RESAMPLES", 500)
    generator = np.random.default_rng(7)
    hits = 0
    for _ in range(200):
        base = np.exp(generator.normal(0, 0.03, count))
        new = 0.95 * np.exp(generator.normal(0, 0.03, count))
        estimate = ratio_interval(list(new), list(base))
        assert estimate.low is not None
        assert estimate.high is not None
        hits += estimate.low <= 0.95 <= estimate.high

    # binomial(200, 0.95): below 176 has probability 1e-4
    assert hits >= 176


@given(st.lists(st.floats(0.5, 2.0), min_size=3, max_size=8), st.floats(0.1, 10))
def test_ratio_does_not_depend_on_the_unit(values: list[float], unit: float) -> None:
    base = list(reversed(values))

    one, two = ratio_interval(values, base), ratio_interval([unit * v for v in values], [unit * v for v in base])

    assert one.mid == pytest.approx(two.mid)
    assert one.low == pytest.approx(two.low)


@pytest.mark.parametrize(
    ("candidate", "baseline"), [([1.0, 2.0], [1.0]), ([1.0, -1.0, 1.0], [1.0] * 3), ([math.nan], [1.0]), ([], [])]
)
def test_bad_samples_are_refused(candidate: list[float], baseline: list[float]) -> None:
    with pytest.raises(ValueError, match=r"must|need"):
        ratio_interval(candidate, baseline)
