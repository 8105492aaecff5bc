"""The output of speculative sampling is distributed as the target, whatever the draft is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.runtimes.llamacpp.acceptance import accept_or_resample, draw, probabilities

CASES = {
    "alike": ([0.5, 0.3, 0.15, 0.05], [0.45, 0.35, 0.1, 0.1]),
    "opposed": ([0.7, 0.2, 0.1, 0.0], [0.0, 0.1, 0.2, 0.7]),
    "certain draft": ([0.4, 0.3, 0.2, 0.1], [0.0, 1.0, 0.0, 0.0]),
    "same": ([0.25, 0.25, 0.25, 0.25], [0.25, 0.25, 0.25, 0.25]),
}
# 99.9 % quantiles of chi-square with 1, 2 and 3 degrees of freedom (any statistics table).
CHI_SQUARE_999 = {1: 10.828, 2: 13.816, 3: 16.266}


@pytest.mark.parametrize("name", CASES)
def test_output_has_the_targets_distribution(name: str) -> None:
    p, q = (np.array(v) for v in CASES[name])
    random = np.random.default_rng(20260101)
    count = 20_000
    seen = np.zeros(p.size)
    for u_draft, u in random.random((count, 2)):
        seen[accept_or_resample(p, q, draw(q, u_draft), u).token] += 1
    assert seen[p == 0].sum() == 0
    expected = count * p[p > 0]
    statistic = float(((seen[p > 0] - expected) ** 2 / expected).sum())
    assert statistic < CHI_SQUARE_999[expected.size - 1]


def test_acceptance_is_one_minus_total_variation() -> None:
    p, q = (np.array(v) for v in CASES["alike"])
    random = np.random.default_rng(7)
    accepted = sum(accept_or_resample(p, q, draw(q, a), b).accepted for a, b in random.random((20_000, 2)))
    # sum of min(p, q) = 0.45 + 0.3 + 0.1 + 0.05 = 0.9; the standard error is sqrt(0.9 * 0.1 / 20000) = 0.0021
    assert accepted / 20_000 == pytest.approx(0.9, abs=4 * 0.0021)


def test_a_test_that_can_fail_a_wrong_rule_is_caught() -> None:
    """Always resampling from p - q when rejected is right; drawing from p again is not, and the statistic shows it."""
    p, q = (np.array(v) for v in CASES["alike"])
    random = np.random.default_rng(3)
    seen = np.zeros(4)
    for a, b, c in random.random((20_000, 3)):
        token = draw(q, a)
        seen[token if b < min(1.0, p[token] / q[token]) else draw(p, c)] += 1
    assert float(((seen - 20_000 * p) ** 2 / (20_000 * p)).sum()) > CHI_SQUARE_999[3]


@pytest.mark.parametrize(("u", "token", "accepted"), [(0.39, 1, True), (0.41, 0, False), (0.99, 0, False)])
def test_by_hand(u: float, token: int, accepted: bool) -> None:
    # p = (0.8, 0.2), q = (0.5, 0.5), drafted 1: kept with probability 0.2 / 0.5 = 0.4; p - q is positive at 0 only.
    assert accept_or_resample(np.array([0.8, 0.2]), np.array([0.5, 0.5]), 1, u) == (token, accepted)


def test_probabilities_by_hand() -> None:
    # exp(0), exp(ln 3) = 1, 3 -> 0.25, 0.75; at temperature 0.5 the logits double: 1, 9 -> 0.1, 0.9
    logits = np.array([0.0, np.log(3.0)], np.float32)
    assert probabilities(logits, 1.0) == pytest.approx([0.25, 0.75], rel=1e-6)
    assert probabilities(logits, 0.5) == pytest.approx([0.1, 0.9], rel=1e-6)
    assert probabilities(logits, 1.0, top_k=1) == pytest.approx([0.0, 1.0])
    with pytest.raises(ValueError, match="temperature"):
        probabilities(logits, 0.0)


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=20).filter(lambda v: sum(v) > 0), st.floats(0, 1, exclude_max=True)
)
def test_a_drawn_token_has_weight(weights: list[float], u: float) -> None:
    assert weights[draw(np.array(weights), u)] > 0
