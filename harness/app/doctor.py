"""What works on this machine, and what to do where something does not."""

import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from harness import plugins
from harness.app.this_machine import this_machine
from harness.catalog.engines import all_here
from harness.catalog.paths import cache_dir, home_dir
from harness.domain.base import Frozen
from harness.errors import HarnessError, installing
from harness.measure import machine, sensors
from harness.measure.cgroup import LimitGroup
from harness.measure.engine_devices import engine_devices
from harness.measure.gpu_sensors import gpu_readings
from harness.measure.pipeline import open_history
from harness.runtimes._threads import default_thread_count
from harness.runtimes.llamacpp.devices import pull_command
from harness.runtimes.llamacpp.library import installed
from harness.units import GIB, counted, format_bytes

State = Literal["ok", "missing", "limited", "broken"]
"""Limited: what runs here is slower or smaller for it. Missing: there could be more; nothing that runs needs
it."""
Kind = Literal["engine", "api", "folder", "machine", "measuring"]


class Finding(Frozen, kw_only=False):
    """One thing looked at.

    Attributes:
        detail: What was found, in full.
        brief: The same in a few words, for the first screen: where somebody can do something about it.
    """

    kind: Kind
    name: str
    state: State
    detail: str
    brief: str = ""


Found = Iterator[Finding]


def examine() -> list[Finding]:
    """Everything, in the order of importance."""
    findings: list[Finding] = []
    parts: dict[Callable[[], Found], Kind] = {
        _next_step: "engine",
        _folders: "folder",
        _runtimes: "engine",
        _apis: "api",
        _machine: "machine",
        _measuring: "measuring",
    }
    for part, kind in parts.items():
        try:
            findings += part()
        except HarnessError as error:  # a folder that cannot be made is what is to be told
            name = part.__name__.strip("_")
            findings.append(Finding(kind, name, "broken", str(error), str(error)))
    return findings


def _next_step() -> Found:
    """The one command that leads on where there is no engine yet."""
    if installed() or find_spec("ik_llama_cpp") is not None:
        return
    command = "edge-harness engines pull"
    detail = f"{command} (a release of llama.cpp for this machine, no compiler), or {installing('xllamacpp')}"
    if not all_here():
        command = installing("llama")
        detail = f"{command} (compiles: needs a C++17 compiler and CMake 3.21, takes some minutes)"
    yield Finding("engine", "next: an engine", "missing", detail, command)
    others = f"{installing('onnx')} runs ONNX models; fit, matrix and report need no engine"
    yield Finding("engine", "other engines", "ok", others)


def machine_apis() -> list[str]:
    """Apis that the drivers of this machine offer; what an engine can use of them is another question."""
    places = ("/usr/share", "/etc", "/usr/local/share")
    icd = any(any(Path(folder).glob("vulkan/icd.d/*.json")) for folder in places)
    there = {
        "cpu": True,
        "metal": sys.platform == "darwin",
        "cuda": Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi"),
        "rocm": Path("/dev/kfd").exists(),
        "vulkan": find_library("vulkan-1") if sys.platform == "win32" else find_library("vulkan") and icd,
        "opencl": find_library("OpenCL") and any(Path("/etc/OpenCL/vendors").glob("*.icd")),
    }
    return [api for api, seen in there.items() if seen]


def has_gpu() -> bool:
    """Whether a GPU is there to be driven; on Linux by its device files, elsewhere there always is one."""
    if not sys.platform.startswith("linux"):
        return True
    files = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
    return any(Path(file).exists() for file in files) or any(Path("/dev/dri").glob("renderD*"))


def _folders() -> Found:
    for name, folder in (("cache", cache_dir()), ("home", home_dir())):
        free = shutil.disk_usage(folder).free
        state: State = "ok"
        brief = ""
        detail = f"{folder}, {format_bytes(free)} free"
        if not os.access(folder, os.W_OK):
            state = "broken"
            brief = f"{folder} cannot be written: set EDGE_HARNESS_{name.upper()} to another folder"
            detail += f"; not writable: set EDGE_HARNESS_{name.upper()} to another folder"
        elif free < GIB:
            state = "limited"
            brief = f"{format_bytes(free)} are free in {folder}"
        yield Finding("folder", f"{name} folder", state, detail, brief)
    yield _history()


def _history() -> Finding:
    history = open_history()
    if not history.path.exists():
        return Finding("folder", "history", "ok", "no run yet")
    try:
        faults = "; ".join(history.faults()[:3])
        runs = f"{counted(history.count(), 'run')}, none damaged"
    except HarnessError as error:
        faults = f"{error} Move it away to start a new one"
    if faults:
        return Finding("folder", "history", "broken", faults, f"the history: {faults}")
    return Finding("folder", "history", "ok", runs)


