"""Calibration metrics against hand sums, frozen figures of other libraries, and plain quadratic oracles.

Frozen figures: netcal 1.4.0 ``ECE(10).measure(p, y)`` and relplot 1.0.3 ``smECE(p, y)`` on
``r = default_rng(seed); p = r.beta(4, 2, 1000); y = r.random(1000) < p**1.5``.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.seed_calibration import compute_calibration_error
from harness.errors import RefusedError, WrongAnswerError
from harness.stats.calibration import metrics, paired, smooth
from harness.stats.logistic import Platt, platt
from harness.workloads.calibration import SYSTEM


def drawn(seed: int, count: int = 1000):
    rng = np.random.default_rng(seed)
    p = rng.beta(4, 2, count)
    return p, rng.random(count) < p**1.5


@pytest.mark.parametrize(
    ("seed", "netcal", "relplot"),
    [
        (0, 0.12410891641485403, 0.12391207875298842),
        (1, 0.10561545044265651, 0.10549598295194947),
        (2, 0.10653188648120078, 0.10637961585298567),
    ],
)
def test_as_other_libraries(seed, netcal, relplot):
    p, y = drawn(seed)
    assert metrics.ece(p, y) == pytest.approx(netcal, abs=1e-12)
    assert smooth.smooth_ece(p, y) == pytest.approx(relplot, abs=1e-6)


def test_as_other_libraries_live():
    netcal = pytest.importorskip("netcal.metrics")
    p, y = drawn(7)
    assert metrics.ece(p, y) == pytest.approx(netcal.ECE(10).measure(p, y.astype(int)), abs=1e-12)


def test_by_hand():
    # bins [.2,.3): .25 .25 with 1 of 2 right; [.9,1]: .95 1.0 with 2 of 2 right
    # ECE = 2/4 |.5 - .25| + 2/4 |1 - .975| = .125 + .0125
    assert metrics.ece([0.25, 0.25, 0.95, 1.0], [0, 1, 1, 1]) == pytest.approx(0.1375, abs=1e-15)


@pytest.mark.parametrize("bin_count", [3, 7, 10, 15, 20, 100])
def test_an_edge_belongs_to_the_bin_above_and_one_to_the_last(bin_count):
    edges = np.arange(bin_count + 1) / bin_count
    inside = edges[1:-1]
    for p, expected in (
        (edges[:-1], range(bin_count)),
        (np.nextafter(inside, 0), range(bin_count - 1)),
        (np.array([1.0]), [bin_count - 1]),
    ):
        assert metrics.bins_of(p, bin_count).tolist() == list(expected)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 400))
def test_ece_is_the_plain_loop(seed, count):
    p, y = drawn(seed, count)
    assert metrics.ece(p, y) == pytest.approx(
        compute_calibration_error([True] * count, p.tolist(), y.tolist()), abs=1e-12
    )


@pytest.mark.parametrize(
    ("p", "y"),
    [
        ([0.5] * 300, [1] * 299),
        ([float("nan")] + [0.5] * 299, [1] * 300),
        ([1.2] + [0.5] * 299, [1] * 300),
        ([-0.3] + [0.5] * 299, [1] * 300),
        ([0.5] * 300, [2] + [1] * 299),
        ([], []),
    ],
)
def test_what_the_seed_lets_through_is_refused(p, y):
    with pytest.raises(RefusedError):
        metrics.ece(p, y)
    with pytest.raises(RefusedError):
        smooth.smooth_ece(p, y)


def test_platt_calibrates_what_they_did_not_see():
    p, y = drawn(3, 20_000)
    unseen, truth = drawn(4, 20_000)
    before = metrics.ece(unseen, truth)
    assert metrics.ece(platt(p, y)(unseen), truth) < before / 5
    # logit(p**1.5) is no straight line, but a Platt curve through a Platt curve is found exactly
    again = platt(p, np.random.default_rng(5).random(20_000) < Platt(0.7, -0.4)(p))
    assert again == pytest.approx((0.7, -0.4), abs=0.08)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.35, 0.5, 0.9]), st.booleans()), min_size=1, max_size=60))
def test_aurc_is_the_quadratic_oracle(rows):
    p, y = [r[0] for r in rows], [int(r[1]) for r in rows]
    risks = []
    for threshold in p:
        answered = [1 - b for a, b in zip(p, y, strict=True) if a >= threshold]
        risks.append(sum(answered) / len(answered))
    assert metrics.aurc(p, y) == pytest.approx(sum(risks) / len(risks), abs=1e-12)


def test_accuracy_at_a_coverage_by_hand():
    p, y = [0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1]
    assert metrics.accuracy_at(p, y, 0.5) == 1.0
    assert metrics.accuracy_at(p, y, 0.75) == pytest.approx(2 / 3)


def test_paired_sees_what_the_ece_does_not():
    p, y = drawn(9, 4000)
    rng = np.random.default_rng(10)
    loss = rng.exponential(2.5, 4000)
    worse = y.copy()
    worse[:40] = ~worse[:40]
    report = paired.calibration_change((p, y, loss), (p, worse, loss + rng.normal(0.08, 0.3, 4000)))
    assert 0 < report.nll_change.low < 0.08 < report.nll_change.high
    assert report.ece_change.low <= 0 <= report.ece_change.high
    assert report.lost_count + report.gained_count == 40
    assert report.lost_count == int(y[:40].sum())
    with pytest.raises(RefusedError):
        paired.calibration_change((p, y, loss), (p[:-1], y[:-1], loss[:-1]))


def test_a_set_of_confidences_and_outcomes_is_scored_and_a_wrong_ece_is_found():
    small = {"row_count": 5000}
    cases = SYSTEM.cases(small, 4)
    answers = [SYSTEM.step(None, case) for case in cases]
    assert SYSTEM.score(cases, answers)["ece"] == pytest.approx(cases[0]["implied_ece"], abs=0.01)
    # one row of 200 at 0.75, all right: the gap is 0.25; the other set, four times as long, has none
    rows = {"confidences": [0.75] * 200, "outcomes": [True] * 200}
    none = {"confidences": [1.0] * 800, "outcomes": [True] * 800}
    own = [SYSTEM.step(None, rows), SYSTEM.step(None, none)]
    assert SYSTEM.score([rows, none], own)["ece"] == pytest.approx(0.25 * 200 / 1000)
    answers[0]["ece"] += 0.1
    with pytest.raises(WrongAnswerError, match="from the one that is known"):
        SYSTEM.score(cases, answers)
    with pytest.raises(RefusedError, match="below 200 an ECE is noise"):
        SYSTEM.step(None, {"confidences": [0.5] * 199, "outcomes": [True] * 199})
    with pytest.raises(RefusedError, match="confidences"):
        SYSTEM.step(None, {"confidences": ["high"], "outcomes": [True]})
