"""Device files: ``devices/*.toml`` in vendor units, turned once into a ``DeviceProfile`` in SI units.

Every figure is a table of its own: ``total_gib = { value = 8, source = "...", confidence = "verified" }``. GB/s is
10**9 bytes/s, as vendors print it; GiB is 2**30 bytes, as operating systems count RAM; peaks are 10**12 operations/s.
"""

import json
import re
from collections.abc import Callable, Collection
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from harness.catalog import machine
from harness.catalog._toml import Positive, convert, dump, floats, read_document, scaled, unscaled
from harness.catalog.parts import aliased, keys_of, near, spelled
from harness.catalog.paths import as_path, data_files, learned_file, sound_names
from harness.domain.base import Frozen
from harness.domain.device import (
    Calibration,
    ComputeEngine,
    Confidence,
    DeviceProfile,
    Figure,
    MemoryPool,
    PoolName,
    Power,
    Storage,
)
from harness.errors import BadDataError, UnknownNameError
from harness.printable import clean
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
    "name", "pools", "engines", "storage", "power", "calibrations", "learned", "readings", "card_count"
}  # fmt: skip
"""Fields of the profile that stand in tables of their own, in the file's name, or in another file."""
_POOLS: Final[tuple[PoolName, ...]] = ("ram", "vram")
BANDWIDTH_TOLERANCE: Final = 0.02
"""How far a stated bandwidth may lie from rate x width / 8: vendors round (100 for 102.4 would not pass)."""


class Amount(Frozen, frozen=True, kw_only=True):
    """A figure above 0 in the unit of its key."""

    value: Positive
    source: str
    confidence: Confidence


def _as_written(name: str) -> tuple[str, float]:
    """Key of a field in the file, and SI units in one of the key's."""
    for end, (written, factor) in _VENDOR_UNITS.items():
        if name.endswith(end):
            return name.removesuffix(end) + written, factor
    return name, 1


def _table_of(part: type[Frozen], *more: tuple[Any, ...], but: Collection[str] = ()) -> Any:
    """Type of the table that a part of the profile is in the file; ``more`` are fields that only the file has."""
    fields: list[tuple[Any, ...]] = []
    for field in msgspec.structs.fields(part):
        kind = {Figure: Amount, Figure | None: Amount | None, dict[str, Figure]: dict[str, Amount]}.get(field.type)
        default = msgspec.field(default=field.default, default_factory=field.default_factory)  # type: ignore[call-overload]
        if field.name not in but:
            fields.append((_as_written(field.name)[0], kind or field.type, default))
    return msgspec.defstruct(f"{part.__name__}Table", [*fields, *more], kw_only=True, forbid_unknown_fields=True)


_POOL: Final = _table_of(
    MemoryPool, ("transfer_mt_s", Amount | None, None), ("bus_width_bits", Amount | None, None), but={"name"}
)
_FILE: Final = _table_of(
    DeviceProfile,
    ("ram", _POOL),
    ("engine", Annotated[tuple[_table_of(ComputeEngine), ...], msgspec.Meta(min_length=1)]),  # type: ignore[misc]
    ("storage", _table_of(Storage)),
    ("vram", _POOL | None, None),
    ("power", _table_of(Power) | None, None),
    ("calibration", tuple[Calibration, ...], ()),
    but=_OTHERWISE,
)


def device_names() -> list[str]:
    """Names of all devices, shipped and the user's own, sorted; broken files of the user's are warned of."""
    return sound_names("devices", load_device)


def load_device(ref: str) -> DeviceProfile:
    """The device that ``ref`` is, names or describes: a file, a device file's name, title or chip, a row of the tables.

    See ``catalog.machine`` for lines of parts (``rtx 4070 super + 64GB ddr5-6000``).

    Raises:
        UnknownNameError: No device of that name; says what is near, and the line that would describe it.
        BadDataError: The file breaks the schema.
        InputError: The parts contradict each other.
    """
    known = data_files("devices")
    path = as_path(ref)  # figures such as 170GB/s look like one
    file: Traversable | None = known.get(ref) or (path if path and (path.suffix == ".toml" or path.exists()) else None)
    return _learned(_described(ref) if file is None else _profile(file))


