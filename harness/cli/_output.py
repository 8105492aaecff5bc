"""What every verb prints with: one JSON document alone on stdout, or tables; progress on stderr."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from harness.errors import Exit
from harness.printable import MESSAGE_MAX, clean, clean_lines, escaped

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH: Final = 140
"""Columns of a table that goes to a file or a pipe."""
JSON_VERSION: Final = 1
"""Version of the documents of ``--json``; a field that goes, or changes its meaning, raises it."""
HANDHELD: Final = ("phone", "tablet")
"""Kinds of devices on which nobody types a command."""
_NUMBER: Final = re.compile(r"[-+~*]?\d[\d.,]*(e[-+]?\d+)?( ± [\d.]+)?( ?[^\d\s]{1,10})?")
_NO_NUMBER: Final = {"", "-", "–", "?", "any", "none", "no draft", "not known"}
"""What a cell of a column that is aligned right holds: a number with its unit, or that there is none."""
_PROSE_WIDTH: Final = 24
"""Columns that a cell of words keeps at least before another column is dropped for it."""


class Answer(NamedTuple):
    """What a verb found: ``document`` (or what makes it) for ``--json``.

    ``show`` prints the same for people.
    """

    document: Any
    show: Callable[[], object]
    status: int = Exit.OK

    def told(self, verb: str) -> int:
        """Print it, as the JSON document of ``verb`` where one is named; its exit status."""
        if verb:
            document = self.document() if callable(self.document) else self.document
            click.echo(json_document(document, verb).decode())
        else:
            self.show()
        return int(self.status)


def json_document(document: Any, verb: str) -> bytes:
    """One JSON object: its ``schema`` (the verb) and ``version``, then the document.

    A list stands under ``items``. Domain types, named tuples and numbers of numpy are taken too. What each
    document holds is in ``docs/json-schema.json``.
    """
    import msgspec

    built = msgspec.to_builtins(document, enc_hook=lambda number: number.item(), str_keys=True)
    if isinstance(built, dict):
        body = built
    else:
        body = {"items": built}
    whole = {"schema": f"edge-harness {verb}", "version": JSON_VERSION} | body
    return escaped(msgspec.json.format(msgspec.json.encode(whole), indent=2).decode()).encode()


def console(*, stderr: bool = False) -> "Console":
    """Where tables go (stdout), or progress (stderr); colours are off where NO_COLOR is set."""
    from rich.console import Console
    from rich.text import Text

    class Clean(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(clean_lines(text), **options)

    # A pipe or a log has no width of its own; 80 columns would drop columns of every table there.
    if stderr:
        stream = sys.stderr
    else:
        stream = sys.stdout
    if stream.isatty() or "COLUMNS" in os.environ:
        width = None
    else:
        width = PIPED_WIDTH
    return Clean(file=getattr(stream, "styled", stream), highlight=False, width=width)


def say(*parts: Any) -> None:
    """Print lines, or tables, below each other on stdout; text is never markup."""
    screen = console()
    for part in parts:
        screen.print(part, markup=False)


class Table(NamedTuple):
    """A plain table that fits the terminal; ``right`` are the columns of numbers, which align right.

    In a narrow terminal columns of words wrap between words, then columns are left out: those named in
    ``spare`` in that order, then the others from the last one on. No word, number or flag is broken in two.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: frozenset[int] = frozenset()
    spare: Sequence[str] = ()

    def __rich_console__(self, screen: Any, options: Any) -> Iterator[Any]:
        """Rows of text for a console of ``options.max_width`` columns."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as Sheet
        from rich.text import Text

        widths = self._widths(options.max_width)
        title = None
        if self.title:
            title = Text(self.title)
        sheet = Sheet(
            title=title, box=SIMPLE_HEAD, title_justify="left", show_edge=False, padding=(0, 1, 0, 0)
        )
        for index, width in widths.items():
            heading = Text(self.columns[index], justify="right" if index in self.right else "left")
            sheet.add_column(heading, justify=heading.justify or "left", width=width, overflow="ellipsis")
        for row in self.rows:
            sheet.add_row(*(Text(row[index]) for index in widths))
        yield sheet
        dropped = [name for index, name in enumerate(self.columns) if name and index not in widths]
        if dropped:
            yield Text(f"not shown in {options.max_width} columns, but by --json: {', '.join(dropped)}")
        yield Text("")

    def _widths(self, most: int) -> dict[int, int]:
        """Width of each column that is shown: as its longest word or number, and what room is left."""
        whole = {}
        widths = {}
        for index, name in enumerate(self.columns):
            cells = [row[index] for row in self.rows]
            whole[index] = max(map(len, [name, *cells]))
            if index in self.right:
                widths[index] = max(map(len, [*name.split(), *cells]))
            else:
                words = " ".join([name, *cells]).split()
                widths[index] = max([min(_PROSE_WIDTH, whole[index]), *map(len, words)])
        spare = [self.columns.index(name) for name in self.spare if name in self.columns]
        spare += [index for index in reversed(whole) if index not in spare and index]
        while len(widths) > 2 and sum(widths.values()) + 2 * len(widths) - 1 > most:
            del widths[spare.pop(0)]
        room = most - sum(widths.values()) - 2 * len(widths) + 1
        for index in sorted(widths, key=lambda index: whole[index] - widths[index]):
            more = max(min(room, whole[index] - widths[index]), 0)
            widths[index] += more
            room -= more
        if room < 0:  # two columns, and still too wide: long words are cut
            first, last = sorted(widths, key=widths.__getitem__)
            widths[first] = min(widths[first], most // 3)
            widths[last] = most - widths[first] - 3
        return widths


def table(
    title: str, columns: Iterable[str], rows: Iterable[Iterable[str]], spare: Sequence[str] = ()
) -> Table:
    """A :class:`Table` of cells that are text of one line, never markup; columns of numbers align right."""
    cells = [tuple(clean(str(cell), MESSAGE_MAX) for cell in row) for row in rows]
    told = [set(column) - _NO_NUMBER for column in zip(*cells, strict=True)]
    right = frozenset(at for at, words in enumerate(told) if words and all(map(_NUMBER.fullmatch, words)))
    return Table(clean(title, MESSAGE_MAX), tuple(columns), cells, right, spare)
