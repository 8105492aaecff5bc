"""The cores that this process may use, by kind, and how many threads are worth starting: one rule for everything.

Kinds are told by ``cpu_core``, ``cpu_atom`` (Intel), ``cpu_capacity`` (Arm), else by the highest frequency
and by the part number of in-order cores; on macOS by its performance levels. A quota of a control group holds
threads down. Sources: Linux Documentation/admin-guide/cgroup-v1/cpuacct.rst and cgroup-v2.rst,
Documentation/ABI/testing/ sysfs-devices-system-cpu; Arm, Main ID Registers; Apple, "Optimize for Apple
Silicon with performance and efficiency cores".
"""

import os
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from harness.core.errors import CouldNotRunError
from harness.core.outside import output_of

ROOT: Final = Path("/")
"""Of the system that this runs on; that of a target or of a recorded machine is a folder of copied files."""
_IN_ORDER: Final = {
    "0x41": "0xc05 0xc07 0xd01 0xd02 0xd03 0xd04 0xd05 0xd46 0xd80",  # Cortex-A5, A7, A32 to A55, A510, A520
    "0x51": "0x801 0x803 0x805",  # the silver Kryos
}
"""Parts of each implementer (MIDR) that do about half as much in a cycle as the others of their time."""
_SAME_KIND_RATIO: Final = 0.95
_SLOW_RATIO: Final = 0.5
_INTEL_KINDS: Final = (("cpu_core", 1.0), ("cpu_atom", 0.45), ("cpu_lowpower", 0.3))
_LEVEL_SPEEDS: Final = {"super": 1.0, "performance": 0.75, "efficiency": 0.3}
"""Speed of a core by the name of its performance level, where it is not the first one."""


class CoreKind(NamedTuple):
    """Cores that are alike: their speed beside the fastest kind's, and the first CPU of each."""

    speed: float
    cpus: tuple[int, ...]


class Cores(NamedTuple):
    """Cores that may be used, the fastest kind first; a quota is in CPUs' worth of time, None for none."""

    kinds: tuple[CoreKind, ...]
    logical_count: int
    quota_count: float | None = None

    @property
    def core_count(self) -> int:
        """Physical cores."""
        return sum(len(kind.cpus) for kind in self.kinds)

    @property
    def thread_count(self) -> int:
        """Threads worth starting where nothing was measured; there is at least one.

        Threads wait for the slowest of them at every barrier: the slowest kind is left out where its cores
        have less than half the speed of the fastest and all of them together less than the others. Hardware
        threads of one core share its path to memory, and add barriers alone.
        """
        counts = [len(kind.cpus) for kind in self.kinds]
        taken = self.core_count
        powers = [kind.speed * len(kind.cpus) for kind in self.kinds]
        if len(self.kinds) > 1 and self.kinds[-1].speed < _SLOW_RATIO and powers[-1] < sum(powers[:-1]):
            taken -= counts[-1]
        if self.quota_count is not None:
            taken = min(taken, int(self.quota_count))
        return max(taken, 1)


def cores(*, root: Path = ROOT, affinity: frozenset[int] | None = None) -> Cores:
    """The cores; ``affinity`` are the CPUs we may run on, asked of the system unless given."""
    allowed = allowed_cpus() if affinity is None else affinity
    text = read_text(root / "proc/cpuinfo")
    if not text:
        return portable_cores(sysctl())
    base = root / "sys/devices/system/cpu"
    parts = parts_of(text)
    online = numbers(read_text(base / "online"))
    if (
        re.search("^Features", text, re.MULTILINE) and online and online <= allowed
    ):  # a phone switches off idle cores
        allowed |= numbers(read_text(base / "present"))
    # Those with the same set of siblings are one core.
    firsts: dict[str, int] = {}
    for index in sorted(allowed):
        firsts.setdefault(read_text(base / f"cpu{index}/topology/thread_siblings_list") or str(index), index)
    return Cores(
        _kinds(_speeds(root, list(firsts.values()), parts)), len(allowed), cpu_quota_count(root=root)
    )


def performance_levels(facts: Mapping[str, str]) -> dict[int, int]:
    """Cores of each performance level that macOS's ``sysctl`` tells, by its number."""
    told = {number: facts.get(f"hw.perflevel{number}.physicalcpu", "") for number in range(8)}
    return {number: int(count) for number, count in told.items() if count.isdigit()}


def portable_cores(facts: Mapping[str, str]) -> Cores:
    """The cores as macOS tells them in its ``sysctl``, and psutil elsewhere."""
    import psutil

    kinds: list[CoreKind] = []
    start = 0
    for number, count in performance_levels(facts).items():
        speed = 1.0
        if number:
            name = facts.get(f"hw.perflevel{number}.name", "").lower()
            speed = _LEVEL_SPEEDS.get(name, _LEVEL_SPEEDS["efficiency"])
        kinds.append(CoreKind(speed, tuple(range(start, start + count))))
        start += count
    logical_count = int(facts.get("hw.logicalcpu") or psutil.cpu_count() or 1)
    if not kinds:
        physical = int(facts.get("hw.physicalcpu") or psutil.cpu_count(logical=False) or logical_count)
        kinds.append(CoreKind(1.0, tuple(range(physical))))
    return Cores(tuple(kinds), logical_count)


def sysctl() -> dict[str, str]:
    """Facts that macOS gives of its hardware; an empty dictionary on other systems."""
    if platform.system() != "Darwin":
        return {}
    try:
        printed = output_of(("/usr/sbin/sysctl", "hw", "machdep.cpu"), "sysctl", timeout_s=5, ends=None)
    except CouldNotRunError:
        return {}
    return dict(line.split(": ", 1) for line in printed.decode(errors="replace").splitlines() if ": " in line)


