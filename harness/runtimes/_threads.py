"""How many threads a run uses when nobody says: the rule of ``harness.cpus``, or what was measured."""

import contextlib
import hashlib
import os
import sys
from pathlib import Path
from typing import Final

from harness.catalog.paths import home_dir
from harness.cpus import Cores, cores, read_int


def default_thread_count() -> int:
    """Threads of runs, predictions and probes alike: as many as were fastest here, else what the rule says."""
    here = cores()
    return (len(here.choices) > 1 and read_int(_place(here))) or here.thread_count


def keep_thread_count(here: Cores, count: int) -> None:
    """Remember the number of threads that was fastest on these cores."""
    with contextlib.suppress(OSError):  # a home that cannot be written: the rule goes on holding
        _place(here).parent.mkdir(parents=True, exist_ok=True)
        _place(here).write_text(f"{count}\n")


def yield_to_readers(thread: int) -> None:
    """Lower the priority of a thread that computes, by its number in the kernel, for as long as it lives.

    Linux only.

    A reader computes next to nothing. Where every core has a thread that computes, it waits for its turn
    after each read, and the device stands still meanwhile.
    """
    if sys.platform == "linux":  # elsewhere the number is that of some process
        with contextlib.suppress(OSError):  # the thread has ended
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _BEHIND)


_BEHIND: Final = 5
"""A third of the share of a core beside a reader that wants it too."""


def _place(here: Cores) -> Path:
    return home_dir() / "threads" / hashlib.sha256(repr(here).encode()).hexdigest()[:12]
