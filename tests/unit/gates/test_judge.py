"""Judging an estimate against its limit: answers, margins and words, with values by hand."""

from math import exp, log, sqrt

import pytest

from harness.core.budget import Budget
from harness.core.stats.intervals import Estimate
from harness.core.stats.runs import Spread
from harness.gates.judge import Errors, decide, judge, judgement_of

ERRORS = Errors(0.01, 0.05)
KNOWN = Spread(0.1, 0.02, 4)
Z_95 = 1.6448536269514722
"""Standard normal quantile of 0.95, from its table."""


def judged(budget: Budget, mid: float, low: float | None, high: float | None, spread: Spread = KNOWN, counts=(3, 0)):
    return judge(budget, Estimate(mid, low, high, 9), spread, counts, errors=ERRORS, evidence=["a", "b"])


FLOOR = Budget(metric="decode_tokens_per_s", floor=20.0)
CEILING = Budget(metric="ttft_s", ceiling=2.0)
SLOWDOWN = Budget(metric="decode_tokens_per_s", slowdown_ratio=0.1)
BASELINE = Budget(metric="decode_tokens_per_s", baseline_ratio=0.95)


@pytest.mark.parametrize(
    ("budget", "interval", "answer", "margin", "change", "reason"),
    [
        (FLOOR, (25.0, 24.0, 26.0), "pass", 0.25, "25.0% inside the limit", ", with the whole interval on that side"),
        (FLOOR, (15.0, 14.0, 16.0), "fail", -0.25, "25.0% outside the limit", ", with the whole interval on that side"),
        (FLOOR, (20.0, 20.0, 20.0), "pass", 0.0, "0.0% inside the limit", ", with the whole interval on that side"),
        (CEILING, (1.5, 1.4, 1.6), "pass", 0.25, "25.0% inside the limit", ", with the whole interval on that side"),
        (CEILING, (3.0, 2.9, 3.1), "fail", -0.5, "50.0% outside the limit", ", with the whole interval on that side"),
        (
            *(BASELINE, (1.2, 1.1, 1.3), "pass", 1.2 / 0.95 - 1, "20.0% faster than the baseline"),
            ", with the whole interval on that side",
        ),
        (
            *(SLOWDOWN, (0.80, 0.75, 0.85), "fail", 0.8 / 0.9 - 1, "20.0% slower than the baseline"),
            ", where 10% must be found: beyond noise",
        ),
        (
            *(SLOWDOWN, (1.0, 0.97, 1.03), "pass", 1.0 / 0.9 - 1, "0.0% slower than the baseline"),
            ", where 10% must be found: the interval leaves that out",
        ),
    ],
)
def test_a_clear_answer(budget, interval, answer, margin, change, reason) -> None:
    """The margin is a share of the limit, positive inside; the reason says the change and what the interval does."""
    found = judged(budget, *interval)

    assert found.answer == answer
    assert found.margin_ratio == pytest.approx(margin)
    assert found.change == change
    assert found.reason == change + reason
    assert (found.settles, found.runs_needed) == ("", None)
    assert (found.value, found.low, found.high, found.sample_count) == (*interval, 9)
    assert found.evidence == ("a", "b")


def test_what_three_runs_would_find() -> None:
    """Three runs, 2 % by 4 degrees: t(.995) s, narrower than z(.995) .1, and z(.95) s of power, over root 3."""
    t_995_of_4 = 4.604094871
    expected = 1 - exp(-(t_995_of_4 * 0.02 + Z_95 * 0.02) / sqrt(3))

    assert judged(FLOOR, 25.0, 24.0, 26.0).detectable_ratio == pytest.approx(expected, rel=1e-6)
    assert judged(FLOOR, 25.0, None, None, Spread(None)).detectable_ratio is None


@pytest.mark.parametrize(
    ("spread", "counts", "needed", "settles"),
    [
        # Nothing is told by one run: two more tell how much they differ.
        (Spread(0.1), (1, 0), 3, "3 runs, which tell how much they differ"),
        (Spread(0.1), (2, 5), 4, "4 runs, which tell how much they differ"),
        (
            *(Spread(None, 0.05, 3, "sitting"), (3, 3), None),
            "measure the baseline beside it (gate live), or keep runs of more days as the baseline",
        ),
        # However many runs: beside one of the baseline the interval stays wider than the distance.
        (
            *(Spread(None, 0.05, 6), (4, 1), None),
            "no number of runs is enough beside 1 run of the baseline: keep more of them",
        ),
        (Spread(None, 0.5, 6, "turn"), (4, 0), None, "no number of turns is sure to settle it"),
    ],
)
def test_what_would_settle_it(spread, counts, needed, settles) -> None:
    """An open question names what decides it, or that no number of runs does."""
    found = judged(BASELINE, 0.94, 0.90, 1.05, spread, counts)

    assert found.answer == "inconclusive"
    assert found.runs_needed == needed
    assert found.settles == settles
    assert found.reason == f"6.0% slower than the baseline: the interval holds the limit; {spread.words()}; {settles}"