def _learned(profile: DeviceProfile) -> DeviceProfile:
    learned = learned_file(profile.name)
    return replace(profile, learned=str(learned)) if learned.is_file() else profile


def _described(ref: str) -> DeviceProfile:
    """The device of a line: of a device file where that is all it names, else made of the parts of the tables."""
    line = machine.parse(aliased(clean(ref)))
    files = _Files()
    whole = files.called(line.names[0][1]) if len(line.names) == 1 and line.names[0][0] == 1 else None
    if whole is not None and machine.fits(whole, line):
        whole = machine.also(whole, line.names[0][1])
        return machine.held_to(whole, line.watts) if line.watts else whole
    made = machine.build(line, ref, files)
    if made is None:
        raise UnknownNameError("device", ref, [*files.near(ref), *near(ref)])
    return made


class _Files:
    """The device files, each read when it is asked for."""

    def __init__(self) -> None:
        self._known = data_files("devices")

    def __getitem__(self, name: str) -> DeviceProfile:
        return _profile(self._known[name])

    def called(self, name: str) -> DeviceProfile | None:
        """The one file of that name or title, or the only one of that chip."""
        hits = self._with(name, lambda n, head: _sized_or_not(n, head["title"])) or self._with(name, _chip_of)
        return self[hits[0]] if len(hits) == 1 else None

    def of_chip(self, chip: str) -> list[DeviceProfile]:
        """The files of devices with that chip."""
        return [self[name] for name in self._with(chip, _chip_of)]

    def _with(self, name: str, names_of: Callable[[str, dict[str, str]], list[str]]) -> list[str]:
        keys = set(keys_of([name]))
        return [n for n, file in self._known.items() if keys & set(keys_of(names_of(n, _heads(str(file)))))]

    def near(self, name: str) -> list[str]:
        """Names of files that look like this one."""
        wanted, known = spelled(name).replace(" ", "-"), list(self._known)
        return [n for n in known if n.startswith(wanted)][:3] or get_close_matches(wanted, known, n=2, cutoff=0.6)


def _chip_of(_: str, head: dict[str, str]) -> list[str]:
    return [head["chip"].partition(",")[0]]


def _sized_or_not(*names: str) -> list[str]:
    """Names with and without the size of memory or the words in brackets that they end with."""
    ends = r"(?:[-, ]+\d+ ?gb| \(.*\))$"
    return [text for name in names for text in (name, re.sub(ends, "", name, flags=re.IGNORECASE))]


@lru_cache(maxsize=512)
def _heads(place: str) -> dict[str, str]:
    """Title and chip of a device file, without reading the rest of it."""
    head = Path(place).read_bytes().decode(errors="replace").partition("\n[")[0]
    return {"title": "", "chip": "", **dict(re.findall(r'^(title|chip) = "(.*)"$', head, re.MULTILINE))}


def dump_device(profile: DeviceProfile) -> str:
    """TOML text of a profile; saved as ``<profile.name>.toml`` it loads back equal."""
    document = _table(profile, but=_OTHERWISE)
    document |= {pool.name: _table(pool, but={"name"}) for pool in profile.pools}
    document["engine"] = [_table(engine) for engine in profile.engines]
    document["storage"], document["power"] = _table(profile.storage), _table(profile.power)
    document["calibration"] = calibrations = msgspec.to_builtins(profile.calibrations)
    for calibration in calibrations:
        calibration["types"] = [{key: v for key, v in cost.items() if v != ()} for cost in calibration["types"]]
        if calibration["isa"] is None:  # TOML has no word for it
            del calibration["isa"]
    optional = {"notes", "doubts", "power", "calibration", "machine"}
    return dump({key: value for key, value in document.items() if value or key not in optional})


def _profile(file: Traversable) -> DeviceProfile:
    place = str(file)
    document = read_document(file)
    if "calibration" in document:  # in SI units already
        document["calibration"] = floats(document["calibration"])
    given = convert(document, _FILE, place)
    _check(given, place)
    pools = [(name, pool) for name in _POOLS if (pool := getattr(given, name))]
    return _part(
        DeviceProfile,
        given,
        name=file.name.removesuffix(".toml"),
        pools=tuple(_part(MemoryPool, pool, name=name) for name, pool in pools),
        engines=tuple(_part(ComputeEngine, engine) for engine in given.engine),
        storage=_part(Storage, given.storage),
        power=_part(Power, given.power) if given.power else Power(),
        calibrations=given.calibration,
    )


