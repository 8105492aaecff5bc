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

from harness.errors import CouldNotRunError
from harness.outside import output_of

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
        """Threads worth starting where nothing was measured; at least 1.

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


def cores(*, root: Path = Path("/"), affinity: frozenset[int] | None = None) -> Cores:
    """The cores; ``affinity`` are the CPUs we may run on, asked of the system unless given."""
    if affinity is None:
        allowed = allowed_cpus()
    else:
        allowed = affinity
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


def portable_cores(facts: Mapping[str, str]) -> Cores:
    """The cores as macOS tells them in its ``sysctl``, and psutil elsewhere."""
    levels: list[CoreKind] = []
    start = 0
    for number in range(8):
        count = facts.get(f"hw.perflevel{number}.physicalcpu", "")
        if count.isdigit():
            name = facts.get(f"hw.perflevel{number}.name", "").lower()
            if number:
                speed = _LEVEL_SPEEDS.get(name, _LEVEL_SPEEDS["efficiency"])
            else:
                speed = 1.0
            levels.append(CoreKind(speed, tuple(range(start, start + int(count)))))
            start += int(count)
    logical = facts.get("hw.logicalcpu", "")
    if levels and logical.isdigit():
        return Cores(tuple(levels), int(logical))
    import psutil

    physical = (
        int(facts.get("hw.physicalcpu", 0)) or psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    )
    return Cores((CoreKind(1.0, tuple(range(physical))),), int(logical or psutil.cpu_count() or physical))


def sysctl() -> dict[str, str]:
    """What macOS tells of its hardware; empty elsewhere."""
    if platform.system() != "Darwin":
        return {}
    try:
        printed = output_of(("/usr/sbin/sysctl", "hw", "machdep.cpu"), "sysctl", timeout_s=5, ends=None)
    except CouldNotRunError:
        return {}
    return dict(line.split(": ", 1) for line in printed.decode(errors="replace").splitlines() if ": " in line)


def allowed_cpus() -> frozenset[int]:
    """Numbers of the CPUs that we may run on."""
    return frozenset(
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )


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
    intel = [(numbers(read_text(root / f"sys/devices/{name}/cpus")), speed) for name, speed in _INTEL_KINDS]
    base = root / "sys/devices/system/cpu"
    levels = {index: len(list((base / f"cpu{index}/cache").glob("index*"))) for index in cpus}
    speeds: dict[int, float] = {}
    for index in cpus:
        speed = max((speed for members, speed in intel if index in members), default=0.0)
        if speed and speed < 1 and levels[index] < max(levels.values()):
            speed = _INTEL_KINDS[-1][1]  # it has no part of the last-level cache
        speed = speed or read_int(base / f"cpu{index}/cpu_capacity") or 0
        if not speed:
            implementer, _, part = parts.get(index, "").partition("/")
            midr = read_text(base / f"cpu{index}/regs/identification/midr_el1")
            if midr and (register := int(midr, 16)):
                implementer = f"{register >> 24 & 0xFF:#04x}"
                part = f"{register >> 4 & 0xFFF:#05x}"
            if part and part in _IN_ORDER.get(implementer, "").split():
                weight = _SLOW_RATIO
            else:
                weight = 1.0
            speed = weight * (read_int(base / f"cpu{index}/cpufreq/cpuinfo_max_freq") or 0)
        speeds[index] = float(speed)
    known = [speed for speed in speeds.values() if speed]
    if known:
        before = known[0]
    else:
        before = 1.0
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
    controller: str, *, pid: int | str = "self", root: Path = Path("/")
) -> Iterator[tuple[int, Path]]:
    """Folders of a process's group and of all its ancestors, innermost first, for ``memory``, ``cpu`` ...

    Each with its version, 1 or 2; both come where a machine mounts both.
    """
    process = root / "proc" / str(pid)
    members = [line.split(":", 2) for line in read_text(process / "cgroup").splitlines()]
    for line in read_text(process / "mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        place = left.split()
        kind = right.split()
        if len(place) < 5 or not kind:
            continue
        if kind[0] == "cgroup2":
            version = 2
            member = next((path for number, names, path in members if number == "0" and not names), None)
        elif kind[0] == "cgroup" and controller in kind[-1].split(","):
            version = 1
            member = next((path for _, names, path in members if controller in names.split(",")), None)
        else:
            continue
        if member is None:
            continue
        try:
            inner = PurePosixPath(member).relative_to(place[3])
        except ValueError:  # a container that sees its own subtree only
            inner = PurePosixPath()
        top = root / place[4].lstrip("/")
        if (top / inner).is_dir():
            folder = top / inner
        else:
            folder = top
        while True:
            if folder.is_dir():
                yield version, folder
            if folder == top or top not in folder.parents:
                break
            folder = folder.parent


def cpu_quota_count(*, root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that the tightest quota allows (2.0: two full CPUs); None without a quota."""
    quotas: list[float] = []
    for version, folder in cgroup_folders("cpu", root=root):
        names = ["cpu.max"]
        if version == 1:
            names = ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        words = " ".join(read_text(folder / name) for name in names).split()
        if len(words) == 2 and all(
            word.isdigit() and int(word) for word in words
        ):  # else "max", or -1: no quota
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)
