"""The neighbour beside which gates are judged: it uses the share of a core that was asked for, and ends."""

import resource
import time

import pytest

from bench.gate_rates import neighbour


def used_s(share: float, wall_s: float = 1.5) -> float:
    """CPU seconds of the neighbour, whose process is waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with neighbour(share):
        time.sleep(wall_s)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_no_more_than_its_share_is_used(share: float) -> None:
    start_s = used_s(0.01)  # of the interpreter, above all
    assert used_s(share) < start_s + share * 1.5 + 0.2


def test_a_larger_share_is_more_and_none_starts_nothing() -> None:
    assert used_s(0.9) > used_s(0.01) + 0.1
    assert used_s(0.0) == pytest.approx(0.0, abs=1e-6)
