"""Ranks and findings of predicted speeds: hand-computed chances, and laws that hold for any rows."""

from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.prediction import Interval
from harness.show.ranking import LIKELY, chance_faster, finding, ranked


def _speed(mid: float, ratio: float) -> Interval:
    return Interval(mid, mid / ratio, mid * ratio)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (_speed(20, 1.2), _speed(20, 1.5), 0.5),
        # ln 2 = 0.6931; each deviation ln(1.5) / 1.6449 = 0.2465; z = 0.6931 / 0.3486 = 1.988
        (_speed(20, 1.5), _speed(10, 1.5), 0.9766),
        (_speed(10, 1.5), _speed(20, 1.5), 0.0234),
        # z = ln(1.1) / sqrt(2) / 0.2465 = 0.2734
        (_speed(11, 1.5), _speed(10, 1.5), 0.6077),
    ],
)
def test_chance_is_that_of_two_log_normal_speeds(one: Interval, other: Interval, expected: float) -> None:
    assert chance_faster(one, other) == pytest.approx(expected, abs=2e-4)


SPEEDS = st.builds(_speed, st.floats(0.01, 1e4), st.floats(1.0, 30.0))


@given(SPEEDS, SPEEDS)
def test_chances_of_both_orders_add_up_to_one(one: Interval, other: Interval) -> None:
    assert chance_faster(one, other) + chance_faster(other, one) == pytest.approx(1.0)
    width = NormalDist().inv_cdf(0.95)
    assert width == pytest.approx(1.6449, abs=1e-4)  # the constant of the module


@given(st.lists(st.one_of(st.none(), SPEEDS), min_size=1, max_size=8))
def test_ranks_fall_with_speed_and_a_named_winner_is_likely(speeds: list[Interval | None]) -> None:
    rows = [(f"m{place}", speed) for place, speed in enumerate(speeds)]
    found = ranked(rows)
    assert sorted(one.name for one in found) == sorted(name for name, _ in rows)
    running = [one for one in found if one.speed]
    assert [one.rank for one in running] == sorted(one.rank for one in running)
    assert all(one.rank == 0 for one in found[len(running) :])
    said = finding(found)
    if len(running) > 1 and "times" in said:
        first, second = running[:2]
        assert first.speed and second.speed and chance_faster(first.speed, second.speed) >= LIKELY
        assert said.startswith(first.name)
    assert ("None" in said) == (not running) or "close" in said


def test_a_tie_is_said_as_one() -> None:
    rows = [("a", _speed(68, 1.4)), ("b", _speed(67, 1.4)), ("c", _speed(66, 1.8)), ("d", _speed(5, 1.2))]
    found = ranked(rows)
    assert [(one.name, one.rank) for one in found] == [("a", 1), ("b", 1), ("c", 1), ("d", 4)]
    assert finding(found) == "Three are too close to call, near 68 tokens/s"
