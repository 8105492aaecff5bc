"""What every verb prints with: one JSON document alone on stdout, or tables; progress on stderr."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click

from harness.errors import Exit
from harness.printable import MESSAGE_MAX, clean, clean_lines, escaped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from harness.catalog._progress import Progress

F = TypeVar("F", bound=Callable[..., Any])

PIPED_WIDTH = 140
"""Columns of a table that goes to a file or a pipe."""


def json_option(function: F) -> F:
    """Add ``--json``: one JSON document on stdout, tables and progress on stderr."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(function)


class Answer(NamedTuple):
    """What a verb found: ``document`` (or what makes it) for ``--json``; ``show`` prints the same for people."""

    document: Any
    show: Callable[[], object]
    status: int = Exit.OK


def answers(function: F) -> F:
    """Make a verb of a function that returns an :class:`Answer`: it takes ``--json`` and prints one or the other."""

    @wraps(function)
    def answered(*arguments: Any, as_json: bool, **given: Any) -> int:
        found: Answer | int = function(*arguments, **given)
        if isinstance(found, int):  # another verb has answered
            return found
        if as_json:
            emit_json(found.document() if callable(found.document) else found.document)
        else:
            found.show()
        return int(found.status)

    return json_option(cast("F", answered))


def emit_json(document: Any) -> None:
    """Print one JSON document on stdout (dataclasses and domain types included)."""
    import msgspec

    click.echo(
        escaped(
            msgspec.json.format(msgspec.json.encode(document, enc_hook=lambda number: number.item()), indent=2).decode()
        )
    )


def console(*, stderr: bool = False) -> "Console":
    """Where tables go (stdout), or progress (stderr)."""
    from rich.console import Console
    from rich.text import Text

    class Clean(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(clean_lines(text), **options)

    # A pipe or a log has no width of its own; 80 columns would fold every table there.
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Clean(file=getattr(stream, "styled", stream), highlight=False, width=width)


def say(*parts: Any) -> None:
    """Print lines, or tables, below each other on stdout; text is never markup."""
    screen = console()
    for part in parts:
        screen.print(part, markup=False)


def put(text: str, out: Path | None, document: Any = None, status: int = Exit.OK) -> Answer:
    """An answer that is a text: written into a file at once, beside ``--json`` too; on stdout where none is named."""
    if out is not None:
        from harness.records.store import write_atomically

        write_atomically(out, text.encode())
    return Answer(document, lambda: None if out else click.echo(text, nl=False), status)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]], right: Iterable[int] = ()) -> "Table":
    """A plain table; ``right`` lists the columns to align right. Cells are text of one line, never markup."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    right = set(right)
    view = Table(title=Text(clean(title, MESSAGE_MAX)) if title else None, box=SIMPLE_HEAD, title_justify="left")
    for index, name in enumerate(columns):
        view.add_column(Text(name), justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        view.add_row(*(Text(clean(str(cell), MESSAGE_MAX)) for cell in row))
    return view


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
    """The file that ``ref`` (a path, a name, or ``name:quant``) stands for, with a progress bar while it is fetched."""
    from harness.app.locate import obtain

    with bar(f"fetching {ref}", stays=False) as progress:
        return obtain(ref, quant, progress=progress).path
