"""What strangers send: names stay inside one folder, no more is read than is allowed, and faults are told in full.

Whatever comes from a file, a device, a server, a mirror or an archive goes through these functions:

* a name that becomes a file's goes through :func:`inside`,
* a file goes through :func:`read_limited`, which counts what comes out and not what its sender says of it,
* a JSON file goes through :func:`json_in`, a TOML file through :func:`toml_in`, a document through
  :func:`json_of`; :func:`typed` makes it what it should be.
"""

import os
import re
import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from types import UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin

import msgspec

from harness.core.errors import BadDataError, what_is_there
from harness.core.printable import clean

T = TypeVar("T")

MOST_BYTES: Final = 64 << 20
"""Of a file where nothing else is said."""
TOML_MAX_BYTES: Final = 1 << 20
"""A data file is a page of text; anything bigger is something else."""
_DEEPEST: Final = 100
_KINDS: Final = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
    "object": "keys with values",
}
"""What msgspec's words for types are called."""
_BOUNDS: Final = {">=": "at least", "<=": "at most", ">": "above", "<": "below"}


def read_limited(path: Traversable, most_bytes: int = MOST_BYTES, expected: str = "a readable file") -> bytes:
    """All of a file, if it is no larger; never more than that is read.

    Raises:
        BadDataError: It cannot be read, is no regular file, or is too large.
    """
    here = Path(str(path))
    try:
        if not path.is_file():  # asked before it is opened: a pipe would wait for its writer
            raise BadDataError(str(path), "", what_is_there(here), expected)
        with path.open("rb") as file:  # asked for no more than is there: a read takes the memory for it first
            data: bytes = file.read(min(here.stat().st_size, most_bytes) + 1)
    except OSError as error:
        raise BadDataError(str(path), "", f"unreadable ({error.strerror})", "a readable file") from error
    if len(data) > most_bytes:
        raise BadDataError(str(path), "", f"more than {most_bytes} bytes", expected)
    return data


def inside(folder: Path, name: str, source: Path | str) -> Path:
    """The path of a stranger's ``name`` inside ``folder``.

    Links that lie in the folder are followed before it is decided, so that one cannot lead out either.

    Raises:
        BadDataError: The name leads out of the folder, begins at the root, is empty, or is none that a file
            can have.
    """
    root = Path(os.path.realpath(folder))
    parts = name.split("/")
    if name[:1] != "/" and "\0" not in name and "\\" not in name and ".." not in parts:
        path = root.joinpath(*(part for part in parts if part not in {"", "."}))
        if path != root and Path(os.path.realpath(path)).is_relative_to(root):
            return path
    raise BadDataError(source, "", f"the name {say(clean(name))}", "a name inside one folder")


def json_of(data: bytes, source: Path | str, expected: str) -> Any:
    """A JSON document of a stranger; BadDataError where it is none, and ``expected`` should be.

    Of what a verb printed with ``--json`` it is what stands beside ``schema`` and ``version``, or under
    ``items``.
    """
    try:
        document = msgspec.json.decode(data)
        if isinstance(document, dict) and str(document.get("schema", "")).startswith("edge-harness "):
            document = {key: value for key, value in document.items() if key not in {"schema", "version"}}
            if document.keys() == {"items"}:
                document = document["items"]
        return document  # noqa: TRY300
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadDataError(source, "", f"no JSON ({error})", expected) from error


def json_in(path: Path, expected: str, most_bytes: int = MOST_BYTES) -> Any:
    """The JSON document in a file; errors as :func:`read_limited` and :func:`json_of`."""
    return json_of(read_limited(path, most_bytes, expected), path, expected)