def _runtimes() -> Found:
    for name in plugins.names("harness.runtimes"):
        state: State = "ok"
        reason = ""
        brief = ""
        try:
            reason = plugins.load("harness.runtimes", name, "RUNTIME").missing()
        except (ImportError, AttributeError) as error:
            state = "broken"
            reason = repr(error)
            brief = f"the runtime {name} cannot be loaded: {reason}"
        if reason and state == "ok":
            state = "missing"
        detail = reason or "usable"
        yield Finding("engine", f"runtime {name}", state, detail, brief)


def _apis() -> Found:
    """What the engine was built with and sees, and the command that builds another api into it."""
    if not installed():
        yield Finding("api", "engine's apis", "ok", ", ".join(machine_apis()))
        return
    try:
        devices = engine_devices()
    except HarnessError as error:
        yield Finding("api", "apis of llama.cpp", "broken", str(error), str(error))
        return
    for device in devices:
        memory = f", {format_bytes(device.free_bytes)} of {format_bytes(device.total_bytes)} free"
        if not device.total_bytes:
            memory = ""
        played = ""
        if device.is_software:
            played = ", played by the CPU"
        detail = f"{device.api}: {device.description}{memory}{played}"
        yield Finding("api", f"device {device.name}", "ok", detail)
    seen = {device.api for device in devices}
    unused = [api for api in machine_apis() if api not in seen]
    if devices and unused:
        lacking = f"the engine was built without {', '.join(unused)}"
        commands = ", or ".join(filter(None, map(pull_command, unused)))
        fetch = ""
        if commands:
            fetch = f"; one with it: {commands}"
        yield Finding(
            "api",
            "engine's apis",
            "limited" if has_gpu() else "ok",
            f"{lacking}{fetch}",
            f"the GPU is not used: {lacking}",
        )


def _machine() -> Found:
    cpu = machine.cpu()
    memory = machine.memory()
    sets = " ".join(cpu.isa or ()) or "no vector sets that matter"
    if cpu.isa is None:
        sets = "instruction sets not told"
    parts = [cpu.model, f"{default_thread_count()} threads used"]
    if len(cpu.cores.kinds) > 1:
        kinds = " + ".join(f"{len(kind.cpus)} of speed {kind.speed:.2f}" for kind in cpu.cores.kinds)
        parts.append(f"cores of unlike kinds: {kinds}")
    if memory.nodes > 1:
        parts.append(f"{memory.nodes} NUMA nodes")
    short = f"{cpu.model} ({counted(default_thread_count(), 'thread')})"
    yield Finding("machine", "processor", "ok", ", ".join([*parts, sets]), short)
    free = f"{format_bytes(memory.total_bytes)}, {format_bytes(memory.available_bytes)} available"
    if memory.limit_bytes < memory.total_bytes:
        limit = format_bytes(memory.limit_bytes)
        yield Finding(
            "machine",
            "memory",
            "limited",
            f"{free}, limited to {limit} by a control group",
            f"programs may use {limit} of {format_bytes(memory.total_bytes)} of memory (a control group's limit)",
        )
    else:
        yield Finding("machine", "memory", "ok", f"{free}, no control group limit")
    profile = this_machine()
    if profile:
        yield Finding("machine", "machine's profile", "ok", profile.title)
    else:
        detail = "none yet: edge-harness devices probe (check makes one too)"
        brief = "not measured yet: edge-harness devices probe"
        yield Finding("machine", "machine's profile", "missing", detail, brief)


def _measuring() -> Found:
    if Path("/proc/pressure/cpu").exists():
        seen = "CPU, memory and I/O stalls are seen"
        yield Finding("measuring", "disturbance (PSI)", "ok", seen)
    else:
        unseen = "this system does not tell stalls: load of others and faults are seen, stalls are not"
        yield Finding("measuring", "disturbance (PSI)", "missing", unseen)
    if group := LimitGroup.make(None):
        group.remove()
        limits = f"control group, version {group.version}"
        yield Finding("measuring", "memory limits", "ok", limits)
    else:
        instead = "a watchdog stands in"
        detail = f"no right to make control groups: {instead}"
        brief = "less exact without the right to make control groups"
        yield Finding("measuring", "memory limits", "missing", detail, brief)
    gpus = "; ".join(f"{gpu.name} ({gpu.source})" for gpu in gpu_readings())
    advice = f"none; {installing('nvidia')} reads an NVIDIA card's"
    if gpus or not has_gpu():
        yield Finding("measuring", "GPU counters", "ok", gpus or "no GPU was found")
    else:
        yield Finding("measuring", "GPU counters", "missing", advice, advice)
    kinds, notes = sensors.report()
    is_known = bool(kinds["energy counter"] or kinds["battery"])
    yield Finding(
        "measuring",
        "energy and heat",
        "ok" if is_known else "missing",
        "; ".join([*itertools.chain(*kinds.values()), *notes]),
        "" if is_known else "no sensor of energy is seen here",
    )
