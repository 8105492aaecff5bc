"""Where the time of a streamed pass goes, and how many threads other programs leave to it."""

import os
import time
from collections.abc import Callable
from typing import Final

import psutil

_LOOK_S: Final = 0.5
"""Between looks at what other programs take: fifty ticks of the kernel's own clock."""


class PassClock:
    """Times of the passes that an engine's callback sees.

    Each instant between the first node of an answer and its last is the engine's (outside of the callback) or the
    callback's, of which the schedule adds what it waited (``stall_s``) and moved pages (``move_s``).

    Attributes:
        passes_s: Each pass, from its first node to that of the next one: what the caller does between two passes of
            an answer counts. The last of an answer ends with the last node that was asked for.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Count from here on."""
        self.passes_s: list[float] = []
        self.engine_s = self.hook_s = self.stall_s = self.move_s = 0.0
        self._began_s = self._left_s = 0.0

    def timed(self, hook: Callable[[int, bool], bool]) -> Callable[[int, bool], bool]:
        """The same callback, with the time in it and outside of it counted."""

        def call(node: int, ask: bool) -> bool:
            entered_s = time.perf_counter()
            if self._left_s:
                self.engine_s += entered_s - self._left_s
            try:
                return hook(node, ask)
            finally:
                self._left_s = time.perf_counter()
                self.hook_s += self._left_s - entered_s

        return call

    def begin(self) -> None:
        """Begin a pass, which ends the one before it."""
        self._end(time.perf_counter())
        self._began_s = time.perf_counter()

    def so_far_s(self) -> float:
        """Seconds since the pass began."""
        return time.perf_counter() - self._began_s

    def settle(self) -> None:
        """End an answer: what comes before the next node is no time of a pass."""
        self._end(self._left_s)
        self._began_s = self._left_s = 0.0

    def _end(self, now_s: float) -> None:
        if self._began_s:
            self.passes_s.append(now_s - self._began_s)


class Company:
    """Threads that a pass should take beside other programs, of ``most`` that it takes alone.

    Threads of an engine wait for each other after every product, spinning. One that has to share its core makes all
    of them wait for its turn, so that a core less is faster than a core that is shared.
    """

    def __init__(self, most: int) -> None:
        self._most = self._now = most
        self._looked_s = self._busy_s = self._own_s = 0.0

    def thread_count(self) -> int:
        """So many threads for the next pass."""
        now_s = time.perf_counter()
        if now_s - self._looked_s >= _LOOK_S:
            told = psutil.cpu_times()
            busy_s = (
                sum(told[:8]) - told.idle - getattr(told, "iowait", 0.0)
            )  # the last two of ten count guests again
            own_s = sum(os.times()[:2])
            if self._looked_s:
                taken = (busy_s - self._busy_s - (own_s - self._own_s)) / (now_s - self._looked_s)
                free = (psutil.cpu_count() or 1) - taken
                self._now = max(1, min(self._most, round(free)))
            self._looked_s, self._busy_s, self._own_s = now_s, busy_s, own_s
        return self._now
