"""Read the tables that ship with the package, each cell against what its column may hold.

A slip in a table is an error that names the file, the line or the keys, the column, what was found and what was
expected. Nothing in a table is dropped without a word.

    shipped_rows("data/mixtures.csv", columns={"file_type": int, "flags": words(FLAGS)}, unique=("mixture", "file_type"))
    shipped_table("data/instruction_sets.toml", into=dict[str, InstructionSet])
    expect("data/names.toml", "reads", cell, regex)

A column holds a type that its cells are converted to, a set of which each cell is one, or a function that returns what
was expected instead of a cell, and an empty text for a good one. ``maybe`` lets a cell be empty.
"""

import csv
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.resources import files
from inspect import isfunction
from itertools import zip_longest
from typing import Any, TypeVar, get_args, get_origin, overload

import msgspec

from harness.core.errors import BadDataError
from harness.core.foreign import fault, typed

T = TypeVar("T")
Check = Callable[[str], str]
"""What is expected instead of a cell; empty for a good one."""
Column = Any
"""A type, a set of cells, or a :data:`Check`."""


class Row(dict[str, str]):
    """Cells by their columns, and the ``line`` of the file on which the row stands."""

    line: int = 0


def shipped_text(path: str, package: str = "harness") -> str:
    """A text that ships, by its path in the package."""
    return files(package).joinpath(path).read_text(encoding="utf-8")


@overload
def shipped_table(path: str, package: str = ...) -> dict[str, Any]: ...


@overload
def shipped_table(path: str, package: str = ..., *, into: type[T]) -> T: ...


def shipped_table(path: str, package: str = "harness", *, into: Any = dict[str, Any]) -> Any:
    """A TOML file that ships, by its path in the package, as a type.

    Raises:
        BadDataError: The file is no TOML, or the type does not hold what stands there.
    """
    try:
        document = tomllib.loads(shipped_text(path, package))
    except tomllib.TOMLDecodeError as error:
        raise BadDataError(path, "", f"no valid TOML ({error})", "a TOML file") from error
    return _typed(document, into, path, "")


def _typed(document: Any, into: Any, path: str, place: str) -> Any:
    """A document as a type, table by table, so that an error names the table."""
    try:
        if get_origin(into) is not dict or not isinstance(document, dict):
            return typed(document, into, path)
        key_type, cell_type = get_args(into)
        return {
            typed(key, key_type, path, strict=False): _typed(cell, cell_type, path, key)
            for key, cell in document.items()
        }
    except BadDataError as error:
        raise BadDataError(path, f"{place}.{error.field}".strip("."), error.found, error.expected) from None


def shipped_rows(
    path: str,
    package: str = "harness",
    *,
    columns: Mapping[str, Column] = {},
    unique: Iterable[str] = (),
) -> list[Row]:
    """The rows of a CSV file that ships, of which ``columns`` says what they hold; # begins a remark.

    No two rows have the same in a column of ``unique``; of several columns with a space between, the same in all.

    Raises:
        BadDataError: A row has too few or too many cells, or a cell holds what its column does not.
    """
    return rows_in(shipped_text(path, package), path, columns=columns, unique=unique)


def rows_in(
    text: str, path: str, *, columns: Mapping[str, Column] = {}, unique: Iterable[str] = ()
) -> list[Row]:
    """The rows of a table that was read already, as :func:`shipped_rows` checks them; ``path`` is for its errors.

    Raises:
        BadDataError: As there.
    """
    lines = text.splitlines()
    numbers = [number for number, line in enumerate(lines, 1) if not line.startswith("#")]
    reader = csv.reader(lines[number - 1] for number in numbers)
    held = next(reader, [])
    for column in (*columns, *" ".join(unique).split()):
        if column not in held:
            raise BadDataError(
                path, f"line {numbers[0]}, {column}", "no such column", f"it beside {', '.join(held)}"
            )
    checks = {column: as_check(kind) for column, kind in columns.items()}
    first = dict[tuple[str, ...], int]()
    rows = list[Row]()
    for cells in filter(None, reader):
        line = numbers[reader.line_num - 1]
        if len(cells) > len(held):
            raise BadDataError(
                path, f"line {line}, {held[-1]}", f"{len(cells)} cells", f"{len(held)} at most"
            )
        row = Row(zip_longest(held, cells, fillvalue=""))
        row.line = line
        for column, check in checks.items():
            expect(path, f"line {line}, {column}", row[column], check)
        for key in unique:
            own = [row[column] for column in key.split()]
            before = first.setdefault((key, *own), line)
            if before != line:
                place = f"line {line}, {key.replace(' ', ' + ')}"
                raise BadDataError(path, place, " ".join(own), f"another than in line {before}")
        rows.append(row)
    return rows


def expect(path: str, place: str, cell: str, column: Column) -> None:
    """Raise the error of a cell that a column does not hold.

    Raises:
        BadDataError: It names the file, the place, the cell and what was expected.
    """
    expected = as_check(column)(cell)
    if expected:
        raise BadDataError(path, place, repr(cell), expected)


def expect_all(
    path: str, table: str, cells: Mapping[str, Any] | Iterable[tuple[Any, Any]], column: Column
) -> None:
    """Raise the error of the first cell of a TOML table that a column does not hold; keys say where it stands.

    Raises:
        BadDataError: As :func:`expect`.
    """
    for key, cell in cells.items() if isinstance(cells, Mapping) else cells:
        expect(path, f"{table}, {key}", str(cell), column)


def as_check(column: Column) -> Check:
    """The function that says what a column expects instead of a cell."""
    if isfunction(column):
        return column
    if isinstance(column, Collection) and not isinstance(column, type):
        return lambda cell: "" if cell in column else _one_of(column)
    return lambda cell: _expected(cell, column)


def columns_of(row: type[msgspec.Struct]) -> dict[str, Column]:
    """Columns of a table whose rows are a struct; a field with a default may be empty."""
    return {
        field.name: field.type if field.required else maybe(field.type)
        for field in msgspec.structs.fields(row)
    }


def maybe(column: Column) -> Check:
    """A column whose cells may be empty."""
    check = as_check(column)
    return lambda cell: check(cell) if cell else ""


def words(known: Collection[str]) -> Check:
    """A column whose cells hold declared words, with spaces between them."""
    return lambda cell: "" if set(cell.split()) <= set(known) else _one_of(known, "words of: ")


def decimal(cell: str) -> str:
    """A column of numbers, some of them empty, in a table of thousands of rows."""
    try:
        float(cell or 0)
    except ValueError:
        return "a number"
    return ""


def regex(cell: str) -> str:
    """A column of regular expressions."""
    try:
        re.compile(cell)
    except re.error as error:
        return f"a regular expression ({error})"
    return ""


def _one_of(known: Collection[str], before: str = "one of: ") -> str:
    if len(known) > 60:
        return f"a word that is declared, such as {', '.join(sorted(known)[:8])}"
    return before + ", ".join(repr(word) if word else "nothing" for word in known)


def _expected(cell: str, kind: Any) -> str:
    try:
        msgspec.convert(cell, kind, strict=False)
    except msgspec.ValidationError as error:
        return fault(error, cell, kind, "").expected
    return ""
