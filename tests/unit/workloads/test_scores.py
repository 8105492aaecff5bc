"""Scores against hand sums and other libraries' formulas."""

import numpy as np
import pytest

from harness.stats.intervals import binomial_test
from harness.workloads.scores import f1, process_f1, selection, share, signal


def test_f1_by_hand():
    scores = f1([True, True, False, True], [True, False, True, True])
    assert (scores["precision"], scores["recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert scores["f1"]["mid"] == pytest.approx(2 / 3)
    assert scores["always_yes_f1"] == pytest.approx(2 * 3 / (4 + 3))
    assert 0 <= scores["f1"]["low"] <= 2 / 3 <= scores["f1"]["high"] <= 1


def test_process_f1_is_the_harmonic_mean_and_none_without_both_kinds():
    assert process_f1([1, 0, 0, 0], [1, 1])["f1"]["mid"] == pytest.approx(2 * 0.25 / 1.25)
    assert process_f1([1, 0], [])["f1"] is None


@pytest.mark.parametrize(
    ("hits", "count", "chance", "p"),
    [(4, 4, 0.5, 0.125), (5, 10, 0.5, 1.0), (0, 0, 0.5, 1.0), (1, 1, 0.25, 0.25), (9, 10, 0.5, 22 / 1024)],
)
def test_binomial_test_by_hand(hits, count, chance, p):
    assert binomial_test(hits, count, chance) == pytest.approx(p)


def test_a_signal_is_told_by_the_exact_test():
    assert signal(4, 4)["says"] == "no signal"  # p = .125
    assert signal(16, 16)["says"] == "better than chance"
    assert signal(0, 16)["says"] == "worse than chance"
    assert share(0, 0)["mid"] is None


def test_answering_the_surer_half_gains_where_confidence_means_something():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 400)
    right = rng.random(400) < p
    told = selection(list(p), list(right))
    assert told["gain"] > 0.05
    assert told["aurc"] < told["aurc_at_random"]
    assert abs(selection(list(rng.permutation(p)), list(right))["gain"]) < 0.08
    assert selection([0.9] * 5, [True] * 5)["gain"] is None
