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

from harness.core import plugins
from harness.core.base import Frozen
from harness.core.errors import EngineError, HarnessError, installing
from harness.core.paths import cache_dir, home_dir
from harness.core.units import GIB, counted, format_bytes
from harness.hardware.threads import default_thread_count
from harness.measure import machine, sensors
from harness.measure.engine_devices import engine_devices
from harness.measure.gpu_sensors import gpu_readings
from harness.measure.pipeline import open_history
from harness.measure.probe.machine_profile import own_profile
from harness.runtimes.llamacpp.builds import all_here
from harness.runtimes.llamacpp.library import installed
from harness.runtimes.llamacpp.loaded_devices import pull_command

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
        _history: "folder",
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
    detail += f"; {installing('onnx')} runs ONNX models; fit, matrix and report need no engine"
    yield Finding("engine", "next: an engine", "missing", detail, command)


def machine_apis() -> list[str]:
    """Apis of a GPU that the drivers of this machine offer; what an engine can use of them is another question."""
    vulkan = find_library("vulkan-1")
    if sys.platform != "win32":
        icds = [
            Path(folder).glob("vulkan/icd.d/*.json") for folder in ("/usr/share", "/etc", "/usr/local/share")
        ]
        vulkan = find_library("vulkan") if any(itertools.chain(*icds)) else None
    there = {
        "metal": sys.platform == "darwin",
        "cuda": Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi"),
        "rocm": Path("/dev/kfd").exists(),
        "vulkan": vulkan,
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
        detail = f"{folder}, {format_bytes(free)} free"
        if not os.access(folder, os.W_OK):
            state = "broken"
            detail = f"{folder} cannot be written: set EDGE_HARNESS_{name.upper()} to another folder"
        elif free < GIB:
            state = "limited"
        yield Finding("folder", f"{name} folder", state, detail, detail)


def _history() -> Found:
    history = open_history()
    if not history.path.exists():
        return
    try:
        faults = "; ".join(history.faults()[:3])
    except HarnessError as error:
        faults = f"{error} Move it away to start a new one"
    if faults:
        yield Finding("folder", "history", "broken", faults, f"the history: {faults}")
    else:
        yield Finding("folder", "history", "ok", f"{counted(history.count(), 'run')}, none damaged")


def _runtimes() -> Found:
    for name in plugins.names("harness.runtimes"):
        state: State = "ok"
        brief = ""
        try:
            reason = plugins.missing_reason(plugins.load("harness.runtimes", name, "RUNTIME"), name)
        except (ImportError, AttributeError, EngineError) as error:
            state = "broken"
            reason = repr(error)
            brief = f"the runtime {name} cannot be loaded: {reason}"
        if reason and state == "ok":
            state = "missing"
        yield Finding("engine", f"runtime {name}", state, reason or "usable", brief)


def _apis() -> Found:
    """What the engine was built with and sees, and the command that builds another api into it."""
    if not installed():
        return
    devices = engine_devices()
    for device in devices:
        memory = ""
        if device.total_bytes:
            memory = f", {format_bytes(device.free_bytes)} of {format_bytes(device.total_bytes)} free"
        played = ", played by the CPU" if device.is_software else ""
        detail = f"{device.api}: {device.description}{memory}{played}"
        yield Finding("api", f"device {device.name}", "ok", detail)
    seen = {device.api for device in devices}
    unused = [api for api in machine_apis() if api not in seen]
    if devices and unused and has_gpu():
        lacking = f"the engine was built without {', '.join(unused)}"
        commands = ", or ".join(filter(None, map(pull_command, unused)))
        detail = f"{lacking}; one with it: {commands}" if commands else lacking
        yield Finding("api", "engine's apis", "limited", detail, f"the GPU is not used: {lacking}")


def _machine() -> Found:
    cpu = machine.cpu()
    memory = machine.memory()
    short = f"{cpu.model} ({counted(default_thread_count(), 'thread')})"
    sets = " ".join(cpu.isa or ()) or "no vector sets that matter, or none told"
    yield Finding("machine", "processor", "ok", f"{short}, {sets}", short)
    total = format_bytes(memory.total_bytes)
    if memory.limit_bytes < memory.total_bytes:
        limit = format_bytes(memory.limit_bytes)
        detail = f"programs may use {limit} of {total} of memory (a control group's limit)"
        yield Finding("machine", "memory", "limited", detail, detail)
    else:
        yield Finding("machine", "memory", "ok", f"{total}, {format_bytes(memory.available_bytes)} available")
    if profile := own_profile():
        yield Finding("machine", "machine's profile", "ok", profile.title)
    else:
        brief = "not measured yet: edge-harness devices probe"
        yield Finding("machine", "machine's profile", "missing", f"{brief} (check makes one too)", brief)


def _measuring() -> Found:
    if has_gpu() and not gpu_readings():
        advice = f"none; {installing('nvidia')} reads an NVIDIA card's"
        yield Finding("measuring", "GPU counters", "missing", advice, advice)
    kinds, notes = sensors.report()
    detail = "; ".join([*itertools.chain(*kinds.values()), *notes])
    if kinds["energy counter"] or kinds["battery"]:
        yield Finding("measuring", "energy and heat", "ok", detail)
    else:
        yield Finding("measuring", "energy and heat", "missing", detail, "no sensor of energy is seen here")
