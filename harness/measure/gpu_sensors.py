"""Energy, throttling and other programs of GPUs: NVML where its package is, else the kernel's own files.

What a machine does not tell is None. Sources: NVML API reference (units: milliwatts, millijoules); Linux
Documentation/gpu/amdgpu/thermal.rst and ABI/testing/sysfs-driver-intel-xe-hwmon (microwatts, microjoules).
"""

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.hardware.cpus import read_int, read_text

_THROTTLED: Final = {
    0x8: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
"""``nvmlClocksEventReason`` bits under which a card runs slower than it could; a power cap (0x4) is its usual
state."""
_LATELY_S: Final = 1.0


class GpuReading(NamedTuple):
    """One GPU at one moment, by ``nvml``, ``amdgpu``, ``xe`` or ``i915``; None for what is not told.

    Energy is what it used since the driver was loaded; ``throttled`` says why it runs slower than it could.
    ``apart``: it is a card, and the counters of a processor's package hold none of it. ``loads`` are the
    share of its time that each process took lately, by process number.
    """

    name: str
    source: str
    power_watts: float | None = None
    energy_joules: float | None = None
    throttled: tuple[str, ...] = ()
    apart: bool = True
    loads: tuple[tuple[int, float], ...] = ()


def gpu_readings(*, root: Path = Path("/")) -> tuple[GpuReading, ...]:
    """Every GPU that tells anything; of another ``root`` what its files tell."""
    if root == Path("/") and find_spec("pynvml") is not None:
        return (*_nvml(), *_kernel(root))
    return _kernel(root)


def _nvml() -> tuple[GpuReading, ...]:
    import pynvml  # type: ignore[import-not-found,unused-ignore]

    nvml: Any = pynvml

    def told(function: str, *arguments: Any) -> Any:
        try:
            return getattr(nvml, function)(*arguments)
        except nvml.NVMLError:  # no driver, or no card that tells it
            return None

    told("nvmlInit")
    found = []
    for index in range(told("nvmlDeviceGetCount") or 0):
        card = told("nvmlDeviceGetHandleByIndex", index)
        milliwatts = told("nvmlDeviceGetPowerUsage", card)
        millijoules = told("nvmlDeviceGetTotalEnergyConsumption", card)
        reasons = told("nvmlDeviceGetCurrentClocksEventReasons", card) or 0
        lately = told("nvmlDeviceGetProcessUtilization", card, int((time.time() - _LATELY_S) * 1e6)) or ()
        found.append(
            GpuReading(
                name=told("nvmlDeviceGetName", card) or f"GPU {index}",
                source="nvml",
                power_watts=milliwatts and milliwatts / 1e3,
                energy_joules=millijoules and millijoules / 1e3,
                throttled=tuple(word for bit, word in _THROTTLED.items() if reasons & bit),
                loads=tuple((process.pid, process.smUtil / 100) for process in lately),
            )
        )
    return tuple(found)


def _kernel(root: Path) -> tuple[GpuReading, ...]:
    found = []
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        source = read_text(folder / "name")
        if source not in {"amdgpu", "xe", "i915"}:
            continue
        microwatts = read_int(folder / "power1_average") or read_int(folder / "power1_input")
        microjoules = read_int(folder / "energy1_input")
        found.append(
            GpuReading(
                name=f"{source} {folder.name}",
                source=source,
                power_watts=microwatts and microwatts / 1e6,
                energy_joules=microjoules and microjoules / 1e6,
                # amdgpu tells the voltage of a northbridge where the GPU is part of a processor, and only
                # there.
                apart=not (folder / "in1_input").exists(),
            )
        )
    return tuple(found)