def toml_in(file: Traversable) -> dict[str, Any]:
    """The tables in a TOML file.

    Raises:
        BadDataError: Not readable, over 1 MiB, not UTF-8, not TOML.
    """
    place = str(file)
    data = read_limited(file, TOML_MAX_BYTES, "a TOML file of at most 1 MiB")
    lines = data.splitlines()
    headers = [line for line in lines if line.lstrip().startswith(b"[") and b"," not in line]
    if any(
        key.count(b".") > _DEEPEST
        for key in (*headers, *(key for line in lines for key in line.split(b"=")[:-1]))
    ):
        raise BadDataError(
            place, "", f"a key of more than {_DEEPEST} parts", "a TOML file"
        )  # quadratic in its parts
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise BadDataError(
            place, "", f"a byte that is not UTF-8 at offset {error.start}", "a TOML file"
        ) from error
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise BadDataError(place, "", f"no valid TOML ({error})", "a TOML file") from error


def typed(document: Any, into: type[T], place: Path | str, *, strict: bool = True) -> T:
    """A document as a type; BadDataError for a key unknown or missing, a wrong type, a number out of range.

    Not ``strict``: 0 and 1 are also no and yes.
    """
    try:
        return msgspec.convert(document, into, strict=strict, str_keys=True)
    except msgspec.ValidationError as error:
        raise fault(error, document, into, place) from None
    except RecursionError as error:
        raise BadDataError(place, "", "lists in lists without end", "a flat document") from error


def fault(error: msgspec.ValidationError, document: Any, into: Any, place: Path | str) -> BadDataError:
    """Turn msgspec's sentence about a document into the four things a user wants to know."""
    text, _, path = str(error).partition(" - at `$")
    path = path.rstrip("`").removeprefix(".")
    inside = path and f"{path}."
    if key := re.match(r"Object contains unknown field `(.*)`", text):
        known = ", ".join(_keys(into, path)) or "no such key"
        return BadDataError(place, inside + clean(key[1]), "an unknown key", f"one of: {known}")
    if key := re.match(r"Object missing required field `(.*)`", text):
        return BadDataError(place, inside + key[1], "nothing", "this key")
    if both := re.fullmatch(r"Expected (.*?)(?:, got (.*))?", text, re.DOTALL):
        bound = both[1].replace("`", "").removesuffix(" | null")
        bound = re.sub(r"^(?:int|float) ([<>]=?)", lambda sign: _BOUNDS[sign[1]], bound)
        bound = re.sub(r"(?:^|(?<=\| ))[a-z]+", lambda kind: _KINDS.get(kind[0], kind[0]), bound)
        return BadDataError(place, path, found_at(document, path, both[2] or "something else"), bound)
    if "enum" in text:
        known = f"one of: {', '.join(_keys(into, path))}"
    else:
        known = clean(text.replace("`", "'"))
    return BadDataError(place, path, found_at(document, path, "something else"), known)


def found_at(document: Any, path: str, otherwise: str) -> str:
    """What stands at a path of a document, in a few words; the last argument where nothing does."""
    value = document
    for step in re.findall(r"[^.\[\]]+", path):
        try:
            value = value[int(step) if isinstance(value, list) else step]
        except (KeyError, IndexError, ValueError, TypeError):
            return otherwise.replace("`", "")
    return say(value)


def say(value: Any) -> str:
    """What was found, in a few words."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array" if value else "an empty array"
    text = repr(value)
    if len(text) <= 60:
        return text
    return text[:57] + "..."


def _keys(kind: Any, path: str) -> list[str]:
    """Keys a table may have, or values of a choice, by walking the struct's types along the path."""
    for step in [*re.findall(r"[^.\[]+", path), None]:
        if get_origin(kind) in (Union, UnionType):  # ``X`` of ``X | None``
            kind, *others = (k for k in get_args(kind) if k is not type(None))
            if others:  # one of several structs: which, its tag would say
                return []
        fields = {}
        if hasattr(kind, "__struct_fields__"):
            fields = {f.encode_name: f.type for f in msgspec.structs.fields(kind)}
        if step is None:
            return list(fields or map(str, get_args(kind)))
        if step.endswith("]"):  # an item; or a key of a hostile file that looks like one
            kind = next(iter(get_args(kind)), None)
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            kind = fields.get(step)
    return []
