"""Power, heat and throttling of GPUs: NVML where its package is, else the kernel's own files.

What a machine does not tell is None. Sources: NVML API reference (units: milliwatts,
millijoules, degrees Celsius); Linux Documentation/gpu/amdgpu/thermal.rst and
ABI/testing/sysfs-driver-intel-xe-hwmon (microwatts, microjoules, millidegrees, hertz).
"""

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.cpus import read_int, read_text
from harness.units import GIB

_THROTTLED: Final = {
    0x8: "hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
"""``nvmlClocksEventReason`` bits under which a card runs slower than it could; a power cap (0x4) is its usual
state."""
_SM_CLOCK: Final = 1
"""``NVML_CLOCK_SM``"""
_LATELY_S: Final = 1.0


class GpuReading(NamedTuple):
    """One GPU at one moment, by ``nvml``, ``amdgpu``, ``xe`` or ``i915``; None for what is not told.

    Energy is what it used since the driver was loaded; ``throttled`` says why it runs slower than it could.
    ``apart``: it is a card, and the counters of a processor's package hold none of it. ``busy_ratio`` is its
    load just now, ``held_bytes`` the memory that all programs hold; ``loads`` the share of its time that each
    process took lately, by process number.
    """

    name: str
    source: str
    power_watts: float | None = None
    energy_joules: float | None = None
    throttled: tuple[str, ...] = ()
    apart: bool = True
    celsius: float | None = None
    clock_hz: float | None = None
    busy_ratio: float | None = None
    held_bytes: int | None = None
    loads: tuple[tuple[int, float], ...] = ()

    def describe(self) -> str:
        """Its name, and how it is just now."""
        told = (
            (self.power_watts, "{:.0f} W", 1.0),
            (self.celsius, "{:.0f} °C", 1.0),
            (self.clock_hz, "{:.0f} MHz", 1e6),
            (self.busy_ratio, "{:.0f} % busy", 0.01),
            (self.held_bytes, "{:.1f} GiB held", GIB),
        )
        now = (words.format(value / unit) for value, words, unit in told if value is not None)
        return ", ".join((f"{self.name} ({self.source})", *now))


def gpu_readings(*, root: Path = Path("/")) -> tuple[GpuReading, ...]:
    """Every GPU that tells anything; of another ``root`` what its files tell."""
    return (*(_nvml() if root == Path("/") else ()), *_kernel(root))


def _nvml() -> tuple[GpuReading, ...]:
    if find_spec("pynvml") is None:
        return ()
    import pynvml  # type: ignore[import-not-found,unused-ignore]

    nvml: Any = pynvml

    def told(function: str, *arguments: Any, unit: float = 1.0) -> Any:
        try:
            value = getattr(nvml, function)(*arguments)
        except nvml.NVMLError:  # no driver, or no card that tells it
            return None
        if isinstance(value, int):
            return value * unit
        return value

    told("nvmlInit")
    found = []
    for index in range(int(told("nvmlDeviceGetCount") or 0)):
        card = told("nvmlDeviceGetHandleByIndex", index)
        reasons = told("nvmlDeviceGetCurrentClocksEventReasons", card) or 0
        lately = told("nvmlDeviceGetProcessUtilization", card, int((time.time() - _LATELY_S) * 1e6)) or ()
        load = told("nvmlDeviceGetUtilizationRates", card)
        memory = told("nvmlDeviceGetMemoryInfo", card)
        found.append(
            GpuReading(
                name=told("nvmlDeviceGetName", card) or f"GPU {index}",
                source="nvml",
                power_watts=told("nvmlDeviceGetPowerUsage", card, unit=1e-3),
                energy_joules=told("nvmlDeviceGetTotalEnergyConsumption", card, unit=1e-3),
                throttled=tuple(word for bit, word in _THROTTLED.items() if int(reasons) & bit),
                celsius=told("nvmlDeviceGetTemperature", card, 0),
                clock_hz=told("nvmlDeviceGetClockInfo", card, _SM_CLOCK, unit=1e6),
                busy_ratio=load and load.gpu / 100,
                held_bytes=memory and memory.used,
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

        def told(*names: str, unit: float = 1e-6, folder: Path = folder) -> float | None:
            return next((v * unit for name in names if (v := read_int(folder / name)) is not None), None)

        found.append(
            GpuReading(
                name=f"{source} {folder.name}",
                source=source,
                power_watts=told("power1_average", "power1_input"),
                energy_joules=told("energy1_input"),
                # amdgpu tells the voltage of a northbridge where the GPU is part of a processor, and only
                # there.
                apart=not (folder / "in1_input").exists(),
                celsius=told("temp1_input", unit=1e-3),
                clock_hz=told("freq1_input", unit=1.0),
                busy_ratio=told("device/gpu_busy_percent", unit=1e-2),
                held_bytes=read_int(folder / "device/mem_info_vram_used"),
            )
        )
    return tuple(found)
