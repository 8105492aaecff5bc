"""Energy counters, batteries, thermal zones and clocks of this machine, as far as it has any.

Everything is read from the kernel's files (Linux); elsewhere psutil tells what it can. A sensor that is
missing is reported as missing, never as zero. Sources: Linux Documentation/power/powercap/powercap.rst,
Documentation/ABI/testing/{sysfs-class-power,sysfs-class-thermal,sysfs-class-hwmon}.
"""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from harness.hardware.cpus import ROOT, read_int, read_text
from harness.measure.gpu_sensors import gpu_readings

_BOARDS: Final = {"nvml": "NVIDIA board", "amdgpu": "AMD board"}


class EnergyCounter(NamedTuple):
    """One counter of used energy, in a file of microjoules; it starts again from zero at ``wrap_joules``."""

    name: str
    path: Path
    wrap_joules: float


class _EnergyReading(NamedTuple):
    """What one source says at one moment: joules used until then, or watts."""

    scope: str
    joules: float | None = None
    watts: float | None = None
    wrap_joules: float = 0.0


def energy_counters(*, root: Path = ROOT) -> tuple[EnergyCounter, ...]:
    """Readable energy counters that do not overlap: the packages, and DRAM where it is counted apart.

    Cores and uncore are parts of their package and left out. Many systems let only root read these files.
    """
    found: list[EnergyCounter] = []
    for folder in sorted((root / "sys/class/powercap").glob("*-rapl:*")):
        name = read_text(folder / "name")
        path = folder / "energy_uj"
        if name.startswith(("package", "dram", "psys")) and read_int(path) is not None:
            wrap_joules = (read_int(folder / "max_energy_range_uj") or 2**32) / 1e6
            found.append(EnergyCounter(name, path, wrap_joules))
    # The whole platform holds the packages.
    return tuple(c for c in found if c.name.startswith("psys")) or tuple(found)


