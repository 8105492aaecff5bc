"""The base of every domain type, and the tables of data that ship with the package."""

import csv
import tomllib
from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final, Self, dataclass_transform

import msgspec

from harness.core.errors import BadDataError

REFERENCE: Final = "data/text/python-reference.txt"
"""A text that ships: parts of the Python language reference."""


class _FrozenMeta(msgspec.StructMeta):
    """Makes every class below :class:`Frozen` immutable and keyword-only, which msgspec would ask of each again."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> Any:
        return super().__new__(cls, name, bases, namespace, **{"frozen": True, "kw_only": True} | options)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Frozen(msgspec.Struct, metaclass=_FrozenMeta, frozen=True, forbid_unknown_fields=True):
    """Immutable, keyword-only, and strict when decoded: an unknown key is an error, never ignored."""

    def replace(self, **changes: Any) -> Self:
        """The same with other values of some fields."""
        return msgspec.structs.replace(self, **changes)


@cache
def shipped_table(path: str, package: str = "harness") -> dict[str, Any]:
    """A TOML file that ships, by its path in the package."""
    return tomllib.loads(shipped_text(path, package))


def shipped_rows(
    path: str, package: str = "harness", words: Mapping[str, Collection[str]] | None = None
) -> list[dict[str, str]]:
    """The rows of a CSV file that ships; a line that begins with # is a remark.

    ``words`` are those that the cells of a column may hold.

    Raises:
        BadDataError: A cell holds another one.
    """
    lines = shipped_text(path, package).splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    for number, row in enumerate(rows, 1):
        for column, known in (words or {}).items():
            for word in row[column].split():
                if word not in known:
                    raise BadDataError(path, f"row {number}, {column}", repr(word), "a word that is declared")
    return rows


def shipped_text(path: str, package: str = "harness") -> str:
    """A text that ships, by its path in the package."""
    return files(package).joinpath(path).read_text(encoding="utf-8")
