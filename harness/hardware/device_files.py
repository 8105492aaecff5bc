"""Device files: ``devices/*.toml`` in vendor units, turned once into a ``Device`` in SI units.

A probe writes the profile as it is, in SI units. In a file that people write every figure is a table of its
own: ``total_gib = { value = 8, source = "...", confidence = "verified" }``. GB/s is 10**9 bytes/s, as vendors
print it; GiB is 2**30 bytes, as operating systems count RAM; peaks are 10**12 operations/s.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from harness.core.device import CARD, RAM, Device
from harness.core.errors import BadDataError
from harness.core.foreign import found_at, toml_in, typed
from harness.core.paths import data_files
from harness.core.units import GB, GIB, TERA
from harness.hardware.parts import keys_of, spelled

JOULES_PER_WH: Final = 3600
_VENDOR_UNITS: Final = {
    "_bytes_per_s": ("_gb_s", GB),
    "_bytes": ("_gib", GIB),
    "_flops_per_s": ("_tflops", TERA),
    "_joules": ("_wh", JOULES_PER_WH),
    "_watts": ("_w", 1),
}
"""How the profile's names end: how the file's keys do, and SI units in one of the key's."""
_POOLS: Final = (RAM, CARD)
"""Pools that a file may name as tables of their own; others are ``[[pool]]``."""
_WIRES: Final = frozenset({"transfer_mt_s", "bus_width_bits"})
"""What a file tells of a pool beside the profile: what its bandwidth is made of, for those who read it."""


def device_file(name: str) -> Device:
    """The device file of that name; KeyError where there is none."""
    return read_device(data_files("devices")[name])


def file_called(name: str) -> Device | None:
    """The one file of that name or title, or the only one of that chip."""
    names, chips = _indices()
    hits = _looked_up(names, [name]) or _looked_up(chips, [name])
    if len(hits) == 1:
        return device_file(hits[0])
    return None


def files_of_chip(chips: Iterable[str]) -> list[Device]:
    """The files of devices with one of those chips."""
    return [device_file(name) for name in _looked_up(_indices()[1], chips)]


def near_files(name: str) -> list[str]:
    """Names of files that look like this one."""
    wanted = spelled(name).replace(" ", "-")
    known = list(data_files("devices"))
    short = {n.removesuffix("-desktop"): n for n in known}  # which nobody types
    near = get_close_matches(wanted, short, n=2, cutoff=0.6)
    return [n for n in known if n.startswith(wanted)][:3] or [short[n] for n in near]


_Index = dict[str, set[str]]


def _indices() -> tuple[_Index, _Index]:
    return _index_of(tuple((name, str(file)) for name, file in data_files("devices").items()))


def _looked_up(index: _Index, names: Iterable[str]) -> list[str]:
    return sorted({hit for key in keys_of(names) for hit in index.get(key, ())})


@lru_cache(maxsize=8)
def _index_of(files: tuple[tuple[str, str], ...]) -> tuple[_Index, _Index]:
    """Names of device files by the keys of their names and titles, and of their chips.

    Only the heads of the files are read, since a listing needs no more.

    A name and a title count with and without the size of memory or the words in brackets that they end with.
    """
    names: _Index = {}
    chips: _Index = {}
    for name, place in files:
        text = Path(place).read_bytes().decode(errors="replace").partition("\n[")[0]
        head = {"title": "", "chip": "", **dict(re.findall(r'^(title|chip) = "(.*)"$', text, re.MULTILINE))}
        called = (name, head["title"])
        short = (re.sub(r"(?i)(?:[-, ]+\d+ ?gb| \(.*\))$", "", each) for each in called)
        for index, texts in ((names, (*called, *short)), (chips, (head["chip"].partition(",")[0],))):
            for key in keys_of(texts):
                index.setdefault(key, set()).add(name)
    return names, chips


def read_device(file: Traversable) -> Device:
    """The device that a file describes; BadDataError where it breaks the schema, or contradicts itself."""
    place = str(file)
    written = toml_in(file)
    document = written
    if "engines" not in document:  # not as a probe writes it
        document = _as_profile(document)
    try:
        profile = typed(document | {"name": file.name.removesuffix(".toml")}, Device, place)
        _check(profile, place)
    except BadDataError as error:
        if document is written:
            raise
        field, expected = (_as_written(text, written) for text in (error.field, error.expected))
        found = error.found
        if field.endswith(".value"):  # in the file's own unit
            found = found_at(written, field, found)
        raise BadDataError(place, field, found, expected) from None
    return profile


