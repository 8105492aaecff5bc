"""Progress of measured runs on standard error: a bar for each model, plain lines where there is no terminal."""

from typing import TYPE_CHECKING, Self

from harness.cli._output import console
from harness.cli._records import reasons
from harness.measure.pipeline import Listener

if TYPE_CHECKING:
    from harness.domain.record import RunRecord, Sample


class RunProgress(Listener):
    """Shows cells and samples as they come; a bar is there from the first one that begins."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = console(stderr=True)
        # No more than two redraws a second: drawing takes time on the cores that are being measured.
        self._progress = Progress(
            TextColumn("{task.fields[model]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", markup=False),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=2,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = None if self._progress.disable else self._progress.add_task("", model="", note="", visible=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        """One line."""
        self._console.print(line, markup=False)

    def begin(self, title: str, sample_count: int) -> None:
        """A new bar."""
        if self._task is None:
            self.say(f"running {title}")
        else:
            self._progress.start()
            self._progress.reset(self._task, total=sample_count or None, visible=True, model=title, note="")

    def fetched(self, done_bytes: int, all_bytes: int) -> None:
        """How much of the file is here."""
        if self._task is not None and all_bytes:
            self._progress.update(self._task, note=f"fetching {done_bytes / all_bytes:.0%}")

    def sample(self, sample: "Sample") -> None:
        """One step of the bar."""
        if self._task is None:
            return
        rate = f" {sample.token_count / sample.duration_s:.1f} t/s" if sample.token_count and sample.duration_s else ""
        mark = " disturbed" if sample.validity.doubts else ""
        self._progress.update(self._task, advance=1, note=f"{sample.label}{rate}{mark}")

    def end(self, record: "RunRecord") -> None:
        """The bar goes; the outcome stays, when it is not well."""
        if self._task is not None:
            self._progress.update(self._task, visible=False)
        for line in reasons([record]):
            self.say(line)
