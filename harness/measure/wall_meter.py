"""A wall meter: a program of the user's that prints watts, read while something else is measured.

Phones and boards have no counter of energy, and a counter inside a computer sees its chip alone. A meter in the socket
sees the whole device.
"""

import re
import shlex
import subprocess
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from types import TracebackType
from typing import Final, NamedTuple

from harness.core.errors import CouldNotRunError

FIRST_READING_S: Final = 15.0
"""A meter that says nothing for so long says nothing: sockets on a network answer once in some seconds."""
MOST_GAP_S: Final = 10.0
"""Between two readings: what power did in a longer silence is not known."""
_MOST_WATTS: Final = 20_000.0
"""No socket gives more."""
_LINE_CHARACTERS: Final = 1_000
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


class MeterReading(NamedTuple):
    """One line of a meter, by the clock of ``time.perf_counter``."""

    at_s: float
    watts: float


class WallMeter:
    """Runs a meter's program for as long as the ``with`` block lasts.

    The last number of each line is watts, and its time is that of its arrival; lines without a number are skipped.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self.readings: list[MeterReading] = []
        self.fault = ""
        self._first = threading.Event()

    @property
    def scope(self) -> str:
        """What the energy counts, in words."""
        return f"wall meter ({shlex.split(self.command)[0]}), the whole device"

    def __enter__(self) -> "WallMeter":
        try:
            words = shlex.split(self.command)
            self._process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, errors="replace"
            )
        except (OSError, ValueError, IndexError) as error:
            raise CouldNotRunError(f"--meter {self.command!r}: {error}") from error
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self._first.wait(FIRST_READING_S)
        if not self.readings:
            why = self.fault or f"no line with a number within {FIRST_READING_S:.0f} s"
            self._end()
            raise CouldNotRunError(
                f"--meter {self.command!r}: {why}, expected a line of watts for each reading, at once"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join(1.0)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        # A line without an end is cut, so that a program that prints no lines fills no memory.
        while line := self._process.stdout.readline(_LINE_CHARACTERS):
            numbers = _NUMBER.findall(line)
            if not numbers:
                continue
            watts = float(numbers[-1])
            if not 0 <= watts <= _MOST_WATTS:
                self.fault = f"found {watts:g} W"
                break
            self.readings.append(MeterReading(time.perf_counter(), watts))
            self._first.set()
        self.fault = self.fault or "it ended"
        self._first.set()

    def joules(self, start_s: float, end_s: float) -> float | None:
        """Energy between two moments of ``time.perf_counter``; None where the meter was silent in or around them."""
        return joules_of(self.readings, start_s, end_s)


def joules_of(readings: Sequence[MeterReading], start_s: float, end_s: float) -> float | None:
    """Energy between two moments (s), power being linear between readings; None where they do not span it.

    A silence of more than ``MOST_GAP_S`` beside or between the moments is no reading. A meter that tells a mean of the
    last seconds is late by half of them, which a window of many seconds forgives.
    """
    if not readings or readings[0].at_s > start_s or readings[-1].at_s < end_s:
        return None
    joules = 0.0
    for before, after in pairwise(readings):
        begin_s, stop_s = max(before.at_s, start_s), min(after.at_s, end_s)
        if begin_s >= stop_s:
            continue
        gap_s = after.at_s - before.at_s
        if gap_s > MOST_GAP_S:
            return None
        slope = (after.watts - before.watts) / gap_s
        middle = before.watts + slope * ((begin_s + stop_s) / 2 - before.at_s)
        joules += middle * (stop_s - begin_s)
    return joules
