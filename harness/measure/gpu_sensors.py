"""Power, heat and throttling of GPUs: NVML where its package is, powermetrics on a Mac, else the kernel's own files.

What a machine does not tell is None, and :func:`absence` says why. Sources: NVML API reference (units: milliwatts,
millijoules, degrees Celsius); Linux Documentation/gpu/amdgpu/thermal.rst and
ABI/testing/sysfs-driver-intel-xe-hwmon (microwatts, microjoules, millidegrees, hertz); powermetrics(1) of macOS.
"""

import atexit
import os
import platform
import plistlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from harness.cpus import read_int, read_text

_THROTTLED: Final = {0x8: "hardware slowdown", 0x20: "heat (software)", 0x40: "heat (hardware)", 0x80: "power brake"}
"""``nvmlClocksEventReason`` bits under which a card runs slower than it could; a power cap (0x4) is its usual state."""

_PATIENCE_S: Final = 2.0
"""Longest wait for a sample of powermetrics."""


class GpuReading(NamedTuple):
    """One GPU at one moment, by ``nvml``, ``amdgpu``, ``xe``, ``i915`` or ``powermetrics``; None for what is not told.

    Energy is what it used since the driver was loaded; ``throttled`` says why it runs slower than it could. ``apart``:
    it is a card, or all of a Mac's chip, and the counters of a processor's package hold none of it.
    """

    name: str
    source: str
    power_watts: float | None = None
    energy_joules: float | None = None
    throttled: tuple[str, ...] = ()
    apart: bool = True
    celsius: float | None = None
    frequency_hz: float | None = None
    busy_ratio: float | None = None
    memory_used_bytes: float | None = None

    def describe(self) -> str:
        """Its name, and what it tells just now."""
        told = (self.power_watts, self.celsius, self.frequency_hz, self.busy_ratio, self.memory_used_bytes)
        forms = ("{:.0f} W", "{:.0f} C", "{:.2g} Hz", "{:.0%} busy", "{:.3g} bytes held")
        now = [form.format(value) for form, value in zip(forms, told, strict=True) if value is not None]
        return ", ".join([f"{self.name} ({self.source})", *now])


def gpu_readings(*, root: Path = Path("/")) -> tuple[GpuReading, ...]:
    """Every GPU that tells anything; of another ``root`` what its files tell."""
    if root != Path("/"):
        return _kernel(root)
    meter = power_meter()
    return (*_nvml(), *_kernel(root), *((meter.reading(),) if meter else ()))


def absence(readings: tuple[GpuReading, ...]) -> str:
    """Why no GPU, or not all of it, is told; empty where each tells its power and its heat."""
    if readings:
        silent = [r.name for r in readings if r.power_watts is None and r.energy_joules is None]
        return f"no power from {', '.join(silent)}" if silent else ""
    if platform.system() == "Darwin":
        return "GPU counters: macOS tells them to root alone (powermetrics)"
    if find_spec("pynvml") is None and Path("/proc/driver/nvidia").exists():
        return "GPU counters: not available; pip install nvidia-ml-py reads an NVIDIA card's"
    return "GPU counters: not available"


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

        def value(*names: str, scale: float, folder: Path = folder) -> float | None:
            return next((v / scale for name in names if (v := read_int(folder / name)) is not None), None)

        found.append(
            GpuReading(
                name=f"{source} {folder.name}",
                source=source,
                power_watts=value("power1_average", "power1_input", scale=1e6),
                energy_joules=value("energy1_input", scale=1e6),
                # amdgpu tells the voltage of a northbridge where the GPU is part of a processor, and only there.
                apart=not (folder / "in1_input").exists(),
                celsius=value("temp1_input", scale=1e3),
                frequency_hz=value("freq1_input", scale=1.0),
                busy_ratio=value("device/gpu_busy_percent", scale=100.0),
                memory_used_bytes=value("device/mem_info_vram_used", scale=1.0),
            )
        )
    return tuple(found)


class PowerMeter:
    """macOS's powermetrics, which tells root the power of the chip five times a second: CPU, GPU and neural engine.

    Samples are property lists with a NUL between them: ``elapsed_ns``; ``processor`` with ``combined_power`` in
    milliwatts (Apple's chips) or ``package_watts`` (Intel's); ``thermal_pressure``, Nominal where nothing slows it.
    """

    def __init__(self, samples: IO[bytes], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._watts, self._joules, self._at_s, self._pressure = 0.0, 0.0, clock(), "Nominal"
        self._first = threading.Event()
        threading.Thread(target=self._read, args=(samples,), daemon=True).start()

    def _read(self, samples: IO[bytes]) -> None:
        taken = b""
        for line in samples:
            taken += line
            if b"</plist>" in line:
                self._take(plistlib.loads(taken.strip(b"\0\n")))
                taken = b""

    def _take(self, sample: Mapping[str, Any]) -> None:
        processor = sample.get("processor", {})
        watts = processor.get("combined_power", 1e3 * processor.get("package_watts", 0.0)) / 1e3
        self._joules += watts * sample.get("elapsed_ns", 0) / 1e9
        self._watts, self._at_s = watts, self._clock()
        self._pressure = sample.get("thermal_pressure", "Nominal")
        self._first.set()

    def reading(self) -> GpuReading:
        """The chip now: since its last sample it goes on at that sample's power; nothing once it fell silent."""
        self._first.wait(_PATIENCE_S)
        if (since_s := self._clock() - self._at_s) > _PATIENCE_S:
            return GpuReading("chip", "powermetrics")
        slowed = () if self._pressure == "Nominal" else (f"thermal pressure {self._pressure}",)
        return GpuReading("chip", "powermetrics", self._watts, self._joules + self._watts * since_s, slowed)


@cache
def power_meter() -> PowerMeter | None:
    """The meter of this process, which ends with it; None but for root on macOS."""
    if platform.system() != "Darwin" or os.geteuid() != 0 or shutil.which("powermetrics") is None:
        return None
    words = ("powermetrics", "--samplers", "cpu_power,gpu_power,thermal", "-i", "200", "-f", "plist")
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    atexit.register(process.kill)
    assert process.stdout is not None
    return PowerMeter(process.stdout)
