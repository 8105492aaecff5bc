"""Cases and sizes as a user writes them: JSON lines with the columns that a system names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from harness.domain.foreign import json_of, read_limited, typed
from harness.errors import RefusedError, UnknownNameError
from harness.workloads.system import Case, Column, System

_MOST_BYTES: Final = 256 << 20


def read_cases(path: Path, system: System) -> list[Case]:
    """The cases of a file: JSON lines, or a data set that the system itself knows.

    Raises:
        BadDataError: A line is no JSON object, lacks a column, has one too many, or a value of another type.
        RefusedError: The file is neither, or holds no case.
    """
    if path.suffix != ".jsonl":
        return list(system.read_cases(path))
    cases: list[Case] = []
    row = _row_of(system.columns)
    for number, line in enumerate(read_limited(path, _MOST_BYTES, "JSON lines").splitlines(), 1):
        if line.strip():
            place = f"{path}:{number}"
            cases.append(msgspec.to_builtins(typed(json_of(line, place, "a JSON object"), row, place)))
    if not cases:
        raise RefusedError(f"{path} holds no case")
    return cases


def _row_of(columns: Mapping[str, Column]) -> type[msgspec.Struct]:
    fields = [
        (name, column.kind) if column.needed else (name, column.kind | None, None) for name, column in columns.items()
    ]
    return msgspec.defstruct("Row", fields, forbid_unknown_fields=True, omit_defaults=True, kw_only=True)


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