def _check(given: Any, place: str) -> None:
    """What types cannot say."""
    for index, engine in enumerate(given.engine):
        if engine.pool == "vram" and given.vram is None:
            raise BadDataError(place, f"engine[{index}].pool", "'vram'", "a [vram] table, or pool = 'ram'")
        share = engine.sustained_ratio.value if engine.sustained_ratio else 1
        if not 1e-6 <= share <= 1:
            field = f"engine[{index}].sustained_ratio.value"
            raise BadDataError(place, field, str(share), "a share above 0, at most 1")
    for name in _POOLS:
        if (pool := getattr(given, name)) is not None:
            _check_pool(name, pool, place)
    try:
        json.dumps(msgspec.to_builtins(given.calibration), allow_nan=False)
    except ValueError:
        raise BadDataError(place, "calibration", "nan or inf", "finite numbers") from None
    for at, calibration in enumerate(given.calibration):
        for index, cost in enumerate(calibration.types):
            batches = [batch for batch, _ in cost.batch_seconds_per_byte]
            field = f"calibration[{at}].types[{index}].batch_seconds_per_byte"
            if batches[:1] != [1] or batches != sorted(set(batches)):
                raise BadDataError(place, field, f"batches {batches}", "growing batches from 1")
            if any(cost_s <= 0 for _, cost_s in cost.batch_seconds_per_byte):
                raise BadDataError(place, field, "a time of 0 or less", "times above 0")


def _check_pool(name: str, pool: Any, place: str) -> None:
    for key in ("usable_gib", "entitled_gib"):
        part: Amount | None = getattr(pool, key)
        if part is not None and part.value > pool.total_gib.value:
            raise BadDataError(
                place, f"{name}.{key}.value", str(part.value), f"at most total_gib, {pool.total_gib.value}"
            )
    if (pool.transfer_mt_s is None) != (pool.bus_width_bits is None):
        missing = "transfer_mt_s" if pool.transfer_mt_s is None else "bus_width_bits"
        raise BadDataError(place, f"{name}.{missing}", "nothing", "transfer_mt_s and bus_width_bits, or neither")
    if pool.transfer_mt_s is None or pool.bus_width_bits is None:
        return
    # MT/s x bits / 8 is MB/s; / 1000 is GB/s.
    computed = float(pool.transfer_mt_s.value * pool.bus_width_bits.value / 8000)
    stated = float(pool.bandwidth_gb_s.value)
    if abs(stated - computed) > BANDWIDTH_TOLERANCE * computed:
        raise BadDataError(
            place,
            f"{name}.bandwidth_gb_s.value",
            f"{stated:g}",
            f"{computed:g} ({pool.transfer_mt_s.value} MT/s x {pool.bus_width_bits.value} bit / 8), within 2 %",
        )


def _part(kind: type[P], table: Any, **more: Any) -> P:
    """A part of the profile from its table in the file."""
    found = {}
    for name in kind.__struct_fields__:
        key, factor = _as_written(name)
        if hasattr(table, key):
            found[name] = _in_si(getattr(table, key), factor)
    return kind(**found | more)


def _in_si(value: Any, factor: float) -> Any:
    if isinstance(value, dict):
        return {dtype: _in_si(peak, factor) for dtype, peak in value.items()}
    if isinstance(value, Amount):
        return Figure(value=scaled(value.value, factor), source=value.source, confidence=value.confidence)
    return value


def _table(part: Frozen, but: Collection[str] = ()) -> dict[str, Any]:
    """A part of the profile as the file has it; figures that are unknown are left out."""
    found = {}
    for name in part.__struct_fields__:
        key, factor = _as_written(name)
        value = getattr(part, name)
        if name not in but and value is not None and value != {} and (value != () or name == "isa"):
            found[key] = _in_vendor_units(value, factor)
    return found


def _in_vendor_units(value: Any, factor: float) -> Any:
    if isinstance(value, dict):
        return {dtype: _in_vendor_units(peak, factor) for dtype, peak in value.items()}
    if isinstance(value, Figure):
        return msgspec.to_builtins(value) | {"value": unscaled(value.value, factor)}
    return value
