"""Strict TOML: read into a struct, with errors that name file, field, found and expected.

Numbers are read as decimals, not binary floats: a figure in vendor units (60.3 GB/s) then becomes its SI value with one
rounding.
"""

import tomllib
from decimal import Context, Decimal
from importlib.resources.abc import Traversable
from typing import Any, Final, TypeVar

import msgspec

from harness.domain.foreign import fault, read_limited, say
from harness.errors import BadDataError

T = TypeVar("T")

FILE_MAX_BYTES: Final = 2**20
"""A data file is a page of text; anything bigger is something else."""

_DEEPEST: Final = 100
EXACT: Final = Context(prec=40)  # 17 digits pin a double; 40 leave no second rounding when units are changed


class Positive(Decimal):
    """A number as it stands in the file: finite, above 0, at most 10**18."""


def read_document(file: Traversable) -> dict[str, Any]:
    """The file's tables, fractional numbers as ``Decimal``.

    Raises:
        BadDataError: Not readable, over 1 MiB, not UTF-8, not TOML.
    """
    place = str(file)
    data = read_limited(file, FILE_MAX_BYTES, "a TOML file of at most 1 MiB")
    lines = data.splitlines()
    headers = [line for line in lines if line.lstrip().startswith(b"[") and b"," not in line]
    if any(key.count(b".") > _DEEPEST for key in (*headers, *(key for line in lines for key in line.split(b"=")[:-1]))):
        raise BadDataError(place, "", f"a key of more than {_DEEPEST} parts", "a TOML file")  # quadratic in its parts
    try:
        return tomllib.loads(data.decode(), parse_float=Decimal)
    except UnicodeDecodeError as error:
        raise BadDataError(place, "", f"a byte that is not UTF-8 at offset {error.start}", "a TOML file") from error
    except (tomllib.TOMLDecodeError, RecursionError, ValueError, ArithmeticError) as error:  # 1e9999999999999999999
        raise BadDataError(place, "", f"no valid TOML ({error})", "a TOML file") from error


def convert(document: Any, into: type[T], place: str, *, strict: bool = True) -> T:
    """Turn tables into a struct; BadDataError for a key unknown or missing, a wrong type, a number out of range.

    Not ``strict``: 0 and 1 are also no and yes.
    """
    try:
        return msgspec.convert(document, into, dec_hook=_quantity, strict=strict)
    except msgspec.ValidationError as error:
        raise fault(error, document, into, place) from None


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


def _quantity(kind: type[Positive], value: Any) -> Positive:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise TypeError(f"Expected a number, got `{say(value)}`")
    number = Decimal(value)
    if number.is_nan() or not Decimal("1e-30") <= number <= 10**18:
        raise ValueError(f"Expected a number above 0, at most 1e18, got `{say(value)}`")
    return kind(number)
