"""How a field of a struct is written by people: on a command line, in a variable, in the help.

A field is annotated, ``Annotated[int, Meta(ge=64, description="..."), Option("--context -c")]``: bounds stand in
msgspec's own ``Meta``, so that a JSON schema has them too, and the rest stands in :class:`Option`.
"""

import math
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal, get_args

from msgspec import inspect

from harness.core.base import Frozen

Heading = Literal["Options", "Request", "Engine and placement", "Device and limits", "Measuring", "Output"]
"""Headings of the help, in their order."""
HEADINGS: Final[tuple[str, ...]] = get_args(Heading)


class Option(Frozen, kw_only=False):
    """How one field is typed.

    Attributes:
        flags: ``--context -c``; empty for an argument.
        help: What it is, where no ``Meta`` says so.
        heading: Under which the help lists it.
        metavar: What stands for the value in the help; empty for that of its type.
        default: What the help says of the default, where the default itself would say nothing.
        reads: Makes the value of its text, where the type does not say how; a ValueError says found and
            expected.
        is_repeated: A field of several values is given once for each, in place of once with commas between.
        path: What a path must be of, where there is something.
        is_here: Whether a path must exist.
    """

    flags: str = ""
    help: str = ""
    heading: Heading = "Options"
    metavar: str = ""
    default: str = ""
    reads: Callable[[str], Any] | None = None
    is_repeated: bool = False
    path: Literal["file", "folder", "any"] = "any"
    is_here: bool = False

    def value(self, text: str, kind: inspect.Type) -> Any:
        """The value that a text stands for, in a field of that type.

        Raises:
            ValueError: It stands for none that the type allows; says what was found and expected.
        """
        if self.reads is not None:
            return self.reads(text)
        item = item_of(kind)
        if item is not None:
            parts = [part.strip() for part in text.split(",")]
            if not all(parts):
                raise ValueError(f"found {text!r}, expected values with a comma between")
            return tuple(dict.fromkeys(self.value(part, item) for part in parts))
        words = list[str]()
        number = None
        for each in kinds_of(kind):
            if isinstance(each, inspect.LiteralType):
                words += map(str, each.values)
            elif isinstance(each, inspect.IntType | inspect.FloatType):
                number = each
        if number and text not in words:
            return _number(text, number, words)
        if text in words or not words:
            return text
        raise ValueError(f"found {text!r}, expected {' or '.join(words)}")


def kinds_of(kind: inspect.Type) -> list[inspect.Type]:
    """The types that one allows; without ``None``, since nobody types it."""
    if isinstance(kind, inspect.Metadata):
        return kinds_of(kind.type)
    if isinstance(kind, inspect.UnionType):
        return [each for part in kind.types for each in kinds_of(part)]
    return [kind] * (not isinstance(kind, inspect.NoneType))


def item_of(kind: inspect.Type) -> inspect.Type | None:
    """The type of each of several values; None of a type of one value."""
    for each in kinds_of(kind):
        if isinstance(each, inspect.VarTupleType):
            return each.item_type
    return None


def whole_number(text: str) -> int:
    """A whole number; ``k`` and ``m`` behind it stand for 1,024 and 1,048,576.

    Raises:
        ValueError: The text is no such number.
    """
    match = re.fullmatch(r"(-?[0-9]+)([km]?)", text.strip().lower())
    if match is None:
        raise ValueError(f"found {text!r}, expected a whole number such as 4096 or 128k")
    return int(match[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[match[2]]


def _number(text: str, kind: inspect.IntType | inspect.FloatType, words: list[str]) -> float:
    """A number within its bounds; ValueError names them, and the words that may stand in its place."""
    found = math.nan
    if isinstance(kind, inspect.IntType):
        found = whole_number(text)
    else:
        with suppress(ValueError):
            found = float(text)
    lowest = kind.gt if kind.ge is None else kind.ge
    assert lowest is not None
    assert kind.le is not None
    if lowest <= found <= kind.le and found != kind.gt:
        return found
    above = "above " * (kind.ge is None)
    bounds = f"{above}{lowest:,.10g} to {kind.le:,.10g}"
    raise ValueError(f"found {text}, expected {', or '.join([bounds, *words])}")
