"""Control groups, version 1 and 2: those of a process, whose tightest limit binds, and one with a limit for one run.

Source: Linux Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Final

from harness.hardware.cpus import ROOT, cgroup_folders, cpu_quota_count, read_int, read_text

__all__ = ["cpu_quota_count", "read_int", "read_text"]
"""What others read of the kernel's files by this module, beside its own functions."""

UNLIMITED_BYTES = 2**60
"""Version 1 writes 2**63 rounded down to a page for "no limit"; no machine has an exbibyte."""
_REMOVE_TRIES: Final = 50  # the kernel lets a group go a moment after its last process is reaped
_NAMES: Final = {
    1: (
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.usage_in_bytes",
        "memory.max_usage_in_bytes",
    ),
    2: ("memory.max", "memory.swap.max", "memory.current", "memory.peak"),
}
"""Files of a group in each version: limit, limit of swap, usage, peak."""


def labelled_int(path: Path, label: str) -> int | None:
    """Number after a label at the start of a line of a kernel file; None where there is none."""
    for line in read_text(path).splitlines():
        name, _, value = line.partition(" ")
        if name == label and value.strip().isdigit():
            return int(value)
    return None


def memory_limit_bytes(*, root: Path = ROOT) -> int | None:
    """Smallest memory limit on the way from the process's group to the root; None where no group has one."""
    names = {1: ("memory.limit_in_bytes",), 2: ("memory.max", "memory.high")}
    folders = cgroup_folders("memory", root=root)
    limits = [read_int(folder / name) for version, folder in folders for name in names[version]]
    return min((limit for limit in limits if limit is not None and limit < UNLIMITED_BYTES), default=None)


def memory_room_bytes(*, root: Path = ROOT) -> int | None:
    """Bytes that the tightest group still has: its limit less what its processes hold, files in the page cache aside.

    It is None where no group on the way to the root has a limit.
    """
    rooms: list[int] = []
    for version, folder in cgroup_folders("memory", root=root):
        limit, used = read_int(folder / _NAMES[version][0]), read_int(folder / _NAMES[version][2])
        if limit is None or used is None or limit >= UNLIMITED_BYTES:
            continue
        prefix = "total_" if version == 1 else ""
        files = sum(
            labelled_int(folder / "memory.stat", f"{prefix}{kind}active_file") or 0 for kind in ("", "in")
        )
        rooms.append(max(limit - max(used - files, 0), 0))
    return min(rooms, default=None)


def throttled_s(*, pid: int | str = "self", root: Path = ROOT) -> float:
    """Seconds that the process's groups were held back by a CPU quota since they exist."""
    told = {1: ("throttled_time", 1e9), 2: ("throttled_usec", 1e6)}
    found = [
        (labelled_int(folder / "cpu.stat", told[version][0]) or 0) / told[version][1]
        for version, folder in cgroup_folders("cpu", pid=pid, root=root)
    ]
    return max(found, default=0.0)


class LimitGroup:
    """One group with a memory limit (or none: then it only counts): made before a child starts, removed after it ends.

    Groups can be made by root, or in a delegated subtree; everywhere else the caller falls back on a
    watchdog.
    """

    def __init__(self, version: int, folder: Path) -> None:
        self.version, self.folder = version, folder
        self._limit, self._swap, self._usage, self._peak = (folder / name for name in _NAMES[version])

    @classmethod
    def make(cls, limit_bytes: int | None, *, root: Path = ROOT) -> "LimitGroup | None":
        """Make a group below this process's own, or below the nearest ancestor that allows one; None if none does.

        ``limit_bytes`` is the most memory of the group, with the page cache of files that it touches first;
        None sets no limit.
        """
        for version, parent in cgroup_folders("memory", root=root):
            group = cls(version, parent / f"edge-harness-{os.getpid()}-{time.monotonic_ns():x}")
            if version == 2:
                with contextlib.suppress(OSError):
                    # Children get the memory files only if the parent hands the controller down.
                    (parent / "cgroup.subtree_control").write_text("+memory")
            try:
                group.folder.mkdir()
            except OSError:
                continue
            with contextlib.suppress(OSError):
                if group._usage.exists():  # the controller is handed down
                    if limit_bytes is not None:
                        group._limit.write_text(str(limit_bytes))
                        group._without_swap(limit_bytes)
                    return group
            group.remove()
        return None

    def _without_swap(self, limit_bytes: int) -> None:
        with contextlib.suppress(OSError):
            # Absent where swap is not counted; version 1 counts memory and swap together
            self._swap.write_text(str(limit_bytes) if self.version == 1 else "0")

    def add(self, pid: int) -> None:
        """Move a process into the group; memory that it holds already stays charged where it was.

        Raises:
            OSError: The system refused.
        """
        (self.folder / "cgroup.procs").write_text(str(pid))

    def peak_bytes(self) -> int | None:
        """Most memory ever charged to the group.

        None where the kernel does not tell (version 2 before 5.19).
        """
        return read_int(self._peak)

    def oom_kill_count(self) -> int:
        """Processes of the group that the kernel killed for lack of memory."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        return labelled_int(self.folder / name, "oom_kill") or 0

    def remove(self) -> None:
        """Remove the group; its processes must have ended. A group that stays in use is left behind."""
        for _ in range(_REMOVE_TRIES):
            with contextlib.suppress(OSError):
                self.folder.rmdir()
            if not self.folder.exists():
                return
            time.sleep(0.02)


def system_oom_kill_count() -> int:
    """Processes the kernel killed for lack of memory since boot, in all groups; 0 where it does not tell."""
    return labelled_int(Path("/proc/vmstat"), "oom_kill") or 0
