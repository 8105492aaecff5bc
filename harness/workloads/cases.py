"""Cases and sizes as a user writes them: JSON lines with the columns that a system names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness.domain.foreign import json_of, read_limited
from harness.errors import BadDataError, RefusedError, UnknownNameError
from harness.workloads.system import KINDS, Case, Column, System

_MOST_BYTES: Final = 256 << 20
_JSON_NAMES: Final = {kind: name for name, kind in KINDS.items()}


def read_cases(path: Path, system: System) -> list[Case]:
    """The cases of a file: JSON lines, or a data set that the system itself knows.

    Raises:
        BadDataError: A line is no JSON object, lacks a column, has one too many, or a value of another type.
        RefusedError: The file is neither, or holds no case.
    """
    if path.suffix != ".jsonl":
        return list(system.read_cases(path))
    cases: list[Case] = []
    for number, line in enumerate(read_limited(path, _MOST_BYTES, "JSON lines").splitlines(), 1):
        if line.strip():
            place = f"{path}:{number}"
            cases.append(_checked(json_of(line, place, "a JSON object"), system.columns, place))
    if not cases:
        raise RefusedError(f"{path} holds no case")
    return cases


def _checked(row: Any, columns: Mapping[str, Column], place: str) -> Case:
    if not isinstance(row, dict):
        raise BadDataError(place, "", type(row).__name__, "a JSON object")
    if extra := next((key for key in row if key not in columns), None):
        raise BadDataError(place, extra, "an unknown column", f"one of: {', '.join(columns)}")
    for name, column in columns.items():
        value = row.get(name)
        if value is None:
            if column.needed:
                raise BadDataError(place, name, "nothing", _JSON_NAMES[column.kind])
            continue
        is_number = column.kind is float and isinstance(value, int) and not isinstance(value, bool)
        if not is_number and type(value) is not column.kind:
            raise BadDataError(place, name, repr(value)[:80], _JSON_NAMES[column.kind])
    return {key: value for key, value in row.items() if value is not None}


def size_of(system: System, text: str) -> dict[str, int]:
    """A size from its name, or from ``name=number`` parts that change the default one.

    Raises:
        UnknownNameError: No such size.
        RefusedError: A part that the system does not have, or no whole number.
    """
    if text in system.sizes:
        return dict(system.sizes[text])
    if "=" not in text:
        raise UnknownNameError("size", text, system.sizes)
    size = dict(system.sizes["default"])
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in size or not value.isdigit():
            raise RefusedError(f"size: found {part!r}, expected NAME=NUMBER with a name of {', '.join(size)}")
        size[key] = int(value)
    return size
