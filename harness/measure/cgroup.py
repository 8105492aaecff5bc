"""Control groups of a process, version 1 and 2: the limit that really binds is the smallest one on the way up.

Source: Linux Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

UNLIMITED_BYTES = 2**60
"""Version 1 writes 2**63 rounded down to a page for "no limit"; no machine has an exbibyte."""


def read_text(path: Path) -> str | None:
    """Text of a small kernel file; None where it is missing or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return None


def read_int(path: Path) -> int | None:
    """Whole number in a small kernel file; None where there is none."""
    text = read_text(path)
    try:
        return int(text.split()[0]) if text else None
    except (ValueError, IndexError):
        return None


def labelled_int(path: Path, label: str) -> int | None:
    """Number after a label at the start of a line of a kernel file; None where there is none."""
    for line in (read_text(path) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == label and value.strip().isdigit():
            return int(value)
    return None


def cgroup_folders(controller: str, *, pid: int | str = "self", root: Path = Path("/")) -> Iterator[tuple[int, Path]]:
    """Folders of a process's group and of all its ancestors, innermost first, for ``memory``, ``cpu`` ...

    Yields:
        Pairs (version 1 or 2, folder). Both versions come where a machine mounts both.
    """
    process = root / "proc" / str(pid)
    members = [line.split(":", 2) for line in (read_text(process / "cgroup") or "").splitlines()]
    for line in (read_text(process / "mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        place, kind = left.split(), right.split()
        if len(place) < 5 or not kind:
            continue
        if kind[0] == "cgroup2":
            version, member = 2, next((path for number, names, path in members if number == "0" and not names), None)
        elif kind[0] == "cgroup" and controller in kind[-1].split(","):
            version, member = 1, next((path for _, names, path in members if controller in names.split(",")), None)
        else:
            continue
        if member is None:
            continue
        try:
            inner = PurePosixPath(member).relative_to(place[3])
        except ValueError:  # a container that sees its own subtree only
            inner = PurePosixPath()
        top = root / place[4].lstrip("/")
        folder = top / inner if (top / inner).is_dir() else top
        while True:
            if folder.is_dir():
                yield version, folder
            if folder == top or top not in folder.parents:
                break
            folder = folder.parent


def memory_limit_bytes(*, root: Path = Path("/")) -> int | None:
    """Smallest memory limit on the way from the process's group to the root; None without any."""
    found: list[int] = []
    for version, folder in cgroup_folders("memory", root=root):
        names = ("memory.limit_in_bytes",) if version == 1 else ("memory.max", "memory.high")
        found += [limit for name in names if (limit := read_int(folder / name)) is not None and limit < UNLIMITED_BYTES]
    return min(found, default=None)


def cpu_quota_count(*, root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that the tightest quota allows (2.0: two full CPUs); None without a quota."""
    found: list[float] = []
    for version, folder in cgroup_folders("cpu", root=root):
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if version == 1 else ("cpu.max",)
        words = " ".join(read_text(folder / name) or "" for name in names).split()
        if len(words) == 2 and all(word.isdigit() and int(word) for word in words):  # else "max", or -1: no quota
            found.append(int(words[0]) / int(words[1]))
    return min(found, default=None)


def throttled_s(*, pid: int | str = "self", root: Path = Path("/")) -> float:
    """Seconds that the process's groups were held back by a CPU quota since they exist."""
    told = {1: ("throttled_time", 1e9), 2: ("throttled_usec", 1e6)}
    found = [
        (labelled_int(folder / "cpu.stat", told[version][0]) or 0) / told[version][1]
        for version, folder in cgroup_folders("cpu", pid=pid, root=root)
    ]
    return max(found, default=0.0)
