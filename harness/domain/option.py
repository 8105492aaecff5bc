"""How a field of a struct is written by people: on a command line, in a configuration file, in the help.

A field is annotated, ``Annotated[int, Meta(ge=64, description="..."), Option("--context -c")]``: bounds and
help stand in msgspec's own ``Meta``, so that a JSON schema has them too, and the rest stands in
:class:`Option`.
"""

import math
import re
from collections.abc import Callable, Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from msgspec import Meta

from harness.domain.base import Frozen
from harness.units import parse_bytes

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
        unit: ``bytes`` reads ``1.5GiB``; numbers of ``tokens`` are whole and may end in ``k`` or ``m``.
        default: What the help says of the default, where the default itself would say nothing.
        reads: Makes the value of its text, where the type does not say how; a ValueError says found and
            expected.
        is_repeated: A field of several values is given once for each, in place of once with commas between.
        names: Which names the shell completes.
        path: What a path must be of, where there is something.
        is_here: Whether a path must exist.
        endings: Of the file to be written, whose format they say.
    """

    flags: str = ""
    help: str = ""
    heading: Heading = "Options"
    metavar: str = ""
    unit: Literal["", "bytes", "tokens"] = ""
    default: str = ""
    reads: Callable[[str], Any] | None = None
    is_repeated: bool = False
    names: Literal["", "models", "devices"] = ""
    path: Literal["file", "folder", "any"] = "any"
    is_here: bool = False
    endings: tuple[str, ...] = ()

    def value(self, text: str, hint: Any) -> Any:
        """The value that a text stands for, in a field annotated ``hint``.

        Raises:
            ValueError: It stands for none that the annotation allows; says what was found and expected.
        """
        if self.reads is not None:
            return self.reads(text)
        kinds = dict(kinds_of(hint))
        item = item_of(hint)
        if item is not None:
            if str in dict(kinds_of(item)) and not all(part.strip() for part in text.split(",")):
                raise ValueError(f"found {text!r}, expected names with a comma between")
            return tuple(dict.fromkeys(self.value(part.strip(), item) for part in text.split(",")))
        words = words_of(hint)
        if text in words or str in kinds:
            return text
        if int in kinds and self.unit == "bytes":
            return parse_bytes(text)
        for kind in (int, float):
            if kind in kinds:
                return _number(text, kind, kinds[kind] or Meta(), words)
        raise ValueError(f"found {text!r}, expected some of {', '.join(words)}")


def kinds_of(hint: Any, bounds: Meta | None = None) -> Iterator[tuple[Any, Meta | None]]:
    """The types that an annotation allows, with the bounds of each.

    ``None`` is left out, since nobody types it.
    """
    if get_origin(hint) is Annotated:
        own = [each for each in hint.__metadata__ if isinstance(each, Meta)]
        yield from kinds_of(hint.__origin__, own[-1] if own else bounds)
    elif get_origin(hint) in {Union, UnionType}:
        for part in get_args(hint):
            yield from kinds_of(part, bounds)
    elif hint is not NoneType:
        yield hint, bounds


def item_of(hint: Any) -> Any:
    """What each of several values is annotated with; None where an annotation is of one value."""
    for kind, _ in kinds_of(hint):
        origin: Any = get_origin(kind)
        if origin is tuple:
            return get_args(kind)[0]
    return None


def words_of(hint: Any) -> tuple[str, ...]:
    """The words that an annotation allows: those of a ``Literal``."""
    literals = [kind for kind, _ in kinds_of(hint) if get_origin(kind) is Literal]
    return tuple(word for literal in literals for word in get_args(literal))


def whole_number(text: str) -> int:
    """A whole number, ``k`` and ``m`` behind it stand for 1,024 and 1,048,576.

    ValueError where it is none.
    """
    match = re.fullmatch(r"(-?[0-9]+)([km]?)", text.strip().lower())
    if match is None:
        raise ValueError(f"found {text!r}, expected a whole number such as 4096 or 128k")
    return int(match[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[match[2]]


def _number(text: str, kind: type[int] | type[float], bounds: Meta, words: tuple[str, ...]) -> int | float:
    """A number within its bounds; ValueError names them, and the words that may stand in its place."""
    found: int | float
    if kind is int:
        found = whole_number(text)
    else:
        try:
            found = float(text)
        except ValueError:
            found = math.nan
    above = bounds.gt is None or found > bounds.gt
    enough = bounds.ge is None or found >= bounds.ge
    within = bounds.le is None or found <= bounds.le
    if math.isfinite(found) and above and enough and within:
        return found
    least = bounds.ge
    most = bounds.le
    if bounds.gt is not None:
        expected = f"a number above {bounds.gt:g}" + ("" if most is None else f", at most {most:g}")
    elif kind is int:
        expected = f"{least:,} to {most:,}"
    else:
        expected = f"a number from {least:g} to {most:g}"
    others = "".join(f", or {word}" for word in words)
    raise ValueError(f"found {text}, expected {expected}{others}")
