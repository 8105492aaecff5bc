"""A memory control group for one run: made before the child starts, removed after it ends.

Works with version 1 and version 2 where the user may make groups (root, or a delegated subtree); everywhere else the
caller falls back on a watchdog. Source: Linux Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Final

from harness.measure.cgroup import cgroup_folders, labelled_int, read_int

_REMOVE_TRIES: Final = 50  # the kernel lets a group go a moment after its last process is reaped
_NAMES: Final = {
    1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.usage_in_bytes", "memory.max_usage_in_bytes"),
    2: ("memory.max", "memory.swap.max", "memory.current", "memory.peak"),
}
"""Files of a group in each version: limit, limit of swap, usage, peak."""


class LimitGroup:
    """One group with a memory limit (or none: then it only counts)."""

    def __init__(self, version: int, folder: Path) -> None:
        self.version, self.folder = version, folder
        self._limit, self._swap, self._usage, self._peak = (folder / name for name in _NAMES[version])

    @classmethod
    def make(cls, limit_bytes: int | None, *, root: Path = Path("/")) -> "LimitGroup | None":
        """Make a group below this process's own, or below the nearest ancestor that allows it; None if none does.

        ``limit_bytes``: most memory, page cache of the files it touches first included; None for no limit.
        """
        for version, parent in cgroup_folders("memory", root=root):
            group = cls(version, parent / f"edge-harness-{os.getpid()}-{time.monotonic_ns():x}")
            with contextlib.suppress(OSError):
                if version == 2:
                    # Children get the memory files only if the parent hands the controller down.
                    (parent / "cgroup.subtree_control").write_text("+memory")
            try:
                group.folder.mkdir()
            except OSError:
                continue
            if group._limited(limit_bytes):
                return group
            group.remove()
        return None

    def _limited(self, limit_bytes: int | None) -> bool:
        if not self._usage.exists():  # the controller is not handed down
            return False
        if limit_bytes is None:
            return True
        try:
            self._limit.write_text(str(limit_bytes))
        except OSError:
            return False
        with contextlib.suppress(
            OSError
        ):  # absent where swap is not counted; version 1 counts memory and swap together
            self._swap.write_text(str(limit_bytes) if self.version == 1 else "0")
        return True

    def add(self, pid: int) -> None:
        """Move a process in; what it already holds stays charged where it was.

        Raises:
            OSError: The system refused.
        """
        (self.folder / "cgroup.procs").write_text(str(pid))

    def peak_bytes(self) -> int | None:
        """Most memory ever charged to the group; None where the kernel does not tell (version 2 before 5.19)."""
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
