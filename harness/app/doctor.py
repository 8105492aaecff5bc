"""What works on this machine, and what to do where something does not."""

import os
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal

from harness import plugins
from harness.app.this_machine import this_machine
from harness.catalog.paths import cache_dir, home_dir
from harness.domain.base import Frozen
from harness.errors import HarnessError
from harness.measure import machine, sensors
from harness.measure.engine_devices import engine_devices
from harness.measure.gpu_sensors import absence, gpu_readings
from harness.measure.limit_group import LimitGroup
from harness.measure.pipeline import open_history
from harness.units import GIB, format_bytes

State = Literal["ok", "missing", "limited", "broken"]

_EXTRAS: Final = {
    "llama-cpp-python": "llama",
    "huggingface-hub": "hub",
    "onnxruntime": "onnx",
    "onnxruntime-genai": "genai",
    "onnx-ir": "quantize",
    "altair": "report",
    "distributed": "fleet",
    "asyncssh": "fleet",
}


class Finding(Frozen, frozen=True, kw_only=True):
    """One thing looked at."""

    name: str
    state: State
    detail: str


def examine() -> list[Finding]:
    """Everything, in the order of importance."""
    return [*_folders(), *_runtimes(), *_apis(), *_packages(), *_machine(), *_measuring()]


def _folders() -> Iterator[Finding]:
    for name, folder in (("cache", cache_dir()), ("home", home_dir())):
        writable = os.access(folder, os.W_OK)
        free = shutil.disk_usage(folder).free
        advice = "" if writable else f"; not writable: set EDGE_HARNESS_{name.upper()} to another folder"
        state: State = "broken" if not writable else "limited" if free < GIB else "ok"
        yield Finding(name=f"{name} folder", state=state, detail=f"{folder}, {format_bytes(free)} free{advice}")
    history = open_history()
    if not history.path.exists():
        yield Finding(name="history", state="ok", detail="no run yet")
        return
    try:
        faults = history.faults()
        detail = "; ".join(faults[:3]) if faults else f"{history.count()} runs, whole"
        yield Finding(name="history", state="broken" if faults else "ok", detail=detail)
    except HarnessError as error:
        yield Finding(name="history", state="broken", detail=f"{error} Move it away to start a new one")


def _runtimes() -> Iterator[Finding]:
    for name in plugins.names("harness.runtimes"):
        try:
            reason = plugins.load("harness.runtimes", name, "RUNTIME").missing()
        except (ImportError, AttributeError) as error:
            yield Finding(name=f"runtime {name}", state="broken", detail=repr(error))
            continue
        yield Finding(name=f"runtime {name}", state="missing" if reason else "ok", detail=reason or "usable")


def _apis() -> Iterator[Finding]:
    """What the engine was built with and sees, and the command that builds another api into it."""
    from harness.runtimes.llamacpp.devices import BUILD_ARGUMENTS

    try:
        devices = engine_devices()
    except HarnessError as error:
        yield Finding(name="apis of llama.cpp", state="broken", detail=str(error))
        return
    if not devices:
        return
    for device in devices:
        memory = f", {format_bytes(device.free_bytes)} of {format_bytes(device.total_bytes)} free"
        detail = f"{device.api}: {device.description}{memory}" + (", played by the CPU" if device.is_software else "")
        yield Finding(name=f"device {device.name}", state="ok", detail=detail)
    if not any(device.is_gpu for device in devices):
        build = " | ".join(f"{api}: {arguments}" for api, arguments in BUILD_ARGUMENTS.items())
        command = 'CMAKE_ARGS="..." pip install --force-reinstall --no-binary llama-cpp-python llama-cpp-python'
        yield Finding(
            name="apis of llama.cpp", state="limited", detail=f"no GPU; to build one in: {command} with {build}"
        )


def _packages() -> Iterator[Finding]:
    for package, extra in _EXTRAS.items():
        try:
            yield Finding(name=package, state="ok", detail=version(package))
        except PackageNotFoundError:
            yield Finding(name=package, state="missing", detail=f"optional: pip install 'edge-harness[{extra}]'")


def _machine() -> Iterator[Finding]:
    cpu, memory = machine.cpu(), machine.memory()
    yield Finding(
        name="processor", state="ok", detail=f"{cpu.model}, {cpu.thread_count} threads used, {' '.join(cpu.isa)}"
    )
    bound = memory.limit_bytes < memory.total_bytes
    limit = f"limited to {format_bytes(memory.limit_bytes)} by a control group" if bound else "no control group limit"
    yield Finding(
        name="memory",
        state="limited" if bound else "ok",
        detail=f"{format_bytes(memory.total_bytes)}, {format_bytes(memory.available_bytes)} available, {limit}",
    )
    profile = this_machine()
    yield Finding(
        name="profile of this machine",
        state="ok" if profile else "missing",
        detail=profile.title if profile else "none yet: edge-harness devices probe (check makes one too)",
    )


def _measuring() -> Iterator[Finding]:
    pressure = Path("/proc/pressure/cpu").exists()
    yield Finding(
        name="disturbance (PSI)",
        state="ok" if pressure else "limited",
        detail="CPU, memory and I/O stalls are seen"
        if pressure
        else "this system does not tell stalls: load of others and faults are seen, stalls are not",
    )
    group = LimitGroup.make(None)
    if group:
        group.remove()
    yield Finding(
        name="memory limits",
        state="ok" if group else "limited",
        detail=f"control group, version {group.version}"
        if group
        else "no right to make control groups: a limit on private memory and a watchdog stand in",
    )
    gpus = gpu_readings()
    missing = absence(gpus)
    told = [f"{gpu.name} ({gpu.source})" for gpu in gpus]
    yield Finding(
        name="GPU counters", state="limited" if missing else "ok", detail="; ".join([*told, missing]).strip("; ")
    )
    found = sensors.report()
    have = [*found.energy_counters, *found.batteries, *(name for name, _ in found.thermal_zones)]
    yield Finding(
        name="energy and heat",
        state="ok" if found.energy_counters or found.batteries else "limited",
        detail="; ".join([*have, *found.notes]),
    )
