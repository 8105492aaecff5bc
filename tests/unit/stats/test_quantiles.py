"""Student's t against the printed table."""

import pytest

from harness.stats.quantiles import normal_quantile, t_quantile


@pytest.mark.parametrize(
    ("probability", "freedom", "expected"),
    [
        # Abramowitz and Stegun 1964, table 26.10
        (0.975, 1, 12.706),
        (0.95, 2, 2.920),
        (0.975, 3, 3.182),
        (0.995, 4, 4.604),
        (0.975, 5, 2.571),
        (0.95, 10, 1.812),
        (0.975, 30, 2.042),
        (0.9, 120, 1.289),
    ],
)
def test_t_quantile_is_the_printed_one(probability: float, freedom: int, expected: float) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(expected, abs=6e-4)
    assert t_quantile(1 - probability, freedom) == pytest.approx(-expected, abs=6e-4)


def test_normal_quantile_is_the_printed_one() -> None:
    assert normal_quantile(0.975) == pytest.approx(1.959964, abs=1e-6)


@pytest.mark.parametrize(("probability", "freedom"), [(0.0, 3), (1.0, 3), (0.5, 0)])
def test_nonsense_is_refused(probability: float, freedom: int) -> None:
    with pytest.raises(ValueError, match="freedom"):
        t_quantile(probability, freedom)
