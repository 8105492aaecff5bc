"""Files of published measurements as text: each row by its columns, with its place for what is wrong with it."""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final, Literal

from harness.domain.base import shipped_table, shipped_text
from harness.domain.foreign import read_limited
from harness.errors import BadDataError

Kind = Literal["speed", "speculation", "streaming", "placement", "energy", "thermal", "batch"]

_COLUMNS: Final[dict[Any, dict[str, list[str]]]] = shipped_table("data/columns.toml", "harness.published")


class Cells(dict[str, str]):
    """One row as text by column, with its place in the file."""

    def __init__(self, cells: Mapping[str, str], path: Path | str, line: int) -> None:
        super().__init__(cells)
        self.path = path
        self.line = line

    def number(self, column: str) -> float:
        """Value of a cell; 0 for a blank or a missing one.

        Raises:
            BadDataError: It is no number, or a negative one.
        """
        text = self.get(column, "").replace(",", "")
        place = f"line {self.line}, {column}"
        if not text or text.lower() in {"nan", "none", "null", "n/a", "na", "-", "?"}:
            return 0.0
        try:
            value = float(text)
        except ValueError:
            raise BadDataError(self.path, place, repr(text), "a number or a blank") from None
        if not math.isfinite(value) or value < 0:
            raise BadDataError(self.path, place, repr(text), "a number from 0 on")
        return value

    def numbers(self, *columns: str) -> Iterator[float]:
        """Values of several cells."""
        return map(self.number, columns)


def speed_columns() -> list[str]:
    """Columns of the shipped file of speeds, in their order."""
    first = shipped_text("data/decode.csv", "harness.published").partition("\n")[0]
    return first.strip().split(",")


@contextmanager
def _opened(path: Path) -> "Iterator[csv.DictReader[str]]":
    try:
        reader = csv.DictReader(io.StringIO(read_limited(path).decode("utf-8-sig"), newline=""))
        reader.fieldnames = [column.strip().lower() for column in reader.fieldnames or ()]
        yield reader
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadDataError(path, "", str(error), "a CSV file in UTF-8") from error


def kind_of(path: Path) -> Kind:
    """What a file of published rows is about, by its header: speeds, unless it has columns that only others have.

    Raises:
        BadDataError: It cannot be read.
    """
    with _opened(path) as reader:
        header = set(reader.fieldnames or ())
    return next(
        (kind for kind, columns in _COLUMNS.items() if header.issuperset(columns["needed"][:2])), "speed"
    )


def read_cells(name: str, path: Path | None, kind: Kind) -> list[Cells]:
    """Rows of the shipped file ``name``, or of ``path``; columns in any order and blanks anywhere are fine.

    Raises:
        BadDataError: It is no such file: not text, or columns missing.
    """
    if path is None:
        with as_file(files("harness.published") / "data" / name) as shipped:
            return read_cells(name, shipped, kind)
    rows = []
    with _opened(path) as reader:
        if missing := [
            column for column in _COLUMNS[kind]["needed"] if column not in (reader.fieldnames or ())
        ]:
            raise BadDataError(path, "header", f"no column {', '.join(missing)}", f"the columns of {name}")
        for cells in reader:
            row = {k: (v or "").strip() for k, v in cells.items() if isinstance(k, str)}
            row["trust"] = row.get("trust", "").upper()
            rows.append(Cells(row, path, reader.line_num))
    return rows
