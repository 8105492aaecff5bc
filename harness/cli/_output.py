"""What every verb prints with: one JSON document alone on stdout, or tables; progress on stderr."""

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.printable import MESSAGE_MAX, clean, clean_lines, escaped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

F = TypeVar("F", bound=Callable[..., Any])

PIPED_WIDTH = 140
"""Columns of a table that goes to a file or a pipe."""


def json_option(function: F) -> F:
    """Add ``--json``: one JSON document on stdout, tables and progress on stderr."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")(function)


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
