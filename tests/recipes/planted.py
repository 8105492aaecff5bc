"""Plant slips of the pen in the tables that ship, one at a time, and read each table as the program does.

``typos.csv`` has them: the table, the words that stand there and those instead, the function that reads it, and what
the error must name: of a CSV file the column (its line is counted), of a TOML file the keys.
"""

import csv
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from harness.core import tables
from harness.core.errors import BadDataError

FILE = Path(__file__).with_name("typos.csv")


class Typo(NamedTuple):
    """A row of ``typos.csv``."""

    table: str
    found: str
    typo: str
    reader: str
    place: str


def typos() -> list[Typo]:
    """All that are planted."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return [Typo(**row) for row in csv.DictReader(file)]


def plant(one: Typo) -> tuple[str, str]:
    """The error that the slip makes, empty for none, and the place that it must name.

    ValueError for words that do not stand in the table, which then changed under its slips.
    """
    read, place, plain = _reader(one.reader), one.place, tables.shipped_text

    def text(path: str, package: str = "harness") -> str:
        nonlocal place
        held = plain(path, package)
        if path != one.table:
            return held
        before, _, after = held.partition(one.found)
        if not after:
            raise ValueError(f"{one.table} does not hold {one.found!r}")
        if path.endswith(".csv"):
            place = f"line {before.count(chr(10)) + 1}, {one.place}"
        return before + one.typo + after

    with patch.object(tables, "shipped_text", text):
        try:
            read()
        except BadDataError as error:
            return str(error), f"{one.table}: {place}"
    return "", f"{one.table}: {place}"


def _reader(words: str) -> Callable[[], object]:
    module, _, names = words.partition(":")
    found = import_module(module)
    for name in names.split("."):
        found = getattr(found, name)
    return found
