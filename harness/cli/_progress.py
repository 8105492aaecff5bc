"""Progress of long work on standard error: one line on a terminal, with about how long is left.

No line elsewhere.
"""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from harness.cli._output import console
from harness.measure.pipeline import Listener
from harness.units import format_bytes

if TYPE_CHECKING:
    from rich.text import Text

    from harness.domain.record import RunRecord, Sample


class RunProgress(Listener):
    """Shows what is being done, how many of how many, and about how long all of it still takes.

    The line is drawn on a terminal, and not beside ``--json``; what is said, and how a run ended, is printed
    anywhere.
    """

    def __init__(self, title: str = "", now_s: Callable[[], float] = time.monotonic) -> None:
        from rich.live import Live

        self._console, self._now_s = console(stderr=True), now_s
        self._start_s = self._end_s = 0.0
        self._begun = self._coming = self._step_count = self._done_steps = 0
        self._title = title
        self._note = ""
        # No more than two redraws a second: drawing takes time on the cores that are being measured.
        self._live = Live(
            get_renderable=self._line,
            console=self._console,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
        )
        self._is_drawn = self._console.is_terminal and "--json" not in sys.argv

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """One line."""
        self._console.print(line, markup=False)

    def plan(self, count: int) -> None:
        """How many are to come."""
        self._coming = count

    def begin(self, title: str, step_count: int = 0, within_s: float = 0.0) -> None:
        """The next part, or what has a length of its own."""
        self._title = title
        self._note = ""
        self._end_s = within_s and self._now_s() + within_s
        self.expect(step_count)
        if not within_s:
            self._start_s = self._start_s or self._now_s()
            self._begun += 1
            self._coming = max(0, self._coming - 1)
        if self._is_drawn:
            self._live.start()
        elif not within_s:
            self.say(f"running {title}")

    def expect(self, step_count: int) -> None:
        """Steps of this part, none of them done."""
        self._step_count = step_count
        self._done_steps = 0

    def fetched(self, done_bytes: int, all_bytes: int) -> None:
        """How much of the file is here."""
        if self._is_drawn and all_bytes:
            self._live.start()
            self._note = f"{format_bytes(done_bytes)} of {format_bytes(all_bytes)}" * (done_bytes < all_bytes)

    def step(self, note: str = "", line: str = "") -> None:
        """One step of this part is done; the line is said where none is drawn."""
        self._done_steps = self._done_steps + 1
        self._note = note
        if line and not self._is_drawn:
            self.say(line)

    def sample(self, sample: "Sample") -> None:
        """A step, with its rate."""
        rate = ""
        if sample.token_count and sample.duration_s:
            rate = f" {sample.token_count / sample.duration_s:.1f} t/s"
        self.step(f"{sample.label}{rate}{' disturbed' if sample.validity.doubts else ''}")

    def end(self, record: "RunRecord") -> None:
        """The outcome stays, when it is not well; why is told with the results."""
        if record.outcome != "ok":
            self.say(f"{record.name}: {record.outcome}")

    def words(self) -> str:
        """The line: ``2 of 6  about 3 min left  smollm2-135m  tg128 124.2 t/s``.

        A narrow terminal cuts its end off.
        """
        all_count = self._begun + self._coming
        place = ""
        if all_count > 1 and not self._end_s:
            place = f"{self._begun} of {all_count}"
        return "  ".join(filter(None, (place, self._left_words(), self._title, self._note)))

    def _left_words(self) -> str:
        """From the time that it takes, else from the parts and steps that are done.

        Empty before the first one.
        """
        now_s = self._now_s()
        if self._end_s:
            return _left(self._end_s - now_s)
        share = self._done_steps / max(self._step_count, 1)
        done = self._begun - 1 + min(share, 1.0) * bool(self._step_count)
        if done > 0:
            return _left((now_s - self._start_s) / done * (self._begun + self._coming - done))
        return ""

    def _line(self) -> "Text":
        from rich.text import Text

        return Text(self.words(), no_wrap=True, overflow="ellipsis")


def _left(seconds: float) -> str:
    """``about 40 s left``, ``about 3 min left``, ``nearly done``."""
    if seconds < 1:
        return "nearly done"
    if seconds < 90:
        return f"about {seconds:.0f} s left"
    return f"about {seconds / 60:.0f} min left"
