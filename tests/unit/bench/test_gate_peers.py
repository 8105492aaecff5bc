"""The peer's rule as the peer itself applies it: a mean more than 5 % above the baseline's fails."""

import pytest

from bench.gate_peers import FIRST_RUNS, Runs, doctor_answer, pytest_benchmark_fails
from harness.core.errors import CouldNotRunError

BASE = [0.010, 0.011, 0.009, 0.010, 0.0105, 0.0095]  # mean 0.010


@pytest.mark.parametrize(("ratio", "fails"), [(1.0, False), (1.04, False), (1.06, True)])
def test_pytest_benchmark_compares_means(ratio: float, fails: bool) -> None:
    assert pytest_benchmark_fails(Runs(BASE, [ratio * s for s in BASE])) is fails


def test_it_gets_the_first_runs_only() -> None:
    late = [0.010] * FIRST_RUNS + [1.0] * 4
    assert pytest_benchmark_fails(Runs([0.010] * 10, late)) is False


def test_a_peer_that_is_not_there_is_told() -> None:
    with pytest.raises(CouldNotRunError, match="no-such-doctor"):
        doctor_answer(Runs(BASE, BASE), "no-such-doctor", 0.03)
