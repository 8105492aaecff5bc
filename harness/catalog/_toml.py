"""Strict TOML: read into a struct, with errors that name file, field, found and expected; and write it back.

Numbers are read as decimals, not binary floats: a figure in vendor units (60.3 GB/s) then becomes its SI value with one
rounding, and a profile written out loads back equal to the last bit.
"""

import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from importlib.resources.abc import Traversable
from types import UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin

import msgspec

from harness.errors import BadDataError

T = TypeVar("T")

FILE_MAX_BYTES: Final = 2**20
"""A data file is a page of text; anything bigger is something else."""

EXACT: Final = Context(prec=40)  # 17 digits pin a double; 40 leave no second rounding when units are changed


class Quantity(Decimal):
    """A number as it stands in the file: finite, at least 0, at most 10**18."""

    LOW: Decimal = Decimal(0)
    HIGH: Decimal = Decimal(10) ** 18
    WORDS = "a number between 0 and 1e18"


class Positive(Quantity):
    """The same, but not 0."""

    LOW = Decimal("1e-30")
    WORDS = "a number above 0, at most 1e18"


class Ratio(Quantity):
    """A share."""

    LOW = Decimal("1e-6")
    HIGH = Decimal(1)
    WORDS = "a share above 0, at most 1"


def read_document(file: Traversable) -> dict[str, Any]:
    """The file's tables, fractional numbers as ``Decimal``.

    Raises:
        BadDataError: Not readable, over 1 MiB, not UTF-8, not TOML.
    """
    place = str(file)
    try:
        with file.open("rb") as stream:
            data = stream.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise BadDataError(place, "", error.strerror or str(error), "a readable file") from error
    if len(data) > FILE_MAX_BYTES:
        raise BadDataError(place, "", "more than 1 MiB", "a TOML file of at most 1 MiB")
    try:
        return tomllib.loads(data.decode(), parse_float=Decimal)
    except UnicodeDecodeError as error:
        raise BadDataError(place, "", f"a byte that is not UTF-8 at offset {error.start}", "a TOML file") from error
    except (tomllib.TOMLDecodeError, RecursionError, ValueError, ArithmeticError) as error:  # 1e9999999999999999999
        raise BadDataError(place, "", f"no valid TOML ({error})", "a TOML file") from error


def convert(document: Any, into: type[T], place: str) -> T:
    """Turn tables into a struct.

    Raises:
        BadDataError: An unknown key, a missing one, a wrong type, a number out of range.
    """
    try:
        return msgspec.convert(document, into, dec_hook=_quantity)
    except msgspec.ValidationError as error:
        raise _bad_data(str(error), document, into, place) from None


def floats(value: Any) -> Any:
    """The same tables with decimals as binary floats, for parts that are in SI units already."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {k: floats(v) for k, v in value.items()}
    return [floats(v) for v in value] if isinstance(value, list) else value


def scaled(quantity: Decimal, factor: float) -> float:
    """``quantity`` times ``factor``, rounded once."""
    return float(EXACT.multiply(quantity, Decimal(factor)))


def unscaled(value: float, factor: float) -> Decimal:
    """The shortest decimal that ``scaled`` turns into ``value``."""
    short = Decimal(repr(value / factor)).normalize()
    return short if scaled(short, factor) == value else EXACT.divide(Decimal(value), Decimal(factor)).normalize()


def dump(document: Mapping[str, Any]) -> str:
    """TOML text of nested mappings, sequences, strings, numbers and booleans.

    Mappings that hold a ``value`` (figures) stand inline; other mappings become tables, sequences of mappings arrays
    of tables.
    """
    return "\n".join(_table(document, "")).strip() + "\n"


def _table(table: Mapping[str, Any], path: str) -> list[str]:
    lines = [f"{key} = {_inline(value)}" for key, value in table.items() if _is_inline(value)]
    for key, value in table.items():
        name = f"{path}{key}"
        if _is_inline(value):
            continue
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", *_table(value, f"{name}.")]
        else:
            for item in value:
                lines += ["", f"[[{name}]]", *_table(item, f"{name}.")]
    return lines


def _is_inline(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "value" in value
    return not (isinstance(value, Sequence) and value and isinstance(value[0], Mapping))


def _inline(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which JSON leaves alone.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_inline(v)}" for k, v in value.items()) + " }"
    if isinstance(value, Decimal):
        return f"{value:f}" if -7 < value.adjusted() < 16 else str(value)
    if isinstance(value, int | float):
        return repr(value)
    return "[" + ", ".join(_inline(v) for v in value) + "]"


def _quantity(kind: type, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise TypeError(f"Expected a number, got `{_say(value)}`")
    number = Decimal(value)
    if number.is_nan() or not kind.LOW <= number <= kind.HIGH:  # type: ignore[attr-defined]
        raise ValueError(f"Expected {kind.WORDS}, got `{_say(value)}`")  # type: ignore[attr-defined]
    return kind(number)


_MESSAGE = re.compile(r"^(?P<text>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)


def _bad_data(message: str, document: Any, into: Any, place: str) -> BadDataError:
    """Turn msgspec's sentence into the four things a user wants to know."""
    match = _MESSAGE.match(message)
    assert match is not None
    text, path = match["text"], (match["path"] or "$").removeprefix("$").removeprefix(".")
    if key := re.match(r"Object contains unknown field `(.*)`", text):
        known = ", ".join(_keys(into, path)) or "no such key"
        return BadDataError(place, _join(path, key[1]), "an unknown key", f"one of: {known}")
    if key := re.match(r"Object missing required field `(.*)`", text):
        return BadDataError(place, _join(path, key[1]), "nothing", "this key")
    if both := re.match(r"Expected (.*), got (.*)", text, re.DOTALL):
        return BadDataError(place, path, _found(document, path, both[2]), both[1].replace("`", ""))
    return BadDataError(place, path, _found(document, path, "something else"), text.replace("`", "'"))


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _found(document: Any, path: str, otherwise: str) -> str:
    value = document
    for step in re.findall(r"[^.\[\]]+", path):
        try:
            value = value[int(step) if isinstance(value, list) else step]
        except (KeyError, IndexError, ValueError, TypeError):
            return otherwise.replace("`", "")
    return _say(value)


def _say(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys(kind: Any, path: str) -> list[str]:
    """Keys a table may have, by walking the struct's types along the path."""
    for step in [s for s in re.split(r"[.\[]", path) if s]:
        kind = _inner(kind)
        if step.endswith("]") or get_origin(kind) is dict:
            kind = get_args(kind)[0 if step.endswith("]") else 1]
            continue
        fields = {f.encode_name: f.type for f in msgspec.structs.fields(kind)} if _is_struct(kind) else {}
        kind = fields.get(step)
    kind = _inner(kind)
    return [f.encode_name for f in msgspec.structs.fields(kind)] if _is_struct(kind) else []


def _inner(kind: Any) -> Any:
    """``X`` of ``X | None``."""
    if get_origin(kind) in (Union, UnionType):
        return next(k for k in get_args(kind) if k is not type(None))
    return kind


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def is_finite(value: Any) -> bool:
    """Whether every number inside is finite."""
    if isinstance(value, float | Decimal):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(is_finite(v) for v in value.values())
    return not isinstance(value, list | tuple) or all(is_finite(v) for v in value)
