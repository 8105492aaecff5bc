"""Files of published measurements as text: each row by its columns, with its place for what is wrong with it."""

import csv
import io
import math
from collections.abc import Collection, Iterator, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from harness.core.errors import BadDataError
from harness.core.foreign import read_limited
from harness.core.tables import shipped_text

NEEDED: Final = ("chip", "backend", "test", "tokens_per_s", "memory_bandwidth_gb_s", "model", "quant")
"""Columns of a file of speeds without which there is no answer."""


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
    first = shipped_text("published/data/decode.csv").partition("\n")[0]
    return first.strip().split(",")


def read_cells(path: Path | None = None) -> list[Cells]:
    """Rows of the shipped file of speeds, or of ``path``, with the errors of :func:`cells_in`."""
    if path is not None:
        return cells_in(path, NEEDED)
    with as_file(files("harness") / "published" / "data" / "decode.csv") as shipped:
        return cells_in(shipped, NEEDED)


def cells_in(path: Path, needed: Collection[str]) -> list[Cells]:
    """Rows of a file; columns in any order and blanks anywhere are fine.

    Raises:
        BadDataError: It is no such file: not text, or a column that is ``needed`` is missing.
    """
    rows = []
    try:
        reader = csv.DictReader(io.StringIO(read_limited(path).decode("utf-8-sig"), newline=""))
        names = [column.strip().lower() for column in reader.fieldnames or ()]
        reader.fieldnames = names
        missing = [column for column in needed if column not in names]
        if missing:
            raise BadDataError(
                path, "header", f"no column {', '.join(missing)}", f"the columns {', '.join(needed)}"
            )
        for cells in reader:
            row = {k: (v or "").strip() for k, v in cells.items() if isinstance(k, str)}
            row["trust"] = row.get("trust", "").upper()
            rows.append(Cells(row, path, reader.line_num))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadDataError(path, "", str(error), "a CSV file in UTF-8") from error
    return rows