def _as_profile(written: Mapping[str, Any]) -> dict[str, Any]:
    """A file's document by the names of the profile, in SI units."""
    profile = _in_si(written)
    if "engine" in profile:
        profile["engines"] = profile.pop("engine")
    profile["pools"] = []
    more = profile.pop("pool", [])
    for name in [name for name in profile if name in _POOLS]:
        pool = profile.pop(name)
        if isinstance(pool, dict):
            pool = {key: value for key, value in pool.items() if key not in _WIRES} | {"name": name}
        profile["pools"].append(pool)
    if not isinstance(more, list):
        raise BadDataError("", "pool", "one table", "[[pool]], a list of tables")
    for pool in more:
        profile["pools"].append({key: value for key, value in pool.items() if key not in _WIRES})
    return profile


def _in_si(table: Mapping[str, Any], factor: float = 1) -> dict[str, Any]:
    """A table with its figures in SI units, as the ends of its keys say; ``factor`` is that of the table's own."""
    made: dict[str, Any] = {}
    for key, value in table.items():
        name, unit = key, factor
        for end, (vendors, one) in _VENDOR_UNITS.items():
            if key.endswith(vendors):
                name, unit = key.removesuffix(vendors) + end, one
        if isinstance(value, dict):
            made[name] = _in_si(value, unit)
        elif isinstance(value, list):
            made[name] = [_in_si(each) if isinstance(each, dict) else each for each in value]
        elif key == "value" and type(value) in {int, float}:
            made[name] = value * factor
        else:
            made[name] = value
    return made


def _as_written(text: str, document: Mapping[str, Any]) -> str:
    """Names of the profile in an error as the file has them."""
    for index, pool in enumerate(key for key in document if key in _POOLS):
        text = text.replace(f"pools[{index}]", pool)
    text = text.replace("pools", "ram, vram").replace("engines", "engine")
    for name, (end, _) in _VENDOR_UNITS.items():
        text = text.replace(name, end)
    return text


def _check_pools(profile: Device, place: str) -> None:
    """Each pool stands once, and the RAM, which all engines share, is one of them."""
    if RAM not in [pool.name for pool in profile.pools]:
        raise BadDataError(place, RAM, "nothing", "the pool of every device")
    names = [pool.name for pool in profile.pools]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadDataError(place, f"pool {twice}", "two pools of that name", "each pool once")
    if profile.ram.is_own:
        raise BadDataError(place, "ram.is_own", "true", "false: every device shares its RAM")


def _check(profile: Device, place: str) -> None:
    """What types cannot say of a device."""
    pools = {pool.name: pool for pool in profile.pools}
    if profile.learned:
        found = repr(profile.learned[:80])
        raise BadDataError(place, "learned", found, "no such key: `learn` keeps that by itself")
    if not profile.engines:
        raise BadDataError(place, "engines", "none", "at least one engine")
    _check_pools(profile, place)
    for index, engine in enumerate(profile.engines):
        field = f"engine[{index}]"
        if engine.pool not in pools:
            raise BadDataError(place, f"{field}.pool", repr(engine.pool), f"one of {', '.join(pools)}")
        kept = engine.sustained_ratio
        if kept and not 1e-6 <= kept.value <= 1:
            expected = "a share above 0, at most 1"
            raise BadDataError(place, f"{field}.sustained_ratio.value", str(kept.value), expected)
    for name, pool in pools.items():
        for key in ("usable_bytes", "entitled_bytes"):
            part = getattr(pool, key)
            if part is not None and part.value > pool.total_bytes.value:
                raise BadDataError(place, f"{name}.{key}.value", str(part.value), "at most its total_bytes")
    for calibration in profile.calibrations:
        for cost in calibration.types:
            curve = dict(cost.batch_seconds_per_byte)
            if list(curve)[:1] != [1] or list(curve) != sorted(curve) or not all(curve.values()):
                field = f"calibrations, {cost.type_name}"
                raise BadDataError(place, field, str(curve), "growing batches from 1, times above 0")
