"""What works on this machine, and what to do where something does not."""

import itertools
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from harness import plugins
from harness.app.this_machine import this_machine
from harness.catalog.paths import cache_dir, home_dir
from harness.domain.base import Frozen
from harness.errors import HarnessError
from harness.measure import machine, sensors
from harness.measure.cgroup import LimitGroup
from harness.measure.engine_devices import engine_devices
from harness.measure.gpu_sensors import gpu_readings
from harness.measure.pipeline import open_history
from harness.runtimes._threads import default_thread_count
from harness.runtimes.llamacpp.devices import build_command
from harness.runtimes.llamacpp.library import installed
from harness.units import GIB, counted, format_bytes

State = Literal["ok", "missing", "limited", "broken"]

_WHEELS: Final = {("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("win32", "amd64")}
"""Systems that xllamacpp has wheels for."""
_COMPILERS: Final = ("c++", "g++", "clang++", "cl")


class Finding(Frozen):
    """One thing looked at."""

    name: str
    state: State
    detail: str


Found = Iterator[tuple[str, State, str]]
"""Name, state and detail of findings."""


def examine() -> list[Finding]:
    """Everything, in the order of importance."""
    parts = (_next_step, _folders, _runtimes, _apis, _machine, _measuring)
    findings = []
    for part in parts:
        try:
            findings += [Finding(name=name, state=state, detail=detail) for name, state, detail in part()]
        except HarnessError as error:  # a folder that cannot be made is what is to be told
            findings.append(Finding(name=part.__name__.strip("_"), state="broken", detail=str(error)))
    return findings


def _next_step() -> Found:
    """The one command that leads on where there is no engine yet; a compile that cannot end well is not begun."""
    if installed() or find_spec("ik_llama_cpp") is not None:
        return
    compiled = "pip install 'edge-harness[llama]' (compiles for about 15 minutes divided by the number of cores)"
    if not any(map(shutil.which, _COMPILERS)):
        compiled = f"install a C++17 compiler (GCC 11, clang 14 or MSVC 2022) and CMake 3.21; then {compiled}"
    if (sys.platform, platform.machine().lower()) in _WHEELS:
        quick = "pip install 'edge-harness[xllamacpp]' (built already: no compiler, half a minute)"
        yield "next: an engine", "missing", f"{quick}; compiled for this machine it is faster: {compiled}"
    else:
        yield "next: an engine", "missing", compiled
    yield (
        "other engines",
        "ok",
        "pip install 'edge-harness[onnx]' runs ONNX models; fit, matrix and report need no engine",
    )


def machine_apis() -> list[str]:
    """Apis that the drivers of this machine offer; what an engine can use of them is another question."""
    icd = [f for folder in ("/usr/share", "/etc", "/usr/local/share") for f in Path(folder).glob("vulkan/icd.d/*.json")]
    there = {
        "cpu": True,
        "metal": sys.platform == "darwin",
        "cuda": Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi"),
        "rocm": Path("/dev/kfd").exists(),
        "vulkan": find_library("vulkan-1") if sys.platform == "win32" else find_library("vulkan") and icd,
        "opencl": find_library("OpenCL") and any(Path("/etc/OpenCL/vendors").glob("*.icd")),
    }
    return [api for api, seen in there.items() if seen]


def _folders() -> Found:
    for name, folder in (("cache", cache_dir()), ("home", home_dir())):
        writable = os.access(folder, os.W_OK)
        free = shutil.disk_usage(folder).free
        advice = "" if writable else f"; not writable: set EDGE_HARNESS_{name.upper()} to another folder"
        state: State = "broken" if not writable else "limited" if free < GIB else "ok"
        yield f"{name} folder", state, f"{folder}, {format_bytes(free)} free{advice}"
    history = open_history()
    if not history.path.exists():
        yield "history", "ok", "no run yet"
        return
    try:
        faults = history.faults()
        detail = "; ".join(faults[:3]) if faults else f"{counted(history.count(), 'run')}, none damaged"
        yield "history", "broken" if faults else "ok", detail
    except HarnessError as error:
        yield "history", "broken", f"{error} Move it away to start a new one"


def _runtimes() -> Found:
    for name in plugins.names("harness.runtimes"):
        try:
            reason = plugins.load("harness.runtimes", name, "RUNTIME").missing()
        except (ImportError, AttributeError) as error:
            yield f"runtime {name}", "broken", repr(error)
            continue
        yield f"runtime {name}", "missing" if reason else "ok", reason or "usable"


def _apis() -> Found:
    """What the engine was built with and sees, and the command that builds another api into it."""
    if not installed():
        yield "engine's apis", "ok", ", ".join(machine_apis())
        return
    try:
        devices = engine_devices()
    except HarnessError as error:
        yield "apis of llama.cpp", "broken", str(error)
        return
    if not devices:
        return
    for device in devices:
        memory = f", {format_bytes(device.free_bytes)} of {format_bytes(device.total_bytes)} free"
        played = ", played by the CPU" if device.is_software else ""
        yield f"device {device.name}", "ok", f"{device.api}: {device.description}{memory}{played}"
    seen = {device.api for device in devices}
    if unused := [api for api in machine_apis() if api not in seen]:
        build = ", or ".join(filter(None, map(build_command, unused)))
        without = f"the engine was built without {', '.join(unused)}"
        yield "engine's apis", "limited", f"{without}; to build it in: {build}"


def _machine() -> Found:
    cpu, memory = machine.cpu(), machine.memory()
    sets = "instruction sets not told" if cpu.isa is None else " ".join(cpu.isa) or "no vector sets that matter"
    kinds = " + ".join(f"{len(kind.cpus)} of speed {kind.speed:.2f}" for kind in cpu.cores.kinds)
    told = f", cores of unlike kinds: {kinds}" if len(cpu.cores.kinds) > 1 else ""
    nodes = f", {memory.nodes} NUMA nodes" if memory.nodes > 1 else ""
    yield "processor", "ok", f"{cpu.model}, {default_thread_count()} threads used{told}{nodes}, {sets}"
    bound = memory.limit_bytes < memory.total_bytes
    limit = f"limited to {format_bytes(memory.limit_bytes)} by a control group" if bound else "no control group limit"
    free = f"{format_bytes(memory.total_bytes)}, {format_bytes(memory.available_bytes)} available"
    yield "memory", "limited" if bound else "ok", f"{free}, {limit}"
    profile = this_machine()
    title = profile.title if profile else "none yet: edge-harness devices probe (check makes one too)"
    yield "machine's profile", "ok" if profile else "missing", title


def _measuring() -> Found:
    if Path("/proc/pressure/cpu").exists():
        yield "disturbance (PSI)", "ok", "CPU, memory and I/O stalls are seen"
    else:
        unseen = "this system does not tell stalls: load of others and faults are seen, stalls are not"
        yield "disturbance (PSI)", "limited", unseen
    if group := LimitGroup.make(None):
        group.remove()
        yield "memory limits", "ok", f"control group, version {group.version}"
    else:
        instead = "a limit on private memory and a watchdog stand in"
        yield "memory limits", "limited", f"no right to make control groups: {instead}"
    gpus = "; ".join(gpu.describe() for gpu in gpu_readings())
    none = "none; pip install 'edge-harness[nvidia]' reads an NVIDIA card's"
    yield "GPU counters", "ok" if gpus else "limited", gpus or none
    kinds, notes = sensors.report()
    state: State = "ok" if kinds["energy counter"] or kinds["battery"] else "limited"
    yield "energy and heat", state, "; ".join([*itertools.chain(*kinds.values()), *notes])
