"""Device files: ``devices/*.toml`` in vendor units, turned once into a ``DeviceProfile`` in SI units.

A probe writes the profile as it is, in SI units. In a file that people write every figure is a table of its
own: ``total_gib = { value = 8, source = "...", confidence = "verified" }``. GB/s is 10**9 bytes/s, as vendors
print it; GiB is 2**30 bytes, as operating systems count RAM; peaks are 10**12 operations/s.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec

from harness.catalog.parts import keys_of, spelled
from harness.catalog.paths import data_files
from harness.domain.base import Frozen
from harness.domain.device import (
    Calibration,
    ComputeEngine,
    DeviceProfile,
    Figure,
    MemoryPool,
    PoolName,
    Power,
    Storage,
)
from harness.domain.foreign import toml_in, typed
from harness.errors import BadDataError
from harness.units import GB, GIB, TERA

P = TypeVar("P", bound=Frozen)

JOULES_PER_WH: Final = 3600
_VENDOR_UNITS: Final = {
    "_bytes": ("_gib", GIB),
    "_bytes_per_s": ("_gb_s", GB),
    "_flops_per_s": ("_tflops", TERA),
    "_joules": ("_wh", JOULES_PER_WH),
    "_watts": ("_w", 1),
}
"""How the profile's names end: how the file's keys do, and SI units in one of the key's."""
_OTHERWISE: Final = {
    "name", "pools", "engines", "storage", "power", "calibrations", "learned", "readings", "ignored",
    "link_bytes_per_s", "card_shares", "cards",
}  # fmt: skip
"""Fields of the profile that stand in tables of their own, in the file's name, or in another file."""
_POOLS: Final[tuple[PoolName, ...]] = ("ram", "vram")
BANDWIDTH_TOLERANCE: Final = 0.02
"""How far a stated bandwidth may lie from rate x width / 8: vendors round (100 for 102.4 would not pass)."""


def _as_written(name: str) -> tuple[str, float]:
    """Key of a field in the file, and SI units in one of the key's."""
    for end, (written, factor) in _VENDOR_UNITS.items():
        if name.endswith(end):
            return name.removesuffix(end) + written, factor
    return name, 1


def _table_of(part: type[Frozen], *more: tuple[Any, ...], but: Collection[str] = ()) -> Any:
    """Type of the table that a part of the profile is in the file.

    ``more`` are fields that only the file has.
    """
    fields: list[tuple[Any, ...]] = []
    for field in msgspec.structs.fields(part):
        default = msgspec.field(default=field.default, default_factory=field.default_factory)  # type: ignore[call-overload]
        if field.name not in but:
            fields.append((_as_written(field.name)[0], field.type, default))
    return msgspec.defstruct(
        f"{part.__name__}Table", [*fields, *more], kw_only=True, forbid_unknown_fields=True
    )


_POOL: Final = _table_of(
    MemoryPool,
    ("transfer_mt_s", Figure | None, None),
    ("bus_width_bits", Figure | None, None),
    but={"name"},
)
_FILE: Final = _table_of(
    DeviceProfile,
    ("ram", _POOL),
    ("engine", Annotated[tuple[_table_of(ComputeEngine), ...], msgspec.Meta(min_length=1)]),  # type: ignore[misc]
    ("storage", _table_of(Storage)),
    ("vram", _POOL | None, None),
    ("power", _table_of(Power) | None, None),
    but=_OTHERWISE,
)


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
    if "engines" in document:
        profile = typed(document | {"name": name}, DeviceProfile, place)
        if profile.learned:
            raise BadDataError(
                place, "learned", repr(profile.learned[:80]), "no such key: `learn` keeps that by itself"
            )
        if not profile.engines:
            raise BadDataError(place, "engines", "none", "at least one engine")
        _check({pool.name: pool for pool in profile.pools}, profile.engines, "bytes", place)
        _check_calibrations(profile.calibrations, place)
        return profile
    described = typed(document, _FILE, place)
    pools: dict[str, Any] = {each: pool for each in _POOLS if (pool := getattr(described, each))}
    _check(pools, described.engine, "gib", place)
    for pool_name, pool in pools.items():
        _check_bandwidth(pool_name, pool, place)
    return _part(
        DeviceProfile,
        described,
        name=name,
        pools=tuple(_part(MemoryPool, pool, name=pool_name) for pool_name, pool in pools.items()),
        engines=tuple(_part(ComputeEngine, engine) for engine in described.engine),
        storage=_part(Storage, described.storage),
        power=_part(Power, described.power) if described.power else Power(),
    )


def _check(pools: Mapping[str, Any], engines: Sequence[Any], unit: str, place: str) -> None:
    """What types cannot say of pools, whose sizes end in ``unit``, and engines."""
    for index, engine in enumerate(engines):
        if engine.pool not in pools:
            raise BadDataError(
                place, f"engine[{index}].pool", repr(engine.pool), f"one of {', '.join(pools)}"
            )
        if engine.sustained_ratio:
            share = engine.sustained_ratio.value
        else:
            share = 1
        if not 1e-6 <= share <= 1:
            field = f"engine[{index}].sustained_ratio.value"
            raise BadDataError(place, field, str(share), "a share above 0, at most 1")
    if "ram" not in pools:
        raise BadDataError(place, "ram", "nothing", "the pool of every device")
    for name, pool in pools.items():
        total = getattr(pool, f"total_{unit}").value
        for key in (f"usable_{unit}", f"entitled_{unit}"):
            part = getattr(pool, key)
            if part is not None and part.value > total:
                raise BadDataError(
                    place, f"{name}.{key}.value", str(part.value), f"at most total_{unit}, {total}"
                )


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


def _check_bandwidth(name: str, pool: Any, place: str) -> None:
    """Bandwidth is rate x width, where a file has them."""
    rate = pool.transfer_mt_s
    width = pool.bus_width_bits
    if rate is None and width is None:
        return
    if rate is None or width is None:
        missing = "bus_width_bits"
        if rate is None:
            missing = "transfer_mt_s"
        raise BadDataError(
            place, f"{name}.{missing}", "nothing", "transfer_mt_s and bus_width_bits, or neither"
        )
    # MT/s x bits / 8 is MB/s; / 1000 is GB/s.
    computed = rate.value * width.value / 8000
    stated = pool.bandwidth_gb_s.value
    if abs(stated - computed) > BANDWIDTH_TOLERANCE * computed:
        expected = f"{computed:g} ({rate.value:g} MT/s x {width.value:g} bit / 8), within 2 %"
        raise BadDataError(place, f"{name}.bandwidth_gb_s.value", f"{stated:g}", expected)


def _part(kind: type[P], table: Any, **more: Any) -> P:
    """A part of the profile from its table in the file."""
    fields = {}
    for name in kind.__struct_fields__:
        key, factor = _as_written(name)
        if hasattr(table, key):
            fields[name] = _in_si(getattr(table, key), factor)
    return kind(**fields | more)


def _in_si(value: Any, factor: float) -> Any:
    if isinstance(value, dict):
        return {dtype: _in_si(peak, factor) for dtype, peak in value.items()}
    if isinstance(value, Figure):
        return value.replace(value=value.value * factor)
    return value
