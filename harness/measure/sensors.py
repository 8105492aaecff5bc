"""Energy counters, batteries, thermal zones and clocks of this machine, as far as it has any.

Everything is read from the kernel's files (Linux); elsewhere psutil tells what it can. A sensor that is
missing is reported as missing, never as zero. Sources: Linux Documentation/power/powercap/powercap.rst,
Documentation/ABI/testing/{sysfs-class-power,sysfs-class-thermal,sysfs-class-hwmon}.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from harness.cpus import read_int, read_text
from harness.measure.gpu_sensors import GpuReading, gpu_readings


class EnergyCounter(NamedTuple):
    """One counter of used energy, in a file of microjoules; it starts again from zero at ``wrap_joules``."""

    name: str
    path: Path
    wrap_joules: float


def energy_counters(*, root: Path = Path("/")) -> tuple[EnergyCounter, ...]:
    """Readable energy counters that do not overlap: the packages, and DRAM where it is counted apart.

    Cores and uncore are parts of their package and left out. Many systems let only root read these files.
    """
    found: list[EnergyCounter] = []
    for folder in sorted((root / "sys/class/powercap").glob("*-rapl:*")):
        name = read_text(folder / "name")
        path = folder / "energy_uj"
        if not name.startswith(("package", "dram", "psys")) or read_int(path) is None:
            continue
        found.append(EnergyCounter(name, path, (read_int(folder / "max_energy_range_uj") or 2**32) / 1e6))
    if any(c.name.startswith("psys") for c in found):  # the whole platform holds the packages
        return tuple(c for c in found if c.name.startswith("psys"))
    return tuple(found)


class EnergyMeter:
    """Joules between two moments: of counters and cards, else of power sensors, else of the battery."""

    def __init__(self, *, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = energy_counters(root=root)
        self._root = root
        self._clock = clock
        self.start()

    @property
    def source(self) -> str:
        """Where the joules come from, which says what they count.

        ``not available`` when the machine does not tell.
        """
        counted = []
        if self._counters:
            counted.append("RAPL " + " + ".join(counter.name for counter in self._counters))
        for name, count in Counter(card.source for card in self._cards).items():
            counted.append(f"{_SCOPES.get(name, name)} x {count}")
        if counted:
            return " and ".join(counted)
        if sensor_watts(root=self._root) is not None:
            return "power sensors (hwmon)"
        if battery_watts(root=self._root) is not None:
            return "battery discharge"
        return "not available"

    def _read_watts(self) -> float | None:
        watts = sensor_watts(root=self._root)
        if watts is None:
            watts = battery_watts(root=self._root)
        return watts

    def start(self) -> None:
        """Read the counters before the work."""
        self._before = [read_int(c.path) for c in self._counters]
        self._cards = _cards(self._root)
        self._watts = self._read_watts()
        self._started_s = self._clock()

    def finish_joules(self) -> float | None:
        """Energy used since ``start``; None where the machine does not tell.

        A counter that wrapped once is put right. Power is the mean of both ends times the wall time.
        """
        duration_s = self._clock() - self._started_s
        if not self._counters and not self._cards:
            return _joules(self._watts, self._read_watts(), duration_s)
        cards = _cards(self._root)
        if len(cards) != len(self._cards):  # one fell silent meanwhile
            return None
        used = 0.0
        for before, after in zip(self._cards, cards, strict=True):
            joules = _joules(before.power_watts, after.power_watts, duration_s)
            if before.energy_joules is not None and after.energy_joules is not None:
                joules = after.energy_joules - before.energy_joules
            if joules is None:
                return None
            used += joules
        for counter, first in zip(self._counters, self._before, strict=True):
            last = read_int(counter.path)
            if first is None or last is None:
                return None
            if last < first:
                used += counter.wrap_joules
            used += (last - first) / 1e6
        return used


_SCOPES: Final = {"nvml": "NVIDIA board", "amdgpu": "AMD board"}


def _cards(root: Path) -> list[GpuReading]:
    """Cards whose energy or power is told, and counted nowhere else."""
    told = [r for r in gpu_readings(root=root) if r.apart]
    return [r for r in told if r.energy_joules is not None or r.power_watts is not None]


def _joules(first_watts: float | None, last_watts: float | None, duration_s: float) -> float | None:
    if first_watts is None or last_watts is None:
        return None
    return (first_watts + last_watts) / 2 * duration_s


def sensor_watts(*, root: Path = Path("/")) -> float | None:
    """Sum of hwmon's power sensors (microwatts).

    None without any, or on battery, whose own reading counts more.
    """
    known = [value / 1e6 for path in _power_files(root) if (value := read_int(path)) is not None]
    return sum(known) if known and battery_watts(root=root) is None else None


def _power_files(root: Path) -> list[Path]:
    """One file of each power sensor of hwmon: its average where it tells one."""
    hwmon = root / "sys/class/hwmon"
    files = [*hwmon.glob("hwmon*/power*_input"), *hwmon.glob("hwmon*/power*_average")]
    return list({str(path).rpartition("_")[0]: path for path in files}.values())


def _batteries(root: Path) -> list[Path]:
    """Those that feed the machine: one with the scope ``Device`` lies in a mouse or a headset."""
    supplies = sorted((root / "sys/class/power_supply").glob("*"))
    kinds = {f: [read_text(f / name) for name in ("type", "scope")] for f in supplies}
    return [f for f, (kind, scope) in kinds.items() if kind == "Battery" and scope != "Device"]


def battery_percent(*, root: Path = Path("/")) -> float | None:
    """Charge of the emptiest battery; None without one."""
    return min(
        (level for f in _batteries(root) if (level := read_int(f / "capacity")) is not None), default=None
    )


def battery_watts(*, root: Path = Path("/")) -> float | None:
    """Power drawn from all discharging batteries; None on mains power or without a battery."""
    draining = [f for f in _batteries(root) if read_text(f / "status") == "Discharging"]
    return _total(draining, "power_now", "current_now", "voltage_now")


def battery_joules(*, root: Path = Path("/")) -> float | None:
    """Energy of full batteries; None without any."""
    watt_hours = _total(_batteries(root), "energy_full", "charge_full", "voltage_min_design")
    return watt_hours and watt_hours * 3600


def _total(batteries: list[Path], whole: str, per_volt: str, volts: str) -> float | None:
    """Watts (watt-hours) of batteries that tell them, in millionths, or amperes (ampere-hours) and volts.

    Else None.
    """
    told = []
    for folder in batteries:
        power, current, voltage = (read_int(folder / name) for name in (whole, per_volt, volts))
        if power is not None:
            told.append(abs(power) / 1e6)
        elif current is not None and voltage is not None:
            told.append(abs(current) * voltage / 1e12)
    return sum(told) if told else None


def thermal_zones(*, root: Path = Path("/")) -> tuple[tuple[str, float], ...]:
    """Pairs (name, degrees Celsius) of thermal zones and of temperature sensors."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    named = [(read_text(zone / "type") or zone.name, zone / "temp") for zone in zones]
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        name = read_text(folder / "name") or folder.name
        for path in sorted(folder.glob("temp*_input")):
            label = read_text(path.with_name(path.name.replace("_input", "_label"))) or path.stem
            named.append((f"{name} {label}", path))
    told = [(name, read_int(path)) for name, path in named]
    return tuple((name, value / 1000) for name, value in told if value is not None and 0 < value < 150_000)


