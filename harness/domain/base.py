"""The base of every domain type."""

import msgspec


class Frozen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Immutable, keyword-only, and strict when decoded: an unknown key is an error, never ignored."""
