"""Facts of a target, by reading alone: names, cores and clocks, memory, heat and battery.

The profile by which a target is predicted is made of these facts.
"""

import contextlib
import re
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from harness.core.device import RAM, Device, Sourced, Storage, measured
from harness.core.errors import CouldNotRunError, InputError
from harness.core.outside import understood
from harness.core.record import MachineFingerprint
from harness.hardware.cpus import numbers
from harness.hardware.devices import load_device
from harness.measure import machine, sensors
from harness.measure.probe.machine_profile import cpu_engine, ram_pool, this_year
from harness.measure.targets.shell import DUMPS, Frame, ShellTarget, files_in

_FILES: Final = (
    "/proc/cpuinfo /proc/meminfo /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq"
    " /sys/class/thermal/thermal_zone*/type /sys/class/thermal/thermal_zone*/temp"
    " /sys/class/power_supply/*/type /sys/class/power_supply/*/capacity /sys/class/power_supply/*/status"
    " /sys/class/power_supply/*/energy_full /sys/class/power_supply/*/charge_full"
    " /sys/class/power_supply/*/voltage_min_design /sys/class/power_supply/*/scope /sys/devices/system/cpu/online"
    " /sys/devices/system/cpu/present /sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list"
    " /sys/devices/system/cpu/cpu[0-9]*/cpu_capacity /sys/devices/system/cpu/cpu[0-9]*/cache/index*/*[elz]"
    " /sys/devices/system/cpu/cpu[0-9]*/cache/index*/shared_cpu_list /sys/devices/soc0/machine"
)
_ABIS: Final = {"aarch64": "arm64-v8a", "arm64": "arm64-v8a", "x86_64": "x86_64", "amd64": "x86_64"}
_THERMAL_WORDS: Final = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Android's PowerManager.THERMAL_STATUS_*, in order."""
_UNREAD: Final = Sourced(1e8, "not measured: the least that is sold", "assumed")
_APP_RATIO: Final = 0.5
"""Of an Android phone's RAM, what one app holds before the low-memory killer takes it: no system tells
beforehand."""


class Facts(NamedTuple):
    """One reading of a target: its kernel's files, and ``/dumpsys/*`` where it is Android, and what they say.

    ``system`` is the kernel's name, version and machine; ``abi`` the binary interface as Android names it.
    """

    frame: Frame
    system: tuple[str, str, str]
    abi: str
    chip: str
    title: str
    android: bool
    cpu: machine.Cpu
    ram: machine.Ram
    battery_joules: float | None
    zones: tuple[tuple[str, float], ...]


def facts(target: ShellTarget) -> Facts:
    """Read a target; CouldNotRunError where it does not answer."""
    read = f"head -v -n 4000 {_FILES} 2>/dev/null"
    told = target.shell(f"uname -s; uname -r; uname -m; getprop 2>/dev/null; {read}; {DUMPS}")
    first, separator, rest = told.partition("==> ")
    frame = Frame(time.monotonic(), files_in((separator + rest).splitlines()))
    with understood(target.name):
        system, release, arch = first.splitlines()[:3]
        named = dict(re.findall(r"^\[ro\.(\w+\.\w+)\]: \[(.+)\]$", first, re.MULTILINE))
        count = len(re.findall(r"(?m)^processor", frame.files.get("/proc/cpuinfo", "")))
        online = numbers(frame.files.get("/sys/devices/system/cpu/online", ""))
        online = online or frozenset(range(count or 1))
        with frame.laid() as root:
            cpu, ram = machine.cpu(root=root, affinity=online), machine.memory(root=root)
            joules, zones = sensors.battery_joules(root=root), sensors.thermal_zones(root=root)
    chip = _joined(named, "soc") or cpu.model
    return Facts(
        frame=frame,
        system=(system, release, arch),
        abi=_ABIS.get(arch, arch),
        chip=chip,
        title=_joined(named, "product") or chip,
        android=bool(named),
        cpu=cpu,
        ram=ram,
        battery_joules=joules,
        zones=zones,
    )


def _joined(named: dict[str, str], what: str) -> str:
    return " ".join(filter(None, map(named.get, (f"{what}.manufacturer", f"{what}.model"))))


def _android(frame: Frame, service: str, pattern: str) -> list[Any]:
    """The part of an Android service's output that a pattern finds; empty on other systems."""
    return re.findall(pattern, frame.files.get(f"/dumpsys/{service}", ""))


def battery_percent(frame: Frame) -> int | None:
    """Charge of the target's battery in per cent; None on a target without a battery."""
    levels = _android(frame, "battery", r"(?m)^\s*level: (\d+)")
    for name, text in frame.files.items():
        if not levels and name.endswith("/capacity"):
            levels = re.findall(r"^\d+$", text.strip())
    return int(levels[0]) if levels else None


def celsius(frame: Frame) -> float | None:
    """Hottest sensor that Android's thermal service tells: it may be all that a shell is allowed to see."""
    told = _android(frame, "thermalservice", r"Temperature\{mValue=([\d.]+)")
    return max(map(float, told), default=None)


