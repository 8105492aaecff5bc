"""Memory of another process over its life, read from outside at little cost.

``/proc/PID/status`` costs some 20 microseconds and no lock of the watched process. The peak is VmHWM, which
starts anew at exec, and never ``ru_maxrss``, which a child inherits from its parent: /bin/true started by a
process of 300 MB has 300 MB by that. Source: proc_pid_status(5), getrusage(2).
"""

import contextlib
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from harness.core.record import MemoryUse

FIRST_PERIOD_S: Final = 0.001
PERIOD_S: Final = 0.02
SLOWEST_PERIOD_S: Final = 1.0
LIMITED_PERIOD_S: Final = 0.1
"""While memory does not change, sampling slows down to this: each look takes a measured core from the engine,
whose other threads then wait (two cores: ten looks a second cost 2 to 3 % of its speed). A limit has to be
kept."""
CHANGED_BYTES: Final = 1 << 20
_FIELDS: Final = re.compile(rb"^(Vm(?:RSS|HWM)|Rss(?:Anon|File|Shmem)):\s+(\d+)", re.MULTILINE)


class MemoryReading(NamedTuple):
    """Memory of a process at one moment, in bytes."""

    rss_bytes: int
    peak_rss_bytes: int
    anonymous_bytes: int
    file_bytes: int


def read_memory(pid: int | None = None, *, root: Path = Path("/")) -> MemoryReading | None:
    """Memory of a process now, of this one where none is named; None when it is gone.

    Where there is no /proc psutil tells one figure, all of it counted as anonymous.
    """
    number = os.getpid() if pid is None else pid
    if not (root / "proc").exists():
        with contextlib.suppress(psutil.Error):
            info = psutil.Process(number).memory_info()
            return MemoryReading(info.rss, max(getattr(info, "peak_wset", 0), info.rss), info.rss, 0)
        return None
    told: dict[bytes, int] = {}
    with contextlib.suppress(OSError):
        for name, kib in _FIELDS.findall((root / "proc" / str(number) / "status").read_bytes()):
            told[name] = int(kib) * 1024
    if not (rss_bytes := told.get(b"VmRSS", 0)):
        return None  # a zombie has no memory any more
    own_bytes = told.get(b"RssAnon", 0) + told.get(b"RssShmem", 0)
    return MemoryReading(rss_bytes, max(told.get(b"VmHWM", 0), rss_bytes), own_bytes, told.get(b"RssFile", 0))


def memory_mark(name: str, emit: Callable[[str, Any], None]) -> None:
    """Tell as ``memory`` what this process holds, where the system says it."""
    if (reading := read_memory()) is not None:
        emit("memory", {"mark": name, **reading._asdict()})


def reset_peak() -> None:
    """Let this process's VmHWM start anew from what it holds now. Source: proc_pid_clear_refs(5), value 5."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class MemoryWatch:
    """A thread that watches one process from :meth:`start` on: often at first, so that a short one is seen at its peak.

    ``on_excess`` is called once, when anonymous memory exceeds ``limit_bytes``; None for no limit.
    """

    def __init__(
        self, pid: int, *, limit_bytes: int | None = None, on_excess: Callable[[], None] = lambda: None
    ) -> None:
        self.pid = pid
        self.limit_bytes = limit_bytes
        self.on_excess = on_excess
        self._done = threading.Event()
        self._highest = MemoryReading(0, 0, 0, 0)
        self._thread = threading.Thread(target=self._run, name="memory-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._look()
        self._thread.start()

    def stop(self) -> MemoryUse:
        """Stop watching, and tell the most that was seen of each kind."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        _, rss_bytes, anonymous_bytes, file_bytes = self._highest
        return MemoryUse(
            peak_rss_bytes=rss_bytes, peak_anonymous_bytes=anonymous_bytes, peak_file_bytes=file_bytes
        )

    def _run(self) -> None:
        period_s = FIRST_PERIOD_S
        last_bytes = 0
        while not self._done.wait(period_s):
            held_bytes = self._look()
            slowest_s = SLOWEST_PERIOD_S if self.limit_bytes is None else LIMITED_PERIOD_S
            if abs(held_bytes - last_bytes) > CHANGED_BYTES:
                last_bytes = held_bytes
                slowest_s = PERIOD_S
            period_s = min(period_s * 1.25, slowest_s)

    def _look(self) -> int:
        """Look once; the bytes that the process holds, 0 when it is gone."""
        reading = read_memory(self.pid)
        if reading is None:
            return 0
        self._highest = MemoryReading(*map(max, self._highest, reading))
        if self.limit_bytes is not None and reading.anonymous_bytes > self.limit_bytes:
            self.limit_bytes = None  # once is enough
            self.on_excess()
        return reading.anonymous_bytes + reading.file_bytes