def allowed_cpus() -> frozenset[int]:
    """Numbers of the CPUs that we may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def parts_of(text: str) -> dict[int, str]:
    """``implementer/part`` of each Arm CPU in /proc/cpuinfo.

    Of CPU 0 alone where old kernels tell one for all.
    """
    parts: dict[int, str] = {}
    index = 0
    implementer = ""
    for name, value in re.findall(r"^(processor|CPU implementer|CPU part)\s*:\s*(\S+)", text, re.MULTILINE):
        if name == "processor" and value.isdigit():
            index = int(value)
        elif name == "CPU implementer":
            implementer = value
        elif name == "CPU part":
            parts[index] = f"{implementer}/{value}"
    return parts


def _speeds(root: Path, cpus: list[int], parts: Mapping[int, str]) -> dict[int, float]:
    """Speed of each CPU in a unit of its own.

    One that is switched off tells none, and takes its neighbour's.
    """
    base = root / "sys/devices/system/cpu"
    intel = {
        index: speed
        for name, speed in _INTEL_KINDS
        for index in numbers(read_text(root / f"sys/devices/{name}/cpus"))
    }
    levels = {index: len(list((base / f"cpu{index}/cache").glob("index*"))) for index in cpus}
    speeds: dict[int, float] = {}
    for index in cpus:
        speed = intel.get(index, 0.0)
        if 0 < speed < 1 and levels[index] < max(levels.values()):
            speed = _INTEL_KINDS[-1][1]  # it has no part of the last-level cache
        speed = speed or read_int(base / f"cpu{index}/cpu_capacity") or 0
        if not speed:
            implementer, _, number = parts.get(index, "").partition("/")
            speed = read_int(base / f"cpu{index}/cpufreq/cpuinfo_max_freq") or 0
            if number and number in _IN_ORDER.get(implementer, "").split():
                speed *= _SLOW_RATIO
        speeds[index] = float(speed)
    before = next(filter(None, speeds.values()), 1.0)
    for index in cpus:
        before = speeds[index] = speeds[index] or before
    return speeds


def _kinds(speeds: Mapping[int, float]) -> tuple[CoreKind, ...]:
    groups: list[list[int]] = []
    ordered = sorted(speeds, key=lambda index: (-speeds[index], index))
    for index in ordered:
        if not groups or speeds[index] < _SAME_KIND_RATIO * speeds[groups[-1][-1]]:
            groups.append([])
        groups[-1].append(index)
    return tuple(CoreKind(speeds[group[0]] / speeds[ordered[0]], tuple(sorted(group))) for group in groups)


_CPUS_MAX: Final = 65_536
_LIST_LETTERS: Final = 4_096
"""Read of a list: the longest of a real machine has some hundred letters."""


def numbers(text: str) -> frozenset[int]:
    """The numbers in a list of the kernel's kind, ``0-3,8``."""
    members: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text[:_LIST_LETTERS]):
        if len(first) <= 5:  # no machine has a CPU of a higher number
            members |= set(range(int(first), min(int(last[:6] or first), _CPUS_MAX) + 1))
    return frozenset(members)


def read_text(path: Path) -> str:
    """Text of a small kernel file without what is blank around it.

    Empty where it is missing or may not be read.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except (OSError, ValueError):
        return ""


def read_int(path: Path) -> int | None:
    """Whole number in a small kernel file; None where there is none."""
    try:
        return int(read_text(path).split()[0])
    except (ValueError, IndexError):
        return None


def cgroup_folders(
    controller: str, *, pid: int | str = "self", root: Path = ROOT
) -> Iterator[tuple[int, Path]]:
    """Folders of a process's group and of all its ancestors, innermost first, for ``memory``, ``cpu`` ...

    Each with its version, 1 or 2; both come where a machine mounts both.
    """
    process = root / "proc" / str(pid)
    members: dict[str, str] = {}
    for line in read_text(process / "cgroup").splitlines():
        _, names, path = line.split(":", 2)
        members |= dict.fromkeys(names.split(","), path)  # of version 2 the one without a name
    for line in read_text(process / "mountinfo").splitlines():
        # mountinfo: ... the mounted folder of the hierarchy, where; after a dash the type, the controllers
        told = re.match(r"\S+ \S+ \S+ (\S+) (\S+) .*?- (cgroup2?) .*?(\S+)$", line)
        if told is None:
            continue
        if told[3] == "cgroup2":
            version, member = 2, members.get("")
        else:
            version, member = 1, members.get(controller) if controller in told[4].split(",") else None
        if member is None:
            continue
        top = folder = root / told[2].lstrip("/")
        if PurePosixPath(member).is_relative_to(told[1]):  # else a container that sees its own subtree only
            folder = top / PurePosixPath(member).relative_to(told[1])
        if not folder.is_dir():
            folder = top
        for each in (folder, *folder.parents):
            if each.is_dir():
                yield version, each
            if each == top:
                break


def cpu_quota_count(*, root: Path = ROOT) -> float | None:
    """CPUs' worth of time that the tightest quota allows (2.0: two full CPUs); None without a quota."""
    quotas: list[float] = []
    names = {1: ("cpu.cfs_quota_us", "cpu.cfs_period_us"), 2: ("cpu.max",)}
    for version, folder in cgroup_folders("cpu", root=root):
        text = " ".join(read_text(folder / name) for name in names[version])
        if told := re.fullmatch("([1-9][0-9]*) ([1-9][0-9]*)", text):  # else "max", or -1: no quota
            quotas.append(int(told[1]) / int(told[2]))
    return min(quotas, default=None)