def drained_joules(first: Frame, last: Frame) -> float | None:
    """Energy that left the battery: charge counter (uAh) x voltage (mV).

    It is None while the battery is charged, and on targets that give no counter.
    """
    told = []
    for frame in (first, last):
        found = dict(_android(frame, "battery", r"(?m)^ *(Charge counter|voltage): (\d+)$"))
        if len(found) < 2 or _android(frame, "battery", "powered: true"):
            return None
        told.append((int(found["Charge counter"]), int(found["voltage"])))
    (from_uah, from_mv), (to_uah, to_mv) = told
    return (from_uah - to_uah) * 3600e-6 * (from_mv + to_mv) / 2e3


def asleep(frame: Frame) -> bool:
    """Whether Android says that it is not awake."""
    return _android(frame, "power", r"mWakefulness=(\w+)")[:1] not in ([], ["Awake"])


def doubts(frames: Sequence[Frame]) -> tuple[str, ...]:
    """What Android says against a sample."""
    found = []
    told = [int(t) for f in frames for t in _android(f, "thermalservice", r"Thermal Status: (\d+)")]
    if status := max(told, default=0):
        word = _THERMAL_WORDS[min(status, len(_THERMAL_WORDS) - 1)]
        found.append(f"the system's thermal status is {word}: let it cool down")
    if any(map(asleep, frames)):
        found.append("the device fell asleep: keep its screen on")
    return tuple(found)


@understood("the target")
def ready(target: ShellTarget, known: Facts, battery_percent_min: float) -> None:
    """CouldNotRunError where nothing can be measured: the device sleeps, or its battery is below the limit."""
    if asleep(known.frame):
        raise CouldNotRunError(
            f"{target.name}: the device is asleep, its CPU may stop: wake it, keep its screen on"
        )
    level = battery_percent(known.frame)
    if level is not None and level < battery_percent_min:
        raise CouldNotRunError(
            f"{target.name}: its battery is at {level} %, the limit is {battery_percent_min:g} %"
        )


def fingerprint(known: Facts) -> MachineFingerprint:
    """The facts by which two runs are known to be of the same target; a serial number is none of them."""
    system, kernel, arch = known.system
    cpu = known.cpu._replace(model=known.chip, board=known.title)
    ram = known.ram._replace(limit_bytes=known.ram.total_bytes)
    return machine.fingerprint_of(f"{system} {arch}", kernel, cpu, ram, device=known.title)


def probe(target: ShellTarget, name: str, read_bytes_per_s: float | None = None) -> Device:
    """A profile of the target: read and measured where that can be, else of a known device with the same chip.

    ``read_bytes_per_s`` is what the engine read from memory there, if that was measured.

    Raises:
        CouldNotRunError: It does not answer; or its memory bandwidth is known from nowhere.
    """
    known = facts(target)
    like = _known_device(known.title) or _known_device(known.chip)
    read = None
    if read_bytes_per_s is not None:
        read = measured(read_bytes_per_s, "decode of a small F16 model, all threads")
    if like is None and read is None:
        raise CouldNotRunError(
            f"{target.name}: the bandwidth of its memory is not known: no device with the chip {known.chip!r} is. "
            "Give --programs, a folder with llama-bench for it, and it is measured"
        )
    android = known.android
    most_bytes: float = known.ram.available_bytes
    told = "MemAvailable"
    if android:
        most_bytes = min(most_bytes, known.ram.total_bytes * _APP_RATIO)
        told = "MemAvailable, at most half of the RAM"
    usable = measured(most_bytes, told)
    engine = cpu_engine(known.cpu, known.chip)
    cores = " + ".join(f"{len(kind.cpus)} of speed {kind.speed:.2f}" for kind in known.cpu.cores.kinds)
    zones = ", ".join(zone for zone, _ in known.zones) or "none"
    notes = f"Cores: {cores}. Thermal zones: {zones}."
    if like is None:
        assert read is not None
        profile = Device(
            name=name,
            title=known.title,
            kind="phone" if android else "board",
            vendor=known.title.split()[0],
            chip=known.chip,
            os="linux",
            year=this_year(),
            pools=(ram_pool(known.ram, usable, read),),
            engines=(engine,),
            storage=Storage(technology="not told", sequential_read_bytes_per_s=_UNREAD),
            notes=f"Bandwidth as measured. {notes}",
        )
    else:
        old = like.ram
        pool = ram_pool(known.ram, usable, old.bandwidth_bytes_per_s)
        pool = pool.replace(measured_read_bytes_per_s=read, technology=old.technology)
        profile = like.replace(
            name=name,
            title=known.title,
            pools=(pool, *(p for p in like.pools if p.name != RAM)),
            engines=tuple(e if e.kind != "cpu" else engine for e in like.engines),
            calibrations=(),
            learned="",
            readings=(),
            ignored=(),
            notes=f"Bandwidth and peaks are those of {like.title}. {notes}",
        )
    power = profile.power
    if known.battery_joules:
        power = power.replace(battery_joules=measured(known.battery_joules, "full charge"))
    return profile.replace(os="android" if android else "linux", power=power)


def _known_device(told: str) -> Device | None:
    """The device that a target's own name or its chip's stands for, as Android or the kernel gives them.

    It is None where no device has such a name or chip.
    """
    with contextlib.suppress(InputError):
        return load_device(told)
    return None
