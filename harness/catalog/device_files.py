"""Device files: ``devices/*.toml`` in vendor units, turned once into a ``DeviceProfile`` in SI units.

A probe writes the profile as it is, in SI units. In a file that people write every figure is a table of its
own: ``total_gib = { value = 8, source = "...", confidence = "verified" }``. GB/s is 10**9 bytes/s, as vendors
print it; GiB is 2**30 bytes, as operating systems count RAM; peaks are 10**12 operations/s.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

import msgspec

from harness.catalog.parts import keys_of, spelled
from harness.catalog.paths import data_files
from harness.domain.base import Frozen
from harness.domain.device import Calibration, DeviceProfile, Figure, MemoryPool, PoolName
from harness.domain.foreign import toml_in, typed
from harness.errors import BadDataError
from harness.units import GB, GIB, TERA

JOULES_PER_WH: Final = 3600
_VENDOR_UNITS: Final = {
    "_bytes_per_s": ("_gb_s", GB),
    "_bytes": ("_gib", GIB),
    "_flops_per_s": ("_tflops", TERA),
    "_joules": ("_wh", JOULES_PER_WH),
    "_watts": ("_w", 1),
}
"""How the profile's names end: how the file's keys do, and SI units in one of the key's."""
_POOLS: Final[tuple[PoolName, ...]] = ("ram", "vram")
BANDWIDTH_TOLERANCE: Final = 0.02
"""How far a stated bandwidth may lie from rate x width / 8: vendors round (100 for 102.4 would not pass)."""


class _Wires(Frozen):
    """What a file may say of a pool beside the profile: its bandwidth is checked by it."""

    transfer_mt_s: Figure
    bus_width_bits: Figure


def device_file(name: str) -> DeviceProfile:
    """The device file of that name; KeyError where there is none."""
    return read_device(data_files("devices")[name])


def file_called(name: str) -> DeviceProfile | None:
    """The one file of that name or title, or the only one of that chip."""
    names, chips = _indices()
    hits = _looked_up(names, [name]) or _looked_up(chips, [name])
    if len(hits) == 1:
        return device_file(hits[0])
    return None


def files_of_chip(chips: Iterable[str]) -> list[DeviceProfile]:
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

    Only their heads are read.

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


def read_device(file: Traversable) -> DeviceProfile:
    """The device that a file describes; BadDataError where it breaks the schema, or contradicts itself."""
    place = str(file)
    name = file.name.removesuffix(".toml")
    document = toml_in(file)
    if "engines" in document:  # as a probe writes it
        profile = typed(document | {"name": name}, DeviceProfile, place)
        _check(profile, place)
        return profile
    try:
        profile = typed(_as_profile(document) | {"name": name}, DeviceProfile, place)
        _check(profile, place)
    except BadDataError as error:
        field, expected = (_as_written(text, document) for text in (error.field, error.expected))
        raise BadDataError(place, field, error.found, expected) from None
    for pool in profile.pools:
        _check_bandwidth(pool, document[pool.name], place)
    in_si: DeviceProfile = _in_si(profile)
    return in_si


def _as_profile(document: Mapping[str, Any]) -> dict[str, Any]:
    """A file's document by the names of the profile; its figures stay in the vendors' units."""
    profile: dict[str, Any] = {"pools": []}
    for key, value in document.items():
        if key in _POOLS:
            pool: Any = _respelt(value)
            if isinstance(pool, dict):
                pool = {k: v for k, v in pool.items() if k not in _Wires.__struct_fields__} | {"name": key}
            profile["pools"].append(pool)
        else:
            profile["engines" if key == "engine" else key] = _respelt(value)
    return profile


def _respelt(value: Any) -> Any:
    if isinstance(value, list):
        return [_respelt(each) for each in value]
    if not isinstance(value, dict):
        return value
    respelt = {}
    for key, inner in value.items():
        ends = (key.removesuffix(end) + name for name, (end, _) in _VENDOR_UNITS.items() if key.endswith(end))
        respelt[next(ends, key)] = _respelt(inner)
    return respelt


