"""Devices by whatever names them: a file, a device file's name, title or chip, rows of the tables, a line of parts."""

import json
import os
from importlib.resources.abc import Traversable

import msgspec
import tomli_w

from harness.core.device import Device
from harness.core.errors import BadDataError, UnknownNameError
from harness.core.paths import as_path, data_files, learned_file, sound_names
from harness.core.printable import clean
from harness.hardware.device_files import near_files, read_device

_LINE_MAX = 400
"""Characters of a line that is read: what programs print of a device is longer than a message."""
_TEXT_MAX = 8000
"""Characters of what is pasted, before its fields are read."""


def device_names() -> list[str]:
    """Names of all devices, shipped and the user's own, sorted; broken files of the user's are warned of."""
    return sound_names("devices", load_device)


def load_device(ref: str) -> Device:
    """The device that ``ref`` is, names or describes: a file, a device file's name, title or chip, a row of the tables.

    See ``catalog.machine`` for lines of parts (``rtx 4070 super + 64GB ddr5-6000``).

    Raises:
        UnknownNameError: No device of that name; says what is near, and the line that would describe it.
        BadDataError: The file breaks the schema.
        InputError: The parts contradict each other.
    """
    known = data_files("devices")
    path = as_path(ref)  # figures such as 170GB/s look like one
    file: Traversable | None = known.get(ref) or (
        path if path and (path.suffix == ".toml" or os.path.exists(path)) else None  # noqa: PTH110 - pasted text is too long a name
    )
    profile = _described(ref) if file is None else read_device(file)
    learned = learned_file(profile.name)
    if learned.is_file():
        return profile.replace(learned=str(learned))
    return profile


def _described(ref: str) -> Device:
    """The device of a line; names that the file of aliases knows mean what that says."""
    from harness.hardware import built as machine  # tables of parts, which no device of a file needs
    from harness.hardware.line import memory_in
    from harness.hardware.parts import aliased, known_part, near, spelled, squashed
    from harness.hardware.pasted import plain

    written, said = plain(ref[:_TEXT_MAX])
    asked = clean(written, _LINE_MAX).lower()
    named = memory_in(asked)[0].strip(" ,:()").removesuffix(" +")
    meant = aliased(named)
    if squashed(spelled(meant)) != squashed(spelled(named)):
        beside = asked.replace(named, "").strip(" ,:()+")
        taken = f"{meant}, {beside}".strip(" ,")
        device = load_device(taken)
        return device.replace(readings=(*device.readings, *said, f"{clean(ref)} is taken for {taken}"))
    made = machine.described(asked, ref)
    if made is None:
        known = known_part(asked)
        helped = f"if {known!r} is your machine, which I do know, ask for that" if known else ""
        raise UnknownNameError("device", ref, [*near_files(ref), *near(ref)], helped=helped)
    return made.replace(readings=(*said, *made.readings))


def dump_device(profile: Device) -> str:
    """TOML text of a profile as it is, in SI units; saved as ``<profile.name>.toml`` it loads back equal.

    Raises:
        BadDataError: A number of it is none.
    """
    try:
        parts = json.dumps(msgspec.to_builtins(profile), allow_nan=False)
    except ValueError as error:
        raise BadDataError(profile.name, "", "nan or inf", "finite numbers") from error
    document = json.loads(parts, object_hook=lambda table: {k: v for k, v in table.items() if v is not None})
    return tomli_w.dumps({key: value for key, value in document.items() if key not in {"name", "learned"}})
