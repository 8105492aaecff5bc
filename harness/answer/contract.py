"""One contract for every door: Python, HTTP and MCP read the same requests, made from the fields of :class:`Question`.

A request is a struct. Its fields, their bounds and their words are those of the type; an unknown field is refused with the
nearest name, and a value that does not fit is said with its field, what was found and what is expected.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from harness.core.base import Frozen
from harness.core.errors import InputError
from harness.core.foreign import say
from harness.core.placement import placement_of
from harness.core.question import Asked, Question

TEXT_MAX: Final = 300
"""Signs of one text of a request."""
_MOST_TEXTS: Final = 16
_SIMPLE: Final = {
    "string": "a text",
    "boolean": "true or false",
    "null": "nothing",
    "array": "a list of texts",
}


class Ranked(Asked):
    """Which model is best for a task on a device.

    Attributes:
        instead_of: Only models that this other device does not run whole.
    """

    device: Annotated[
        str, Meta(description="Device, such as 'rtx 4060 + 32GB'; 'this' for this machine.")
    ] = "this"
    task: Literal["chat", "code", "agents", "vision", "embedding", "long", "reasoning"] = "chat"
    instead_of: str = ""


class Compared(Asked):
    """Several models or devices beside each other."""

    models: Annotated[tuple[str, ...], Meta(min_length=1, max_length=8, description="Models to compare.")]
    devices: Annotated[
        tuple[str, ...], Meta(min_length=1, max_length=8, description="Devices to compare.")
    ] = ("this",)


class Why(Question):
    """What the answer rests on, and why a measured speed is slower.

    Attributes:
        log: What the program printed.
    """

    measured: Annotated[
        Annotated[float, Meta(gt=0, le=1e9)] | None,
        Meta(description="Decode speed that was measured, tokens/s."),
    ] = None
    log: Annotated[
        str,
        Meta(
            max_length=1 << 16,
            description="What the program printed: load lines of llama.cpp, `ollama ps`, LM Studio's log, nvidia-smi.",
        ),
    ] = ""


class Past(Frozen):
    """Runs of this machine: the newest, or one by the start of its name."""

    run: Annotated[str, Meta(max_length=80, description="Start of a run's name; empty for the newest.")] = ""
    limit: Annotated[int, Meta(ge=1, le=100, description="At most so many runs.")] = 20


R = TypeVar("R", bound=Frozen)


def read(given: Mapping[str, Any], kind: type[R], *, is_text: bool = False) -> R:
    """Read a request from its fields by name; the query of an address (``is_text``) has lists split at commas.

    A placement may also be written as the flags that llama.cpp has for it.

    Raises:
        InputError: An unknown field, a missing one, or a value out of its bounds: one sentence that names it.
    """
    known = fields_of(kind)
    values = dict[str, Any]()
    for name, value in given.items():
        if name not in known:
            raise InputError(_unknown(str(name), known))
        values[name] = _value(name, value, known[name], is_text=is_text)
    try:
        return msgspec.convert(values, kind, strict=not is_text, str_keys=True)
    except (msgspec.ValidationError, RecursionError) as error:
        text, _, path = str(error).partition(" - at `$.")
        name = path.partition("`")[0].partition(".")[0].partition("[")[0]
        if name not in known:
            missing = next((one for one in kind.__struct_fields__ if f"`{one}`" in text), "")
            raise InputError(
                f"{missing or 'request'}: found nothing, expected {words_of(known.get(missing, {}))}"
            ) from None
        raise InputError(f"{name}: found {say(values.get(name))}, expected {words_of(known[name])}") from None


def _unknown(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    nearest = f" Did you mean {close[0]}?" if close else ""
    return f"{say(name)} is no field of this request.{nearest} Fields: {', '.join(names)}."


def _value(name: str, value: Any, schema: Mapping[str, Any], *, is_text: bool) -> Any:
    """A value as the type takes it: flags of a placement, a list of one text."""
    if isinstance(value, str) and len(value) > schema.get("maxLength", TEXT_MAX):
        raise InputError(
            f"{name}: found {len(value):,} signs, expected at most {schema.get('maxLength', TEXT_MAX):,}"
        )
    if name == "placement" and isinstance(value, str):
        try:
            return placement_of(value)
        except ValueError as error:
            raise InputError(f"placement: {error}") from None
    if schema.get("type") == "array":
        listed = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        if isinstance(listed, list | tuple):
            if len(listed) > _MOST_TEXTS:
                raise InputError(f"{name}: found {len(listed)} texts, expected at most {_MOST_TEXTS}")
            return [part for part in listed if part != ""]
        return value
    if is_text and isinstance(value, list):
        return value[-1]
    return value


@cache
def fields_of(kind: type) -> dict[str, dict[str, Any]]:
    """The JSON schema of each field of a request, without references."""
    (root,), parts = msgspec.json.schema_components((kind,))
    body = parts[root["$ref"].rpartition("/")[2]]

    def inlined(schema: Any) -> Any:
        if isinstance(schema, list):
            return [inlined(one) for one in schema]
        if not isinstance(schema, dict):
            return schema
        if "$ref" in schema:
            return inlined(parts[schema["$ref"].rpartition("/")[2]])
        return {
            key: inlined(value)
            for key, value in schema.items()
            if key != "title" or not isinstance(value, str)
        }

    fields: dict[str, dict[str, Any]] = {name: inlined(schema) for name, schema in body["properties"].items()}
    return fields


@cache
def schema_of(kind: type) -> dict[str, Any]:
    """The JSON schema of a request: an object that takes no other field."""
    fields = fields_of(kind)
    needed = [field.encode_name for field in msgspec.structs.fields(kind) if field.required]
    flags = {"type": "string", "description": "Flags of llama.cpp, such as '-ngl 20 --n-cpu-moe 7 -ts 3,1'."}
    shown = {name: flags if name == "placement" else schema for name, schema in fields.items()}
    return {"type": "object", "properties": shown, "required": needed, "additionalProperties": False}


def words_of(schema: Mapping[str, Any]) -> str:
    """What a field takes, in words: a whole number from 1 to 4096, or 'max'."""
    if "anyOf" in schema:
        kinds = [words_of(one) for one in schema["anyOf"] if one.get("type") != "null"]
        return ", or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        words = ", ".join(map(str, schema["enum"]))
        return f"one of {words}" if len(schema["enum"]) > 1 else words
    kind = schema.get("type", "")
    if kind == "array" and "enum" in schema.get("items", {}):
        return f"a list of {', '.join(schema['items']['enum'])}"
    if kind in {"integer", "number"}:
        words = "a whole number" if kind == "integer" else "a number"
        if "minimum" in schema:
            words += f" from {schema['minimum']:g}"
        if "exclusiveMinimum" in schema:
            words += f" above {schema['exclusiveMinimum']:g}"
        if "maximum" in schema:
            words += f" to {schema['maximum']:,.15g}"
        return words
    return _SIMPLE.get(str(kind), "a text")
