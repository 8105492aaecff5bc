"""The base of every domain type."""

from typing import Any, Final, Self, dataclass_transform

import msgspec

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
