"""What works on this machine, and what to do where something does not."""

import os
import shutil
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
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

_COMPILERS: Final = ("c++", "g++", "clang++", "cl")
_DNF: Final = "sudo dnf install -y gcc-c++ make cmake"
_APT: Final = "sudo apt-get install -y build-essential cmake"
_COMPILER_COMMANDS: Final = {
    **{
        "debian": _APT,
        "ubuntu": _APT,
        "fedora": _DNF,
        "rhel": _DNF,
        "arch": "sudo pacman -S --needed base-devel cmake",
    },
    **{"suse": "sudo zypper install -y gcc-c++ make cmake", "alpine": "sudo apk add build-base cmake linux-headers"},
    **{"nixos": "nix-shell -p gcc cmake", "termux": "pkg install clang cmake", "darwin": "xcode-select --install"},
    "win32": 'winget install Microsoft.VisualStudio.2022.BuildTools --override "--passive --includeRecommended '
    '--add Microsoft.VisualStudio.Workload.VCTools"',
}
"""By ``sys.platform``, and on Linux by the words of ID and ID_LIKE in /etc/os-release."""

_EXTRAS: Final = {
    "llama-cpp-python": "llama",
    "huggingface-hub": "hub",
    "onnxruntime": "onnx",
    "onnxruntime-genai": "genai",
    "onnx-ir": "quantize",
    "vl-convert-python": "report",
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
    return [*_next_step(), *_folders(), *_runtimes(), *_apis(), *_packages(), *_machine(), *_measuring()]


def _next_step() -> Iterator[Finding]:
    """The one command that leads on where there is no engine yet; a compile that cannot end well is not begun."""
    if find_spec("llama_cpp") is not None:
        return
    if not any(map(shutil.which, _COMPILERS)):
        yield Finding(
            name="next: a C++ compiler", state="missing", detail=compiler_command(sys.platform, _distribution())
        )
    else:
        yield Finding(
            name="next: an engine",
            state="missing",
            detail="pip install 'edge-harness[llama]' (compiles for about 15 minutes divided by the number of cores)",
        )
    others = [f"run --runtime {n}" for n in plugins.names("harness.runtimes") if n in {"server", "executable"}]
    ready = (
        f", and a llama.cpp package of your system (brew, winget, conda) for {' or '.join(others)}" if others else ""
    )
    detail = f"pip install 'edge-harness[onnx]' runs ONNX models{ready}; fit, matrix and report need no engine"
    yield Finding(name="without a compiler", state="ok", detail=detail)


def compiler_command(platform: str, distribution: str) -> str:
    """The one command that installs a C++ compiler and CMake on a system.

    Args:
        platform: As ``sys.platform`` names it.
        distribution: Words of ID and ID_LIKE in ``/etc/os-release``, on Linux.
    """
    words = distribution.split() if platform == "linux" else [platform]
    known = next((_COMPILER_COMMANDS[word] for word in words if word in _COMPILER_COMMANDS), "")
    return known or "install a C++17 compiler (GCC 11, clang 14 or MSVC 2022) and CMake 3.21 with your package manager"


def _distribution() -> str:
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "termux" if "com.termux" in os.environ.get("PREFIX", "") else ""
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return " ".join(values.get(key, "").strip("\"'") for key in ("ID", "ID_LIKE"))


def machine_apis() -> list[str]:
    """Apis that the drivers of this machine offer; what an engine can use of them is another question."""
    found = ["cpu"]
    if sys.platform == "darwin":
        found.append("metal")
    if Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi"):
        found.append("cuda")
    if Path("/dev/kfd").exists():
        found.append("rocm")
    drivers = [
        f for folder in ("/usr/share", "/etc", "/usr/local/share") for f in Path(folder, "vulkan/icd.d").glob("*.json")
    ]
    if find_library("vulkan") and drivers:
        found.append("vulkan")
    if find_library("OpenCL") and any(Path("/etc/OpenCL/vendors").glob("*.icd")):
        found.append("opencl")
    return found


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

    if find_spec("llama_cpp") is None:
        yield Finding(name="apis of this machine", state="ok", detail=", ".join(machine_apis()))
        return
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
    seen = {device.api for device in devices}
    unused = [api for api in machine_apis() if api not in seen]
    if unused:
        build = " | ".join(f"{api}: {arguments}" for api, arguments in BUILD_ARGUMENTS.items() if api in unused)
        command = 'CMAKE_ARGS="..." pip install --force-reinstall --no-binary llama-cpp-python llama-cpp-python'
        yield Finding(
            name="apis of this machine",
            state="limited",
            detail=f"the engine was built without {', '.join(unused)}; to build it in: {command} with {build}",
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
