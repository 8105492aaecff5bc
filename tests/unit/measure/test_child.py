"""Whatever happens in a child process becomes a result; nothing outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.core.scenario import Scenario
from harness.measure.child import ChildResult, Limits, classify, run_child
from harness.measure.protocol import GenerateJob

TARGET = "harness.measure.protocol:run_generate"
SCENARIO = Scenario(context_tokens=256, prompt_tokens=64, new_tokens=8)


def run_fake(folder: Path, fault: str, limits: Limits, after: int = 0) -> ChildResult:
    path = folder / f"{fault or 'good'}.json"
    path.write_text(f'{{"fault": "{fault}", "fault_after_tokens": {after}}}')
    job = GenerateJob(path=str(path), scenario=SCENARIO, runtime="fake", repetitions=2)
    return run_child(TARGET, job, limits=limits)


@pytest.mark.parametrize(
    ("fault", "outcome", "words"),
    [
        ("", "ok", ""),
        ("refuse", "refused", "would not load"),
        ("fail", "failed", "as it was told"),
        ("abort", "aborted", "GGML_ASSERT(told_to == false) failed"),
        ("segfault", "crashed", "SIGSEGV"),
        ("killed", "crashed", "SIGKILL from outside"),
        ("nan", "failed", "NaN or infinite"),
        ("exit", "failed", "status 7"),
    ],
)
def test_each_ending_is_told_apart(tmp_path: Path, fault: str, outcome: str, words: str) -> None:
    result = run_fake(tmp_path, fault, Limits(wall_s=60))

    assert (result.outcome, words in result.detail) == (outcome, True), result.detail


def tell_bounds(_arguments: Any, emit: Any) -> None:
    """Entry of a child: what the system says of its CPUs."""
    emit("bounds", sorted(os.sched_getaffinity(0)))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process")
def test_cpus_are_those_asked_for() -> None:
    own = sorted(os.sched_getaffinity(0))
    for limits, bounds in ((Limits(cpus=(own[-1],)), own[-1:]), (Limits(), own)):
        result = run_child("tests.unit.measure.test_child:tell_bounds", {}, limits=limits)
        assert (result.outcome, result.events[0]) == ("ok", ("bounds", bounds)), result.detail


def test_samples_taken_before_a_crash_are_kept(tmp_path: Path) -> None:
    # Cold load: 64 tokens. Warm-up of the prefill: 64 more. The crash comes in the first counted prefill.
    result = run_fake(tmp_path, "segfault", Limits(wall_s=60), after=140)

    labels = [data["label"] for name, data in result.events if name == "sample"]
    assert result.outcome == "crashed"
    assert labels[:3] == ["load @ cold", "ttft64 @ cold", "load"]


def test_a_hanging_child_is_ended_and_says_where_it_hung(tmp_path: Path) -> None:
    result = run_fake(tmp_path, "hang", Limits(wall_s=1.5))

    assert result.outcome == "timed out"
    assert "_prefill" in result.detail or "_cold" in result.detail
    assert result.duration_s < 20


def test_a_system_without_that_signal_ends_it_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen.send_signal

    def unsupported(process: Any, number: int) -> None:  # as CPython on Windows
        if number == signal.SIGABRT:
            raise ValueError(f"Unsupported signal: {number}")
        real(process, number)

    monkeypatch.setattr("subprocess.Popen.send_signal", unsupported)
    result = run_fake(tmp_path, "hang", Limits(wall_s=0.5))
    assert result.outcome == "timed out"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
@pytest.mark.parametrize("use_group", [True, False])
def test_a_memory_limit_holds_with_and_without_a_control_group(tmp_path: Path, use_group: bool) -> None:
    limits = Limits(wall_s=60, memory_bytes=300 << 20, use_group=use_group)

    result = run_fake(tmp_path, "hog", limits)

    assert result.outcome == "out of memory"
    assert "300 MiB" in result.detail or "314572800" in result.detail
    assert result.memory.peak_rss_bytes < 1200 << 20  # the watchdog looks every 20 to 100 ms


def test_interruption_is_an_outcome_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "hang.json"
    path.write_text('{"fault": "hang"}')
    job = GenerateJob(path=str(path), scenario=SCENARIO, runtime="fake")

    told: list[str] = []

    def stop(name: str, _data: Any) -> None:
        told.append(name)
        if len(told) == 1:
            raise KeyboardInterrupt

    result = run_child(TARGET, job, on_event=stop)

    assert result.outcome == "interrupted"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_killed_parent_leaves_no_orphan(tmp_path: Path) -> None:
    model = tmp_path / "hang.json"
    model.write_text('{"fault": "hang"}')
    told = tmp_path / "child"
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from harness.core.scenario import Scenario\n"
        "from harness.measure.child import run_child\n"
        "from harness.measure.protocol import GenerateJob\n"
        f"job = GenerateJob(path={str(model)!r}, scenario=Scenario(), runtime='fake')\n"
        f"run_child({TARGET!r}, job, on_event=lambda name, data: Path({str(told)!r}).write_text(name))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        until = time.monotonic() + 60
        while not told.exists() and time.monotonic() < until:
            time.sleep(0.02)
        children = _children_of(parent.pid)
        assert len(children) == 1
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    until = time.monotonic() + 30
    while any(_is_running(pid) for pid in children) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(_is_running(pid) for pid in children)


def _children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("status", "known", "outcome"),
    [
        pytest.param(-9, {"killed_for_memory": True}, "out of memory", id="kernel killed it"),
        pytest.param(-9, {}, "crashed", id="somebody killed it"),
        pytest.param(-6, {"log": ("x.cpp:3: GGML_ASSERT(a) failed",)}, "aborted", id="assertion"),
        pytest.param(-6, {"log": ("terminate: std::bad_alloc",)}, "out of memory", id="allocation failed"),
        pytest.param(-7, {}, "crashed", id="bus error"),
        pytest.param(-9, {"stopped_for": "timed out"}, "timed out", id="we killed it"),
        pytest.param(0, {"events": []}, "failed", id="left without a word"),
        pytest.param(4, {"events": [("error", {"outcome": "refused", "detail": "no"})]}, "refused", id="told"),
        pytest.param(
            4,
            {
                "events": [("error", {"outcome": "refused", "detail": "no"})],
                "log": ("ggml: failed to allocate buffer of size 1",),
            },
            "out of memory",
            id="refused for want of memory",
        ),
    ],
)
def test_endings(status: int, known: dict[str, Any], outcome: str) -> None:
    given: dict[str, Any] = {"stopped_for": None, "killed_for_memory": False, "events": [], "log": ()} | known

    assert classify(status, limits=Limits(), **given)[0] == outcome