def test_the_number_of_runs_that_settle_it() -> None:
    """Runs that differ by 2 %, told by many: the least k with (2.326 + 1.645) .02 / root k below the distance."""
    distance = log(1.0 / 0.95)  # .0513
    spread = Spread(None, 0.02, 1000)
    found = judged(BASELINE, 1.0, 0.90, 1.1, spread, (1, 0))

    z_99 = 2.3263478740408408
    by_hand = ((z_99 + Z_95) * 0.02 / distance) ** 2  # 2.4: three runs
    assert found.runs_needed == 3 == int(by_hand) + 1
    assert found.settles == "3 runs would settle it in 95 of 100 gates"


def test_a_slowdown_that_is_open_is_as_far_as_its_limit() -> None:
    """Whether 10 % are lost is asked, so the distance is ln .9, wherever the middle lies by chance."""
    spread = Spread(None, 0.02, 1000)
    near = judged(SLOWDOWN, 0.901, 0.85, 1.05, spread, (1, 0))

    assert near.answer == "inconclusive"
    assert near.runs_needed == 2  # (2.326 + 1.645) .02 / root 1 = .079 would do, yet one more is the least asked for
    assert ", where 10% must be found: the interval holds the limit" in near.reason


@pytest.mark.parametrize(
    ("low", "high", "higher", "answer"),
    [
        # An end that is the limit itself keeps it.
        (20.0, 21.0, True, "pass"),
        (19.0, 20.0, True, "inconclusive"),
        (19.0, 20.0, False, "pass"),
        (20.0, 21.0, False, "inconclusive"),
        # The end that would decide is enough; the other one alone decides nothing.
        (None, 25.0, True, "inconclusive"),
        (25.0, None, True, "pass"),
        (None, 15.0, True, "fail"),
    ],
)
def test_ends_that_lie_on_the_limit(low, high, higher, answer) -> None:
    """An interval that touches the limit from outside is not wholly outside; a single end may decide."""
    assert decide(Estimate(20.0, low, high, 3), 20.0, higher_is_better=higher) == answer


def test_what_is_no_evidence_has_no_figures() -> None:
    """A judgement that could not be made holds no sample, and line 0 is that of no file."""
    found = judgement_of(FLOOR, "could not run", reason="two\nlines")

    assert (found.sample_count, found.line, found.value) == (0, 0, None)
    assert "\n" not in found.reason
    assert (found.limit, found.relative_to) == (20.0, "")


def test_errors_are_shared_by_budgets_and_by_looks() -> None:
    """1 of 100 files is accused wrongly: of eight budgets and four looks 1 of 3,200; 5 of 100 acquitted, over looks."""
    assert Errors.of(8, 4) == (pytest.approx(0.01 / 32), pytest.approx(0.05 / 4))
    assert Errors.of(0, 1) == (pytest.approx(0.01), pytest.approx(0.05))


@pytest.mark.parametrize(
    ("mid", "high", "answer"),
    [
        (0.80, 0.99, "fail"),
        # "No change" is an end of the interval, so it is not left out.
        (0.80, 1.0, "inconclusive"),
        # The middle is the root of the limit: half of the slowdown in logs, not more.
        (0.9, 0.99, "inconclusive"),
    ],
)
def test_a_slowdown_on_the_edge(mid, high, answer) -> None:
    """Both conditions must hold strictly before a build is accused."""
    found = decide(Estimate(mid, 0.7, high, 9), 0.81, higher_is_better=True, finds_slowdown=True)

    assert found == answer


def test_runs_of_one_hour_promise_nothing_of_another() -> None:
    """Sittings that differ by .1 %: no number of runs is named, although the formula would give one."""
    found = judged(BASELINE, 0.949, 0.94, 1.0, Spread(None, 0.001, 100, "sitting"), (3, 0))

    assert (found.answer, found.runs_needed) == ("inconclusive", None)


def test_a_limit_that_is_near_needs_more_runs() -> None:
    """2 % from the limit and runs that differ by 2 %: ((2.326 + 1.645) .02 / .0198)^2 = 16.1, so 17 runs."""
    found = judged(BASELINE, 0.95 * 1.02, 0.90, 1.1, Spread(None, 0.02, 100_000), (1, 0))

    assert found.runs_needed == 17
