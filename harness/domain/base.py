"""The base of every domain type, and the tables of data that ship with the package."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec


class Frozen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Immutable, keyword-only, and strict when decoded: an unknown key is an error, never ignored."""


@cache
def shipped_table(path: str, package: str = "harness") -> dict[str, Any]:
    """A TOML file that ships, by its path in the package."""
    return tomllib.loads(files(package).joinpath(path).read_text(encoding="utf-8"))
