"""A memory control group for one run: made before the child starts, removed after it ends.

Works with version 1 and version 2 where the user may make groups (root, or a delegated subtree); everywhere else the
caller falls back on a watchdog. Source: Linux Documentation/admin-guide/cgroup-v1/memory.rst, cgroup-v2.rst.
"""

import contextlib
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from harness.measure.cgroup import cgroup_folders, labelled_int, read_int

_REMOVE_TRIES: Final = 50  # the kernel lets a group go a moment after its last process is reaped


class LimitGroup:
    """One group with a memory limit (or none: then it only counts).

    Attributes:
        version: 1 or 2.
        folder: The group's folder.
    """

    def __init__(self, version: int, folder: Path) -> None:
        self.version = version
        self.folder = folder

    @classmethod
    def make(cls, limit_bytes: int | None, *, root: Path = Path("/"), name: str = "") -> "LimitGroup | None":
        """Make a group below this process's own, or below the nearest ancestor that allows it; None if none does.

        Args:
            limit_bytes: Most memory, page cache of the files it touches first included; None for no limit.
            root: Root of the file system (a fake tree in tests).
            name: Name of the group's folder.
        """
        name = name or f"edge-harness-{os.getpid()}-{time.monotonic_ns():x}"
        for version, parent in cgroup_folders("memory", root=root):
            group = cls(version, parent / name)
            if group._try(parent, limit_bytes):
                return group
        return None

    def _try(self, parent: Path, limit_bytes: int | None) -> bool:
        if self.version == 2:
            # Children get the memory files only if the parent hands the controller down.
            with contextlib.suppress(OSError):
                _write(parent / "cgroup.subtree_control", "+memory")
        try:
            self.folder.mkdir()
        except OSError:
            return False
        handed_down = (self.folder / self._usage_name).exists()
        if not (handed_down and self._limit(limit_bytes)):
            self.remove()
            return False
        return True

    def _limit(self, limit_bytes: int | None) -> bool:
        if limit_bytes is None:
            return True
        try:
            _write(self.folder / ("memory.limit_in_bytes" if self.version == 1 else "memory.max"), str(limit_bytes))
        except OSError:
            return False
        if self.version == 1:
            with contextlib.suppress(OSError):  # absent where swap is not counted
                _write(self.folder / "memory.memsw.limit_in_bytes", str(limit_bytes))
        else:
            with contextlib.suppress(OSError):
                _write(self.folder / "memory.swap.max", "0")
        return True

    @property
    def _usage_name(self) -> str:
        return "memory.usage_in_bytes" if self.version == 1 else "memory.current"

    def add(self, pid: int) -> None:
        """Move a process in; what it already holds stays charged where it was.

        Raises:
            OSError: The system refused.
        """
        _write(self.folder / "cgroup.procs", str(pid))

    def peak_bytes(self) -> int | None:
        """Most memory ever charged to the group; None where the kernel does not tell (version 2 before 5.19)."""
        return read_int(self.folder / ("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak"))

    def oom_kill_count(self) -> int:
        """Processes of the group that the kernel killed for lack of memory."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        return labelled_int(self.folder / name, "oom_kill") or 0

    def remove(self) -> None:
        """Remove the group; its processes must have ended. A group that stays in use is left behind."""
        for _ in range(_REMOVE_TRIES):
            try:
                self.folder.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.02)
            else:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self.remove()


def system_oom_kill_count() -> int:
    """Processes the kernel killed for lack of memory since boot, in all groups; 0 where it does not tell."""
    return labelled_int(Path("/proc/vmstat"), "oom_kill") or 0


def _write(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
