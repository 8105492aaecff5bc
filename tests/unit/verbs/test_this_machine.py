"""A profile knows what disturbed it, and is taken again when the machine is quiet."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from bench.tiny_gguf import synthesize_tiny
from harness.answer.case import Case
from harness.answer.resolve import resolve_device, resolve_model
from harness.answer.ways import predict, timing_notes
from harness.core.device import Calibration, Device, Sourced, TypeCost
from harness.core.errors import CouldNotRunError, EngineError
from harness.core.scenario import Scenario
from harness.hardware.devices import dump_device, load_device
from harness.measure import machine
from harness.measure.lock import lock_path, machine_lock
from harness.measure.pipeline import Listener
from harness.measure.probe.machine_profile import own_profile, save_profile
from harness.runtimes.llamacpp.loaded_devices import GgmlDevice
from harness.speed.estimate import DOUBT_RATIO
from harness.verbs import this_machine
from harness.verbs.this_machine import stream_outlook

pytestmark = pytest.mark.alone

QUIET = load_device("laptop-ddr5")
BUSY = "other processes used 50% of all CPU time: stop them"


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[Device]:
    """Profiles that were saved; the probe itself is another test's subject."""
    saved: list[Device] = []
    monkeypatch.setattr(this_machine, "probe_machine", lambda **_: QUIET)
    monkeypatch.setattr(this_machine, "save_profile", saved.append)
    monkeypatch.setattr(this_machine, "own_profile", lambda: saved[-1] if saved else None)
    return saved


