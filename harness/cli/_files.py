"""A model's file for verbs that run one: a path as it is, a name fetched first when it is not here yet."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli._output import console

if TYPE_CHECKING:
    from harness.catalog._progress import Progress


@contextmanager
def bar(title: str, *, stays: bool = True) -> "Iterator[Progress]":
    """A progress bar on stderr, where that is a terminal; seen from the first byte on."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.fields[title]}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    screen, off = console(stderr=True), not console(stderr=True).is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=screen, disable=off, transient=not stays) as bars:
        task = bars.add_task("", title=title, total=None, visible=False)

        def progress(done_bytes: int, total_bytes: int) -> None:
            bars.update(task, completed=done_bytes, total=total_bytes, visible=True)

        yield progress


def model_file(ref: str, quant: str = "") -> Path:
    """The file that ``ref`` (a path, a name, or ``name:quant``) stands for, with a progress bar while it is fetched.

    Raises:
        UnknownNameError, BadDataError, RefusedError, FetchError: As ``harness.app.locate.locate``.
    """
    from harness.app.locate import locate

    with bar(f"fetching {ref}", stays=False) as progress:
        return locate(ref, quant, progress=progress).path