def _as_written(text: str, document: Mapping[str, Any]) -> str:
    """Names of the profile in an error as the file has them."""
    for index, pool in enumerate(key for key in document if key in _POOLS):
        text = text.replace(f"pools[{index}]", pool)
    text = text.replace("pools", "ram, vram").replace("engines", "engine")
    for name, (end, _) in _VENDOR_UNITS.items():
        text = text.replace(name, end)
    return text


def _in_si(value: Any, name: str = "") -> Any:
    """The profile with its figures in SI units, as the ends of its fields' names say."""
    if isinstance(value, Figure):
        factor = next((factor for end, (_, factor) in _VENDOR_UNITS.items() if name.endswith(end)), 1)
        return value.replace(value=value.value * factor)
    if isinstance(value, tuple):
        return tuple(_in_si(each, name) for each in value)
    if isinstance(value, dict):
        return {key: _in_si(each, name) for key, each in value.items()}
    if isinstance(value, Frozen):
        return value.replace(
            **{field: _in_si(getattr(value, field), field) for field in value.__struct_fields__}
        )
    return value


def _check(profile: DeviceProfile, place: str) -> None:
    """What types cannot say of a device."""
    pools = {pool.name: pool for pool in profile.pools}
    if profile.learned:
        raise BadDataError(
            place, "learned", repr(profile.learned[:80]), "no such key: `learn` keeps that by itself"
        )
    if not profile.engines:
        raise BadDataError(place, "engines", "none", "at least one engine")
    for index, engine in enumerate(profile.engines):
        if engine.pool not in pools:
            raise BadDataError(
                place, f"engine[{index}].pool", repr(engine.pool), f"one of {', '.join(pools)}"
            )
        if engine.sustained_ratio and not 1e-6 <= engine.sustained_ratio.value <= 1:
            field = f"engine[{index}].sustained_ratio.value"
            found = str(engine.sustained_ratio.value)
            raise BadDataError(place, field, found, "a share above 0, at most 1")
    if "ram" not in pools:
        raise BadDataError(place, "ram", "nothing", "the pool of every device")
    for name, pool in pools.items():
        total = pool.total_bytes.value
        for key, part in (("usable_bytes", pool.usable_bytes), ("entitled_bytes", pool.entitled_bytes)):
            if part is not None and part.value > total:
                raise BadDataError(
                    place, f"{name}.{key}.value", str(part.value), f"at most total_bytes, {total}"
                )
    _check_calibrations(profile.calibrations, place)


def _check_calibrations(calibrations: Sequence[Calibration], place: str) -> None:
    try:
        json.dumps(msgspec.to_builtins(calibrations), allow_nan=False)
    except ValueError:
        raise BadDataError(place, "calibrations", "nan or inf", "finite numbers") from None
    for at, calibration in enumerate(calibrations):
        for index, cost in enumerate(calibration.types):
            batches = [batch for batch, _ in cost.batch_seconds_per_byte]
            field = f"calibrations[{at}].types[{index}].batch_seconds_per_byte"
            if batches[:1] != [1] or batches != sorted(set(batches)):
                raise BadDataError(place, field, f"batches {batches}", "growing batches from 1")
            if any(cost_s <= 0 for _, cost_s in cost.batch_seconds_per_byte):
                raise BadDataError(place, field, "a time of 0 or less", "times above 0")


def _check_bandwidth(pool: MemoryPool, written: Mapping[str, Any], place: str) -> None:
    """Bandwidth is rate x width, where a file has them."""
    told = {key: written[key] for key in _Wires.__struct_fields__ if key in written}
    if not told:
        return
    wires = typed(told, _Wires, place)
    rate, width = wires.transfer_mt_s.value, wires.bus_width_bits.value
    computed = rate * width / 8000  # MT/s x bits / 8 is MB/s
    stated = pool.bandwidth_bytes_per_s.value
    if abs(stated - computed) > BANDWIDTH_TOLERANCE * computed:
        expected = f"{computed:g} ({rate:g} MT/s x {width:g} bit / 8), within 2 %"
        raise BadDataError(place, f"{pool.name}.bandwidth_gb_s.value", f"{stated:g}", expected)
