"""Strict TOML: read into a struct, with errors that name file, field, found and expected."""

import tomllib
from importlib.resources.abc import Traversable
from typing import Any, Final, TypeVar

import msgspec

from harness.domain.foreign import fault, read_limited
from harness.errors import BadDataError

T = TypeVar("T")

FILE_MAX_BYTES: Final = 2**20
"""A data file is a page of text; anything bigger is something else."""

_DEEPEST: Final = 100


def read_document(file: Traversable) -> dict[str, Any]:
    """The file's tables.

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
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise BadDataError(place, "", f"a byte that is not UTF-8 at offset {error.start}", "a TOML file") from error
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise BadDataError(place, "", f"no valid TOML ({error})", "a TOML file") from error


def convert(document: Any, into: type[T], place: str, *, strict: bool = True) -> T:
    """Turn tables into a struct; BadDataError for a key unknown or missing, a wrong type, a number out of range.

    Not ``strict``: 0 and 1 are also no and yes.
    """
    try:
        return msgspec.convert(document, into, strict=strict)
    except msgspec.ValidationError as error:
        raise fault(error, document, into, place) from None