def hottest_celsius(*, root: Path = Path("/")) -> float | None:
    """Temperature of the hottest sensor; None without any."""
    return max((celsius for _, celsius in thermal_zones(root=root)), default=None)


def throttle_count(*, root: Path = Path("/")) -> int | None:
    """Times that the CPU said it throttled for heat (Intel); None where it does not count."""
    paths = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
    counts = [value for path in paths if (value := read_int(path)) is not None]
    return sum(counts) if counts else None


def cpu_frequency_hz(*, root: Path = Path("/")) -> float | None:
    """Mean current frequency of all CPUs; None where the system does not tell."""
    paths = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    if scaled := [value * 1000.0 for path in paths if (value := read_int(path))]:
        return sum(scaled) / len(scaled)
    frequency = None
    if root == Path("/"):
        with contextlib.suppress(OSError, NotImplementedError, RuntimeError):
            frequency = psutil.cpu_freq()
    return frequency.current * 1e6 if frequency and frequency.current else None


def report(*, root: Path = Path("/")) -> tuple[dict[str, list[str]], list[str]]:
    """All sensors there are, by kind, and a note for each kind that is missing."""
    counters = [c.name for c in energy_counters(root=root)]
    batteries = [folder.name for folder in _batteries(root)]
    zones = [name for name, _ in thermal_zones(root=root)]
    power = any(read_int(path) is not None for path in _power_files(root))
    locked = not counters and any((root / "sys/class/powercap").glob("*-rapl:*"))
    notes = ["energy counter: there, but only root may read it"] if locked else []
    there = {"energy counter": counters, "battery": batteries, "thermal zone": zones}
    unseen = [
        kind for kind, names in there.items() if not names and not (names is counters and (power or locked))
    ]
    return there, notes + [f"{kind}: not available" for kind in unseen]
