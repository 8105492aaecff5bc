"""Print the result of a verb: one JSON document alone on stdout, or tables, with progress on stderr."""

import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import Any, Final, NamedTuple

import click

from harness.core.errors import Exit
from harness.core.printable import MESSAGE_MAX, clean, escaped

PIPED_WIDTH: Final = 140
"""Columns of a table that goes to a file or a pipe."""
JSON_VERSION: Final = 1
"""Version of the documents of ``--json``; a field that goes, or changes its meaning, raises it."""
_NUMBER: Final = re.compile(r"[-+~*]?\d[\d.,]*(e[-+]?\d+)?( ± [\d.]+)?( ?[^\d\s]{1,10})?")
_NO_NUMBER: Final = {"", "-", "–", "?", "any", "none", "no draft", "not known"}
"""What a cell of a column that is aligned right holds: a number with its unit, or that there is none."""
_PROSE_WIDTH: Final = 24
"""Columns that a cell of words keeps at least before another column is dropped for it."""


class Output(NamedTuple):
    """The result of a verb: ``document``, or a function that makes it, for ``--json``.

    ``show`` is the function that prints the same result for people.
    """

    document: Any
    show: Callable[[], object]
    status: int = Exit.OK

    def told(self, verb: str) -> int:
        """Print the result, as the JSON document of ``verb`` where one is named, and return the exit status."""
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


def screen_width() -> int:
    """Columns of the terminal; a pipe or a log has none of its own, and 80 would drop columns of every table there."""
    return shutil.get_terminal_size((PIPED_WIDTH, 24)).columns


def say(*parts: str) -> None:
    """Print lines, or tables, below each other on stdout."""
    for part in parts:
        click.echo(part)


def table(
    title: str, columns: Iterable[str], rows: Iterable[Iterable[object]], spare: Sequence[str] = ()
) -> str:
    """A plain table that fits the terminal; columns of numbers align right.

    In a narrow terminal the widest column of words wraps between words, then columns are left out: those named
    in ``spare`` in that order, then the others from the last one on. No word, number or flag is broken in two.
    """
    cells = [[clean(str(cell), MESSAGE_MAX) for cell in row] for row in (columns, *rows)]
    names = cells[0]
    right = set()
    whole: dict[int, int] = {}
    for at, (name, *column) in enumerate(zip(*cells, strict=True)):
        whole[at] = max(1, *map(len, [name, *column]))
        told = set(column) - _NO_NUMBER
        if told and all(map(_NUMBER.fullmatch, told)):
            right.add(at)
    prose = max(set(whole) - right, key=whole.__getitem__, default=0)
    words = " ".join(row[prose] for row in cells).split()
    least = max(min(_PROSE_WIDTH, whole[prose]), *map(len, words), 1)
    order = dict.fromkeys([*map(names.index, spare), *reversed(whole)])
    spared = [at for at in order if at not in {0, prose}]
    most = screen_width()
    widths = dict(whole)
    while sum(widths.values()) - widths[prose] + least + 2 * len(widths) - 2 > most and spared:
        del widths[spared.pop(0)]
    room = most - sum(widths.values()) + widths[prose] - 2 * len(widths) + 2
    widths[prose] = min(widths[prose], max(room, 1))
    if room < least:  # two columns, and still too wide
        widths = {at: min(whole[at], most // 2 - 1) for at in widths}
    lines = [title] * bool(title)
    for number, row in enumerate(cells):
        parts = [textwrap.wrap(row[at], width, break_on_hyphens=False) for at, width in widths.items()]
        for line in zip_longest(*parts, fillvalue=""):
            shown = []
            for (at, width), part in zip(widths.items(), line, strict=True):
                shown.append(part.rjust(width) if at in right else part.ljust(width))
            lines.append("  ".join(shown).rstrip())
        if number == 0:
            lines.append("─" * (sum(widths.values()) + 2 * len(widths) - 2))
    dropped = [name for at, name in enumerate(names) if name and at not in widths]
    if dropped:
        said = f"not shown in {most} columns, but by --json: {', '.join(dropped)}"
        lines += textwrap.wrap(said, most, break_on_hyphens=False)
    return "\n".join([*lines, ""])
