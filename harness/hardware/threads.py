"""How many threads a run uses when nobody says, by the rule of ``harness.hardware.cpus``; readers go before them."""

import contextlib
import os
import sys
from typing import Final

from harness.hardware.cpus import cores


def default_thread_count() -> int:
    """Threads of runs, predictions and probes alike."""
    return cores().thread_count


def yield_to_readers(thread: int) -> None:
    """Lower the priority of a thread that computes, by its number in the kernel, for as long as it lives.

    Only Linux has such numbers; other systems change nothing. A thread that reads computes next to nothing: where
    every core has a thread that computes, the reader waits for its turn after each read, and the device stands
    still meanwhile.
    """
    if sys.platform == "linux":  # elsewhere the number is that of some process
        with contextlib.suppress(OSError):  # the thread has ended
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _BEHIND)


_BEHIND: Final = 5
"""A third of the share of a core beside a reader that wants it too."""
