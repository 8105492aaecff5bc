"""What some runs say together, with values by hand and from numpy."""

from math import exp, inf, log, sqrt

import numpy as np
import pytest

from harness.core.stats.runs import Spread, estimate, runs_needed, spread_of


def test_samples_of_a_run_add_to_what_is_assumed() -> None:
    """Standard error of a median: sqrt(pi / 2) times that of a mean; its square is added to the assumed one."""
    run = [90.0, 100.0, 110.0]
    own = sqrt(np.pi / 2) * np.std(np.log(run), ddof=1) / sqrt(3)

    alone = spread_of([[run]], 0.1)
    beside_a_single_value = spread_of([[run], [[100.0]]], 0.1)
    of_two = spread_of([[[90.0, 110.0]]], 0.1)

    assert alone.assumed == pytest.approx(sqrt(0.1**2 + own**2), rel=1e-4)
    assert beside_a_single_value.assumed == pytest.approx(sqrt(0.1**2 + own**2 / 2), rel=1e-4)
    pair = sqrt(np.pi / 2) * np.std(np.log([90.0, 110.0]), ddof=1) / sqrt(2)
    assert of_two.assumed == pytest.approx(sqrt(0.1**2 + pair**2), rel=1e-4)
    assert (alone.told, alone.degrees) == (None, 0)


def test_nothing_is_added_where_nothing_is_assumed() -> None:
    """A figure whose runs do not differ, such as a file's size, and turns, which tell all themselves."""
    assert spread_of([[[90.0, 110.0]]], None).assumed is None
    assert spread_of([[[90.0, 110.0]]], 0.0).assumed == 0.0


def test_sides_are_pooled_about_their_own_means() -> None:
    """Two sides of two runs: squares (ln 1.1)^2 / 2 and (ln 1.2)^2 / 2 over two degrees of freedom."""
    spread = spread_of([[[100.0], [110.0]], [[50.0], [60.0]]], None, "turn")

    assert spread.told == pytest.approx(sqrt((log(1.1) ** 2 / 2 + log(1.2) ** 2 / 2) / 2))
    assert (spread.degrees, spread.unit) == (2, "turn")


def test_an_end_needs_a_spread() -> None:
    """Nobody knows how much runs differ: a value, and no end."""
    assert estimate([[10.0, 12.0]], Spread(None), 0.05, 0.05) == (pytest.approx(11.0), None, None, 2)


def test_a_baseline_widens_the_interval() -> None:
    """Two runs beside four: half width z sqrt(1/2 + 1/4) times the spread, here of 10 %."""
    z_95 = 1.6448536269514722
    found = estimate([[20.0], [20.0]], Spread(0.1), 0.05, 0.05, [[10.0]] * 4)

    half = z_95 * 0.1 * sqrt(0.75)
    assert (found.mid, found.low, found.high) == pytest.approx((2.0, 2 * exp(-half), 2 * exp(half)))
    assert found.sample_count == 2


def test_an_end_beyond_all_numbers_is_still_one() -> None:
    """One degree of freedom and a spread of a whole decade: the ends stay finite and above 0."""
    found = estimate([[1.0], [1e9]], spread_of([[[1.0], [1e9]]], None), 1e-6, 1e-6)

    assert found.low is not None and found.high is not None
    assert 0 < found.low < 1e-300 and 1e300 < found.high < inf


def test_what_more_than_two_hundred_runs_would_settle_is_told_as_never() -> None:
    """(2.326 + 1.645) .1 / root k below .028 from k = 202 on, beyond the last number that is tried."""
    spread = Spread(None, 0.1, 1_000_000)

    assert runs_needed(0.0280, (1, 0), spread, 0.01) is None
    assert runs_needed(0.0285, (1, 0), spread, 0.01) == 195
