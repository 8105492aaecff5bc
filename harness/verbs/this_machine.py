"""The profile of the machine that this runs on: what was probed of it, and what its engine costs."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from harness.answer.case import Case, within_budget
from harness.answer.resolve import THIS_MACHINE, resolve_device, resolve_model, with_costs, with_kept_costs
from harness.answer.ways import in_memory
from harness.core.device import Device, measured
from harness.core.errors import EngineError, InputError, MissingPackageError, RefusedError
from harness.core.scenario import Scenario
from harness.hardware.threads import default_thread_count
from harness.measure import machine
from harness.measure.engine_devices import with_gpu
from harness.measure.lock import alone
from harness.measure.pipeline import Listener
from harness.measure.probe.bandwidth import read_bandwidth
from harness.measure.probe.calibrate import calibrate
from harness.measure.probe.disk import lasting, read_rates
from harness.measure.probe.machine_profile import DEVICE_NAME, own_profile, probe_machine, save_profile
from harness.measure.validity import ValidityProbe
from harness.models.weights import matrix_types
from harness.runtimes.llamacpp.loaded_devices import GgmlDevice
from harness.speed.estimate import closed_loop_tokens_per_s
from harness.speed.streamed import Streamed, streamed_ways

_BUSY_SHARE: Final = 0.25
"""Of the time that an engine's timing may take, on a machine that others use: its timings are hardly to be
believed."""
_PROBE_S: Final = 10.0
"""What a probe takes, told beforehand."""
_DRIFT_BYTES: Final = 256 * 2**20
_LOOK_BYTES: Final = 512 * 2**20
_PASS_TOKENS: Final = 32
"""Most tokens of a pass while weights are streamed."""


def probed(
    types: set[str],
    scenario: Scenario,
    *,
    heard: Listener,
    again: bool = False,
    gpus: Mapping[str, GgmlDevice] | None = None,
    limit_s: float = 1800.0,
    runtime: str = "llamacpp",
) -> Device:
    """Profile of this machine with the runtime's cost of those weight types, none of it from a model to be predicted.

    Taken from what was kept, where it was measured on this machine; measured anew where not, or when asked
    to. An engine that cannot be timed on the CPU within ``limit_s`` (a quarter of it on a machine in doubt)
    leaves the speed of the memory alone, and a GPU is left out: both are said, and there is an answer.
    """
    say = heard.say
    device = None if again else own_profile()
    if device is not None and device.doubts and not disturbance():
        say("probing this machine again: it is quieter than when its profile was taken")
        device = None
    if device is None:
        say("probing this machine, some 10 s (kept for the next time)")
        with alone(say):
            heard.begin("probing this machine", within_s=_PROBE_S)
            before = disturbance()
            device = probe_machine(progress=say)
            doubts = tuple(dict.fromkeys([*before, *disturbance()]))
        device = device.replace(doubts=doubts)
        save_profile(device)
    if device.doubts:
        say(
            f"the profile of this machine is in doubt: {device.doubts[0]}; it is probed again when the machine is quiet"
        )
        limit_s *= _BUSY_SHARE
    if not types:
        return device
    asked: dict[str, Any] = {
        "thread_count": scenario.thread_count,
        "repack": scenario.repack,
        "runtime": runtime,
    }
    asked |= {"fresh": again, "limit_s": limit_s, "working_sets": device.ram.working_sets}
    with alone(say):
        try:
            device = with_costs(device, (calibrate(types, heard=heard, **asked),))
        except (EngineError, MissingPackageError, RefusedError) as error:
            cause = _cause(error)
            say(f"predicted from the speed of the memory alone, since the engine could not be timed: {cause}")
            return device
        for api, gpu in (gpus or {}).items():
            title = f"{gpu.name} ({gpu.description})"
            asked |= {"api": api, "limit_s": 3 * limit_s}
            try:
                device = with_gpu(device, gpu, calibrate(types, heard=heard, title=title, **asked))
            except (EngineError, RefusedError) as error:  # the CPU's costs hold all the same
                say(f"{title} is left out, since it could not be timed: {_cause(error)}")
    if gpus:
        save_profile(device.replace(calibrations=()))
    return device


def drifted(device: Device) -> Device:
    """The profile of this machine with wider intervals on the CPU where its memory drifted since the probe."""
    if device.name != DEVICE_NAME or device.calibration("cpu") is None:
        return device
    ratio = drift_ratio(device)
    wider = (
        c.replace(spread_ratio=math.hypot(c.spread_ratio, ratio * (c.api == "cpu")))
        for c in device.calibrations
    )
    return device.replace(calibrations=tuple(wider))


def drift_ratio(device: Device) -> float:
    """How far the memory is now from the speed that it was probed with, as a share of it."""
    then = device.ram.measured_read_bytes_per_s
    limit = machine.memory().limit_bytes
    now = read_bandwidth(default_thread_count(), min(_DRIFT_BYTES, limit // 8), pass_count=3)
    if then:
        return abs(math.log(now / then.value))
    return 0.0


def disturbance(window_s: float = 0.4) -> tuple[str, ...]:
    """What other programs do to this machine at this moment, in words; empty when it is quiet."""
    probe = ValidityProbe(disk_expected=True)
    probe.start()
    time.sleep(window_s)
    return probe.finish().doubts


def _cause(error: Exception) -> str:
    """Why nothing was timed, without where in the child's code."""
    return str(error).partition(" File ")[0]


def stream_outlook(path: Path, budget_bytes: int, scenario: Scenario, *, heard: Listener) -> list[Streamed]:
    """What streaming a file under a budget will do on this machine, said before it runs.

    From the file's own storage at this moment, the machine's memory and the engine's costs on tiny models;
    Fastest first; empty where the file cannot be predicted. Weights are not repacked while they are streamed. ``heard`` is
    told what is timed first, unless it was kept.
    """
    try:
        plain = scenario.replace(repack=False, ubatch_tokens=_PASS_TOKENS)
        model = resolve_model(str(path))
        device = probed(matrix_types(model.weights), plain, heard=heard)
        # The file may lie elsewhere than the profile looked, and a storage that others share changes by the
        # hour.
        with alone(heard.say):
            looked_bytes = min(path.stat().st_size, _LOOK_BYTES)
            looks = [read_rates(path, looked_bytes, computing=computing) for computing in (False, True)]
        if all(looks):
            told = [f"{min(rates) / 1e9:.2f} to {max(rates) / 1e9:.2f}" for rates in looks]
            heard.say(f"the model's disk gives {told[0]} GB/s, and {told[1]} GB/s beside computing")
            how = "the model's file, four reads at a time"
            waited, busy = (measured(lasting(rates) or 0.0, how) for rates in looks)
            storage = device.storage.replace(sequential_read_bytes_per_s=waited, busy_read_bytes_per_s=busy)
            device = device.replace(storage=storage)
        device = within_budget(device, budget_bytes)
        plain = plain.replace(api=device.api(plain.api))
        now = in_memory(Case(model, device, plain))
        return streamed_ways(model.weights, device, plain, now, limited=True)
    except InputError:
        return []


def throughput_of(model: str) -> Callable[[Scenario], float]:
    """New tokens a second of a closed loop on this machine, whose server runs the model.

    Raises:
        RefusedError: This machine was never probed.
        UnknownNameError: No such model.
    """
    weights, device = resolve_model(model).weights, resolve_device(THIS_MACHINE[0])

    def told(scenario: Scenario) -> float:
        s = scenario.replace(thread_count=default_thread_count())
        return closed_loop_tokens_per_s(weights, with_kept_costs(device, s), s)

    return told
