"""The base of every domain type, and the tables of data that ship with the package."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Self, dataclass_transform

import msgspec


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
    return tomllib.loads(files(package).joinpath(path).read_text(encoding="utf-8"))
