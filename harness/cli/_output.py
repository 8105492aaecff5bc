"""What every verb prints with: one JSON document alone on stdout, or tables; progress on stderr."""

import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import Any, Final, NamedTuple

import click

from harness.errors import Exit
from harness.printable import MESSAGE_MAX, clean, escaped

PIPED_WIDTH: Final = 140
"""Columns of a table that goes to a file or a pipe."""
JSON_VERSION: Final = 1
"""Version of the documents of ``--json``; a field that goes, or changes its meaning, raises it."""
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

    In a narrow terminal columns of words wrap between words, then columns are left out: those named in
    ``spare`` in that order, then the others from the last one on. No word, number or flag is broken in two.
    """
    cells = [[clean(str(cell), MESSAGE_MAX) for cell in row] for row in (columns, *rows)]
    names = cells[0]
    right = set[int]()
    whole: dict[int, int] = {}
    least: dict[int, int] = {}
    for index, (name, *column) in enumerate(zip(*cells, strict=True)):
        told = set(column) - _NO_NUMBER
        whole[index] = max(1, *map(len, [name, *column]))
        least[index] = max([min(_PROSE_WIDTH, whole[index]), *map(len, " ".join([name, *column]).split())])
        if told and all(map(_NUMBER.fullmatch, told)):
            right.add(index)
            least[index] = max(map(len, [*name.split(), *column]))
    spared = [names.index(name) for name in spare if name in names]
    spared += [index for index in reversed(whole) if index not in spared and index]
    most = screen_width()
    widths = _fitted(whole, least, spared, most)
    lines = [title] * bool(title)
    for number, row in enumerate(cells):
        parts = [textwrap.wrap(row[at], widths[at], break_on_hyphens=False) for at in widths]
        for line in zip_longest(*parts, fillvalue=""):
            shown = []
            for at, part in zip(widths, line, strict=True):
                shown.append(part.rjust(widths[at]) if at in right else part.ljust(widths[at]))
            lines.append("  ".join(shown).rstrip())
        if number == 0:
            lines.append("─" * (sum(widths.values()) + 2 * len(widths) - 2))
    dropped = [name for at, name in enumerate(names) if name and at not in widths]
    if dropped:
        said = f"not shown in {most} columns, but by --json: {', '.join(dropped)}"
        lines += textwrap.wrap(said, most, break_on_hyphens=False)
    return "\n".join([*lines, ""])


def _fitted(whole: dict[int, int], least: dict[int, int], spared: list[int], most: int) -> dict[int, int]:
    """Width of each column that is shown: wrapped where they are too wide together, then left out."""
    widths = dict(whole)
    while True:
        over = sum(widths.values()) + 2 * len(widths) - 2 - most
        if over <= 0:
            return widths
        widest = max(widths, key=lambda at: widths[at] - least[at])
        spare = widths[widest] - least[widest]
        if spare > 0:
            widths[widest] -= min(over, spare)
        elif len(widths) > 2:
            gone = spared.pop(0)
            widths = {at: whole[at] for at in widths if at != gone}
        else:  # two columns, and still too wide: long words are cut
            return dict.fromkeys(widths, most // 2 - 1)
