"""The neighbour beside which gates are judged: it uses the share of a core that was asked for, and ends."""

import os
import time

import psutil
import pytest

from bench.gate_rates import neighbour

pytestmark = pytest.mark.alone


def neighbours() -> list[psutil.Process]:
    """Processes that run the neighbour's code, wherever they hang."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if words[1:2] == ["-c"] and "neighbour" in " ".join(words[2:]):
            found.append(process)
    return found


def used_s(share: float, wall_s: float = 1.5) -> float:
    """CPU seconds of the neighbour at its end; nothing of it is left afterwards."""
    before = {process.pid for process in neighbours()}
    with neighbour(share):
        time.sleep(wall_s)
        mine = [process for process in neighbours() if process.pid not in before]
        assert len(mine) == bool(share)
        assert all(os.getpid() not in {parent.pid for parent in process.parents()} for process in mine)
        used = sum(sum(process.cpu_times()[:2]) for process in mine)
    psutil.wait_procs(mine, timeout=10)
    assert not any(process.is_running() for process in mine)
    return used


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_no_more_than_its_share_is_used(share: float) -> None:
    start_s = used_s(0.01)  # of the interpreter, above all
    assert used_s(share) < start_s + share * 1.5 + 0.2


def test_a_larger_share_is_more_and_none_starts_nothing() -> None:
    assert used_s(0.9) > used_s(0.01) + 0.1
    assert used_s(0.0) == pytest.approx(0.0, abs=1e-6)
