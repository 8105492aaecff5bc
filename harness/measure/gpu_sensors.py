"""Power, heat and throttling of GPUs: NVML where its package is, else the kernel's own files.

What a machine does not tell is None. Sources: NVML API reference (units: milliwatts,
millijoules, degrees Celsius); Linux Documentation/gpu/amdgpu/thermal.rst and
ABI/testing/sysfs-driver-intel-xe-hwmon (microwatts, microjoules, millidegrees, hertz).
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.cpus import read_int, read_text

_THROTTLED: Final = {0x8: "hardware slowdown", 0x20: "heat (software)", 0x40: "heat (hardware)", 0x80: "power brake"}
"""``nvmlClocksEventReason`` bits under which a card runs slower than it could; a power cap (0x4) is its usual state."""


class GpuReading(NamedTuple):
    """One GPU at one moment, by ``nvml``, ``amdgpu``, ``xe`` or ``i915``; None for what is not told.

    Energy is what it used since the driver was loaded; ``throttled`` says why it runs slower than it could. ``apart``:
    it is a card, and the counters of a processor's package hold none of it.
    """

    name: str
    source: str
    power_watts: float | None = None
    energy_joules: float | None = None
    throttled: tuple[str, ...] = ()
    apart: bool = True

    def describe(self) -> str:
        """Its name, and its power just now."""
        watts = "" if self.power_watts is None else f", {self.power_watts:.0f} W"
        return f"{self.name} ({self.source}){watts}"


def gpu_readings(*, root: Path = Path("/")) -> tuple[GpuReading, ...]:
    """Every GPU that tells anything; of another ``root`` what its files tell."""
    return (*(_nvml() if root == Path("/") else ()), *_kernel(root))


def _nvml() -> tuple[GpuReading, ...]:
    if find_spec("pynvml") is None:
        return ()
    import pynvml  # type: ignore[import-not-found,unused-ignore]

    nvml: Any = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # no driver
        return ()

    def told(function: str, *arguments: Any) -> Any:
        try:
            return getattr(nvml, function)(*arguments)
        except nvml.NVMLError:  # this card does not tell it
            return None

    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        card = nvml.nvmlDeviceGetHandleByIndex(index)
        name = told("nvmlDeviceGetName", card) or f"GPU {index}"
        power, energy = told("nvmlDeviceGetPowerUsage", card), told("nvmlDeviceGetTotalEnergyConsumption", card)
        reasons = told("nvmlDeviceGetCurrentClocksEventReasons", card) or 0
        found.append(
            GpuReading(
                name=name.decode() if isinstance(name, bytes) else name,
                source="nvml",
                power_watts=None if power is None else power / 1e3,
                energy_joules=None if energy is None else energy / 1e3,
                throttled=tuple(word for bit, word in _THROTTLED.items() if reasons & bit),
            )
        )
    return tuple(found)


def _kernel(root: Path) -> tuple[GpuReading, ...]:
    found = []
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        source = (read_text(folder / "name") or "").strip()
        if source not in {"amdgpu", "xe", "i915"}:
            continue

        def millionths(*names: str, folder: Path = folder) -> float | None:
            return next((v / 1e6 for name in names if (v := read_int(folder / name)) is not None), None)

        found.append(
            GpuReading(
                name=f"{source} {folder.name}",
                source=source,
                power_watts=millionths("power1_average", "power1_input"),
                energy_joules=millionths("energy1_input"),
                # amdgpu tells the voltage of a northbridge where the GPU is part of a processor, and only there.
                apart=not (folder / "in1_input").exists(),
            )
        )
    return tuple(found)