class EnergyMeter:
    """Joules between two moments: of counters and cards, else of power sensors, else of the battery."""

    def __init__(self, *, root: Path = ROOT, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self.start()

    @property
    def source(self) -> str:
        """The counter that the joules come from, which says what they count.

        It is ``not available`` on a machine that has no counter of energy.
        """
        return " + ".join(energy.scope for energy in self._before) or "not available"

    def _read(self) -> list[_EnergyReading]:
        found = []
        for counter in energy_counters(root=self._root):
            joules = (read_int(counter.path) or 0) / 1e6
            found.append(_EnergyReading(f"RAPL {counter.name}", joules, wrap_joules=counter.wrap_joules))
        for card in gpu_readings(root=self._root):
            # A GPU that is part of a processor is counted with it.
            if card.apart and (card.energy_joules is not None or card.power_watts is not None):
                scope = _BOARDS.get(card.source, card.source)
                found.append(_EnergyReading(scope, card.energy_joules, card.power_watts))
        if found:
            return found
        for scope, read in (("power sensors (hwmon)", sensor_watts), ("battery discharge", battery_watts)):
            watts = read(root=self._root)
            if watts is not None:
                return [_EnergyReading(scope, watts=watts)]
        return []

    def start(self) -> None:
        """Read the counters before the work."""
        self._before = self._read()
        self._started_s = self._clock()

    def finish_joules(self) -> float | None:
        """Energy used since ``start``; None where the machine does not tell, or one source fell silent.

        A counter that wrapped once is put right. Power is the mean of both ends times the wall time.
        """
        duration_s = self._clock() - self._started_s
        used = 0.0
        after = self._read()
        if not after or [energy.scope for energy in after] != [energy.scope for energy in self._before]:
            return None
        for first, last in zip(self._before, after, strict=True):
            if first.joules is not None and last.joules is not None:
                used += last.joules - first.joules
                if last.joules < first.joules:
                    used += last.wrap_joules
            elif first.watts is not None and last.watts is not None:
                used += (first.watts + last.watts) / 2 * duration_s
            else:
                return None
        return used


def sensor_watts(*, root: Path = ROOT) -> float | None:
    """Sum of hwmon's power sensors (microwatts), of each its average where it tells one.

    None without any, or on battery, whose own reading counts more.
    """
    hwmon = root / "sys/class/hwmon"
    sensors: dict[str, int] = {}
    for path in (*hwmon.glob("hwmon*/power*_input"), *hwmon.glob("hwmon*/power*_average")):
        microwatts = read_int(path)
        if microwatts is not None:
            sensors[str(path).rpartition("_")[0]] = microwatts
    if sensors and battery_watts(root=root) is None:
        return sum(sensors.values()) / 1e6
    return None


def _batteries(root: Path) -> list[Path]:
    """Those that feed the machine: one with the scope ``Device`` lies in a mouse or a headset."""
    supplies = sorted((root / "sys/class/power_supply").glob("*"))
    return [f for f in supplies if read_text(f / "type") == "Battery" and read_text(f / "scope") != "Device"]


def battery_percent(*, root: Path = ROOT) -> float | None:
    """Charge of the emptiest battery in per cent; None on a machine without a battery."""
    levels = (read_int(folder / "capacity") for folder in _batteries(root))
    return min((level for level in levels if level is not None), default=None)


def battery_watts(*, root: Path = ROOT) -> float | None:
    """Power drawn from all discharging batteries; None on mains power or without a battery."""
    draining = [f for f in _batteries(root) if read_text(f / "status") == "Discharging"]
    return _total(draining, "power_now", "current_now", "voltage_now")


def battery_joules(*, root: Path = ROOT) -> float | None:
    """Energy of all batteries when full, in joules; None on a machine without a battery."""
    watt_hours = _total(_batteries(root), "energy_full", "charge_full", "voltage_min_design")
    return watt_hours and watt_hours * 3600


def _total(batteries: list[Path], whole: str, per_volt: str, volts: str) -> float | None:
    """Watts (watt-hours) of batteries that tell them, in millionths, or amperes (ampere-hours) and volts.

    It is None where one of the batteries gives neither.
    """
    told = []
    for folder in batteries:
        power, current, voltage = (read_int(folder / name) for name in (whole, per_volt, volts))
        if power is not None:
            told.append(abs(power) / 1e6)
        elif current is not None and voltage is not None:
            told.append(abs(current) * voltage / 1e12)
    return sum(told) if told else None


def thermal_zones(*, root: Path = ROOT) -> tuple[tuple[str, float], ...]:
    """Pairs (name, degrees Celsius) of thermal zones and of temperature sensors."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    named = [(read_text(zone / "type") or zone.name, zone / "temp") for zone in zones]
    for path in sorted((root / "sys/class/hwmon").glob("hwmon*/temp*_input")):
        label = read_text(path.with_name(path.name.replace("_input", "_label"))) or path.stem
        named.append((f"{read_text(path.with_name('name')) or path.parent.name} {label}", path))
    told = [(name, read_int(path)) for name, path in named]
    return tuple((name, value / 1000) for name, value in told if value is not None and 0 < value < 150_000)


def hottest_celsius(*, root: Path = ROOT) -> float | None:
    """Temperature of the hottest sensor in degrees Celsius; None on a machine without sensors."""
    return max((celsius for _, celsius in thermal_zones(root=root)), default=None)


def _of_cpus(root: Path, name: str) -> list[int]:
    """What every CPU tells in its file of that name."""
    told = (read_int(path) for path in (root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/{name}"))
    return [value for value in told if value is not None]


def throttle_count(*, root: Path = ROOT) -> int | None:
    """Times that the CPU said it throttled for heat (Intel); None where it does not count."""
    counts = _of_cpus(root, "thermal_throttle/*_throttle_count")
    return sum(counts) if counts else None


def cpu_frequency_hz(*, root: Path = ROOT) -> float | None:
    """Mean current frequency of all CPUs; None where the system does not tell."""
    if scaled := _of_cpus(root, "cpufreq/scaling_cur_freq"):
        return 1000.0 * sum(scaled) / len(scaled)
    frequency = None
    if root == ROOT:
        with contextlib.suppress(OSError, NotImplementedError, RuntimeError):
            frequency = psutil.cpu_freq()
    return frequency.current * 1e6 if frequency and frequency.current else None


def report(*, root: Path = ROOT) -> tuple[dict[str, list[str]], list[str]]:
    """All sensors there are, by kind, and a note for each kind that is missing."""
    there = {
        "energy counter": [counter.name for counter in energy_counters(root=root)],
        "battery": [folder.name for folder in _batteries(root)],
        "thermal zone": [name for name, _ in thermal_zones(root=root)],
    }
    notes = [f"{kind}: not available" for kind, names in there.items() if not names]
    if not there["energy counter"] and any((root / "sys/class/powercap").glob("*-rapl:*")):
        notes[0] = "energy counter: there, but only root may read it"
    return there, notes