@pytest.mark.parametrize(
    ("states", "doubts"),
    [
        # What the machine does before and after each probe, and when a kept profile is looked at.
        ([(), ()], [()]),
        ([(BUSY,), ()], [(BUSY,)]),
        ([(), (BUSY,), (BUSY,)], [(BUSY,)]),  # still busy at the second look: kept as it is
        ([(BUSY,), (), (), (), ()], [(BUSY,), ()]),  # quiet at the second look: probed again, and healed
    ],
)
def test_a_doubtful_profile_heals(
    states: list[tuple[str, ...]],
    doubts: list[tuple[str, ...]],
    probes: list[Device],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = iter(states)
    monkeypatch.setattr(this_machine, "disturbance", lambda: next(seen))
    said: list[str] = []
    for _ in range(2 if len(states) > 2 else 1):
        this_machine.probed(set(), Scenario(), heard=Listener(said.append))
    assert [p.doubts for p in probes] == doubts
    assert any("in doubt" in line for line in said) == any(doubts)


def test_a_profile_belongs_to_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was probed in a container, or on another machine that shares the home, is not this machine's."""
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    rough = resolve_device("this")
    assert rough.machine == machine.fingerprint().fingerprint and rough.doubts
    assert rough.engine().core_count == machine.cpu().physical_core_count
    assert own_profile() is None
    save_profile(replace(rough, doubts=()))
    assert own_profile() == replace(rough, doubts=())
    assert resolve_device("this").doubts == ()
    save_profile(replace(rough, doubts=(), machine="another one"))
    assert own_profile() is None
    assert resolve_device("this").doubts
    (tmp_path / "devices" / "this-machine.toml").write_text("name = 1")
    with pytest.warns(UserWarning, match="skipped .*this-machine.toml"):  # of an older form: taken anew
        assert own_profile() is None


@pytest.mark.parametrize(("now", "spread"), [(10e9, 0.0), (8e9, math.log(10 / 8)), (12.5e9, math.log(12.5 / 10))])
def test_drift_is_how_far_the_memory_is_from_the_probe(now: float, spread: float, monkeypatch: pytest.MonkeyPatch):
    figure = Sourced(value=10e9, source="", confidence="measured")
    device = replace(QUIET, pools=(replace(QUIET.pool("ram"), measured_read_bytes_per_s=figure),))
    monkeypatch.setattr(this_machine, "read_bandwidth", lambda *_, **__: now)
    assert this_machine.drift_ratio(device) == pytest.approx(spread)
    timed = tuple(replace(costs(api), spread_ratio=0.1) for api in ("cpu", "vulkan"))
    mine = replace(device, name="this-machine", calibrations=timed)
    wider = [c.spread_ratio for c in this_machine.drifted(mine).calibrations]
    assert wider == [pytest.approx(math.hypot(0.1, spread)), 0.1]  # a card has a memory of its own
    assert this_machine.drifted(replace(mine, name="another")).calibrations == mine.calibrations


@pytest.mark.parametrize(("state", "limit_s"), [((), 400.0), ((BUSY,), 100.0)])
def test_a_busy_machine_is_not_timed_for_long(
    state: tuple[str, ...], limit_s: float, probes: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def timed(*_: object, limit_s: float, **__: object) -> None:
        asked.append(limit_s)
        raise EngineError("timed out")

    monkeypatch.setattr(this_machine, "disturbance", lambda: state)
    monkeypatch.setattr(this_machine, "calibrate", timed)
    said: list[str] = []
    device = this_machine.probed({"Q4_0"}, Scenario(), heard=Listener(said.append), limit_s=400.0)
    assert asked == [limit_s]
    assert not device.calibrations and "could not be timed: timed out" in said[-1]


def costs(api: str) -> Calibration:
    return Calibration(
        api=api, engine_version="e", thread_count=1, token_overhead_s=0.0, layer_overhead_s=0.0,
        kv_read_bytes_per_s=1e10, attention_flops_per_s=1e10,
        types=(TypeCost(type_name="Q4_0", batch_seconds_per_byte=((1, 1e-10), (512, 1e-10))),),
    )  # fmt: skip


def test_a_gpu_that_cannot_be_timed_takes_no_other_costs_with_it(
    probes: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    probes.append(QUIET)

    def timed(*_: object, api: str = "cpu", **__: object) -> Calibration:
        if api == "vulkan":
            raise EngineError("other programs disturbed 70% of the benches each time")
        return costs(api)

    monkeypatch.setattr(this_machine, "calibrate", timed)
    gpus = {
        api: GgmlDevice(f"{api}0", f"A card of {api}", "gpu", api, 7 * 2**30, 8 * 2**30, 1)
        for api in ("vulkan", "cuda")
    }
    said: list[str] = []
    device = this_machine.probed({"Q4_0"}, Scenario(), heard=Listener(said.append), gpus=gpus)
    assert {c.api for c in device.calibrations} == {"cpu", "cuda"}
    (line,) = [line for line in said if "vulkan" in line]
    assert "A card of vulkan" in line and "disturbed 70%" in line


def test_what_is_timed_for_a_profile_begins_when_the_machine_is_free(
    probes: list[Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not while another run is waited for: the time that is told would run out before it began."""
    monkeypatch.setattr(this_machine, "disturbance", tuple)
    held: dict[str, bool] = {}

    class Heard(Listener):
        def begin(self, title: str, step_count: int = 0, within_s: float = 0.0) -> None:
            held[title] = is_held()

    def timed(*_: object, heard: Listener, **__: object) -> Calibration:
        heard.begin("timing the engine")
        return costs("cpu")

    monkeypatch.setattr(this_machine, "calibrate", timed)
    this_machine.probed({"Q4_0"}, Scenario(), heard=Heard())
    assert held == {"probing this machine": True, "timing the engine": True}
    assert not is_held()


def is_held() -> bool:
    """Whether another run would have to wait."""

    def attempt() -> bool:
        try:
            with machine_lock(lock_path(), timeout_s=0):
                return False
        except CouldNotRunError:
            return True

    with ThreadPoolExecutor(1) as pool:  # this thread would not wait for itself
        return pool.submit(attempt).result()


def test_the_storage_of_a_model_to_be_streamed_is_looked_at_with_the_machine_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = synthesize_tiny(tmp_path / "tiny.gguf", "Q8_0")
    looks: list[bool] = []

    def look(_path: Path, _size_bytes: int, *, computing: bool) -> list[float]:
        looks.append(is_held())
        return [1e9, 2e9] if computing else [3e9]

    said: list[str] = []
    monkeypatch.setattr(this_machine, "read_rates", look)
    monkeypatch.setattr(this_machine, "probed", lambda *_, **__: QUIET)
    outlook = stream_outlook(path, 4 << 30, Scenario(context_tokens=256), heard=Listener(said.append))
    assert outlook is not None and looks == [True, True]
    assert said == ["the model's disk gives 3.00 to 3.00 GB/s, and 1.00 to 2.00 GB/s beside computing"]
    assert not is_held()


def test_real_counters_see_a_busy_machine() -> None:
    import os
    import shlex
    import signal
    import subprocess
    import sys

    # Not our children, whose time would count as ours: the shell that starts one ends at once.
    spin = f"{shlex.quote(sys.executable)} -c 'while True: pass' > /dev/null 2>&1 & echo $!"
    others = [
        int(subprocess.run(["sh", "-c", spin], capture_output=True, text=True, check=True).stdout)
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        assert any(this_machine.disturbance() for _ in range(5))
    finally:
        for pid in others:
            os.kill(pid, signal.SIGKILL)


def test_doubt_is_kept_in_the_file_said_and_widens(tmp_path: Path) -> None:
    doubtful = replace(QUIET, name="mine", doubts=(BUSY,))
    path = tmp_path / "mine.toml"
    path.write_text(dump_device(doubtful))
    read = load_device(str(path))
    assert read.doubts == (BUSY,)
    model = resolve_model("smollm2-135m", "Q4_0")
    sure, unsure = (predict(Case.of(model, device, Scenario())).speed.decode_tokens_per_s for device in (QUIET, read))
    assert unsure.mid == sure.mid
    assert unsure.high == pytest.approx(sure.high * DOUBT_RATIO)
    (note,) = timing_notes(Case.of(model, read, Scenario()))
    assert BUSY in note
