"""Progress of long work on standard error: one line on a terminal, with about how long is left.

Where standard error is no terminal, as in a pipe, nothing is printed.
"""

import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

import click

from harness.core.printable import clean
from harness.core.units import format_bytes
from harness.measure.pipeline import Listener

if TYPE_CHECKING:
    from harness.core.record import Sample

_REDRAW_S: Final = 0.5
"""Drawing takes time on the cores that are being measured."""


class RunProgress(Listener):
    """Shows what is being done, how many of how many, and about how long all of it still takes.

    The line is drawn on a terminal, and not beside ``--json``; what is said is printed anywhere.
    """

    def __init__(self, title: str = "", now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._start_s = self._end_s = 0.0
        self._begun = self._coming = self._step_count = self._done_steps = 0
        self._title = title
        self._note = ""
        self._is_over = threading.Event()
        self._is_drawn = sys.stderr.isatty() and "--json" not in sys.argv

    def __enter__(self) -> Self:
        if self._is_drawn:
            threading.Thread(target=self._redraw, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._draw("")

    def say(self, line: str) -> None:
        """One line."""
        self._draw("")
        click.echo(line, err=True)

    def plan(self, count: int) -> None:
        """How many are to come."""
        self._coming = count

    def begin(self, title: str, step_count: int = 0, within_s: float = 0.0) -> None:
        """The next part, or what has a length of its own."""
        self._title = title
        self._note = ""
        self._end_s = within_s and self._now_s() + within_s
        self.expect(step_count)
        if within_s:
            return
        self._start_s = self._start_s or self._now_s()
        self._begun += 1
        self._coming = max(0, self._coming - 1)
        if not self._is_drawn:
            self.say(f"running {title}")

    def expect(self, step_count: int) -> None:
        """Steps of this part, none of them done."""
        self._step_count = step_count
        self._done_steps = 0

    def fetched(self, done_bytes: int, all_bytes: int) -> None:
        """How much of the file is here."""
        self._note = f"{format_bytes(done_bytes)} of {format_bytes(all_bytes)}" * (done_bytes < all_bytes)

    def step(self, note: str = "", line: str = "") -> None:
        """One step of this part is done; the line is said where none is drawn."""
        self._done_steps += 1
        self._note = note
        if line and not self._is_drawn:
            self.say(line)

    def sample(self, sample: "Sample") -> None:
        """A step, with its rate."""
        rate = ""
        if sample.token_count and sample.duration_s:
            rate = f" {sample.token_count / sample.duration_s:.1f} t/s"
        self.step(f"{sample.label}{rate}{' disturbed' * bool(sample.validity.doubts)}")

    def words(self) -> str:
        """The line: ``2 of 6  about 3 min left  smollm2-135m  tg128 124.2 t/s``.

        What is left is told by the time that it takes, else by the parts and steps that are done; not before the
        first one.
        """
        all_count = self._begun + self._coming
        now_s = self._now_s()
        place = left = ""
        left_s = self._end_s - now_s
        done = float(bool(self._end_s))
        if not self._end_s:
            place = f"{self._begun} of {all_count}" * (all_count > 1)
            done = self._begun - 1 + min(self._done_steps / (self._step_count or float("inf")), 1.0)
            left_s = (now_s - self._start_s) * (all_count - done) / (done or 1.0)
        if done > 0:
            left = f"about {left_s / 60:.0f} min left" if left_s >= 90 else f"about {left_s:.0f} s left"
        if done > 0 and left_s < 1:
            left = "nearly done"
        return "  ".join(filter(None, (place, left, self._title, self._note)))

    def _redraw(self) -> None:
        while not self._is_over.wait(_REDRAW_S):
            self._draw(self.words())

    def _draw(self, text: str) -> None:
        """Put the text in place of the line, past the stream that takes signs which move the cursor for a stranger's."""
        if self._is_drawn and sys.__stderr__ is not None:
            width = shutil.get_terminal_size().columns - 1
            sys.__stderr__.write(f"\r{clean(text, width):{width}}\r")
            sys.__stderr__.flush()
