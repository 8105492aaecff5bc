"""Leviathan's tables, hand sums, and what must hold whatever the numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.speed.draft_cycle import best_gamma, expected_tokens_per_cycle, speculative_speedup


def test_expected_tokens_by_hand():
    # alpha 0.5, gamma 2: 1 + 0.5 + 0.25
    assert expected_tokens_per_cycle(0.5, 2) == pytest.approx(1.75)
    assert expected_tokens_per_cycle(0, 5) == 1
    assert expected_tokens_per_cycle(1, 5) == 6


@pytest.mark.parametrize(
    ("alpha", "gamma", "cost", "published"),
    [  # Leviathan et al. 2023, tables 2 and 3: the authors' expected speedups, printed to one decimal
        (0.75, 7, 0.02, 3.2),
        (0.80, 7, 0.04, 3.3),
        (0.82, 7, 0.11, 2.5),
        (0.62, 7, 0.02, 2.3),
        (0.68, 5, 0.04, 2.4),
        (0.71, 3, 0.11, 2.0),
        (0.65, 5, 0.02, 2.4),
        (0.73, 5, 0.04, 2.6),
        (0.53, 5, 0.02, 1.9),
        (0.55, 3, 0.04, 1.8),
        (0.56, 3, 0.11, 1.6),
    ],
)
def test_free_verification_is_leviathan(alpha, gamma, cost, published):
    # alpha itself is rounded to two places: the printed value may differ by one in its last place
    assert speculative_speedup(alpha, gamma, cost) == pytest.approx(published, abs=0.1)


def test_bigram_draft_is_free():
    # (1 - 0.2^4) / (1 - 0.2) = 0.9984 / 0.8 = 1.248; the paper says 1.25
    assert speculative_speedup(0.2, 3, 0.0) == pytest.approx(1.248)


def test_no_draft_when_verification_costs_a_step_each():
    # V(k) = k: any cycle yields at most gamma + 1 tokens in gamma + 1 steps, plus the draft
    assert best_gamma(0.9, 0.1, float).gamma == 0


def test_best_gamma_by_hand():
    # alpha 0.5, c 0.1, V = 1: gamma 1: 1.5/1.1 = 1.364; 2: 1.75/1.2 = 1.458; 3: 1.875/1.3 = 1.442
    advice = best_gamma(0.5, 0.1, lambda k: 1.0)
    assert advice.gamma == 2
    assert advice.speedup == pytest.approx(1.75 / 1.2)


@given(st.floats(0, 1), st.integers(0, 16))
def test_a_cycle_yields_between_one_and_all(alpha, gamma):
    assert 1 <= expected_tokens_per_cycle(alpha, gamma) <= gamma + 1 + 1e-9


@given(st.floats(0, 0.99), st.floats(0, 0.99), st.integers(1, 16), st.floats(0, 1), st.floats(1, 8))
def test_more_acceptance_is_never_slower(one, two, gamma, cost, verify):
    low, high = sorted((one, two))
    assert speculative_speedup(low, gamma, cost, verify) <= speculative_speedup(high, gamma, cost, verify) + 1e-9


def test_impossible_acceptance():
    with pytest.raises(ValueError, match="alpha"):
        expected_tokens_per_cycle(1.2, 3)
