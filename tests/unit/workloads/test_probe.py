"""A linear probe against scipy's optimum, planted directions, and what must be at chance."""

import numpy as np
import pytest
from scipy.optimize import minimize

from harness.workloads.probe import SYSTEM, fit, held_out, packed, unpacked, words_of


@pytest.mark.parametrize("dim", [3, 60])  # fewer columns than rows, and more
def test_the_fit_is_the_optimum(dim):
    rng = np.random.default_rng(dim)
    x = rng.standard_normal((30, dim)) * rng.uniform(0.5, 2, dim) + 1
    labels = x[:, 0] + 0.5 * rng.standard_normal(30) > 1
    weights, bias = fit(x, labels)
    rows, sign = (x - x.mean(axis=0)) / x.std(axis=0), np.where(labels, 1, -1)

    def loss(w):
        return np.mean(np.logaddexp(0, -sign * (rows @ w[:-1] + w[-1]))) + 0.5 * 1e-2 * np.sum(w[:-1] ** 2)

    exact = {"maxiter": 5000, "ftol": 1e-14, "gtol": 1e-9}
    best = minimize(loss, np.zeros(dim + 1), method="L-BFGS-B", options=exact).x
    np.testing.assert_allclose(x @ weights + bias, rows @ best[:-1] + best[-1], atol=5e-3)


def test_a_planted_direction_is_read_and_noise_is_not():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 60))
    labels = rng.random(100) < 0.5
    x[:, 7] += np.where(labels, 3, -3)
    assert held_out(x, labels).mean() > 0.8
    assert held_out(x, labels, 1).mean() > 0.95  # a sparse probe finds the one column
    assert 0.3 < held_out(rng.standard_normal((100, 60)), labels).mean() < 0.7


def test_no_row_is_judged_by_a_classifier_that_saw_it():
    """Rows that are all alike but for their own number can be learnt by heart, and are predicted at chance."""
    labels = np.random.default_rng(2).random(100) < 0.5
    assert held_out(np.eye(100), labels).mean() < 0.65


def test_shuffled_words_are_not_told_by_the_words():
    cases = SYSTEM.cases(SYSTEM.sizes["default"] | {"case_count": 60}, 1)
    labels = np.array([case["label"] for case in cases])
    assert labels.mean() == 0.5
    assert held_out(words_of([case["text"] for case in cases]), labels).mean() < 0.7


def test_a_vector_goes_through_text():
    vector = np.array([1.5, -70000.0, 0.1])
    np.testing.assert_allclose(unpacked(packed(vector)), [1.5, -65504, 0.1], rtol=1e-3)


def test_too_few_texts_are_said_to_be_too_few():
    cases = [{"text": "a", "label": at % 2 == 0} for at in range(4)]
    assert "nothing to learn" in SYSTEM.score(cases, [{"activation": packed(np.ones(2)), "layer": 1}] * 4)["says"]
