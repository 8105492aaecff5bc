"""Device files: ``devices/*.toml`` in vendor units, turned once into a ``DeviceProfile`` in SI units.

Every figure is a table of its own: ``total_gib = { value = 8, source = "...", confidence = "verified" }``. GB/s is
10**9 bytes/s, as vendors print it; GiB is 2**30 bytes, as operating systems count RAM; peaks are 10**12 operations/s.
"""

from collections.abc import Mapping
from importlib.resources.abc import Traversable
from typing import Any, Final

from msgspec.structs import replace

from harness.catalog._toml import Positive, Ratio, convert, dump, floats, is_finite, read_document, scaled, unscaled
from harness.catalog.paths import as_path, data_files, learned_file
from harness.domain.base import Frozen
from harness.domain.device import (
    Calibration,
    ComputeEngine,
    Confidence,
    DeviceKind,
    DeviceProfile,
    EngineKind,
    Figure,
    MemoryPool,
    OperatingSystem,
    PoolName,
    Power,
    Storage,
)
from harness.errors import BadDataError, UnknownNameError
from harness.units import GB, GIB, TERA

JOULES_PER_WH: Final = 3600
_POOL: Final = {
    "total_gib": ("total_bytes", GIB),
    "usable_gib": ("usable_bytes", GIB),
    "entitled_gib": ("entitled_bytes", GIB),
    "bandwidth_gb_s": ("bandwidth_bytes_per_s", GB),
    "measured_read_gb_s": ("measured_read_bytes_per_s", GB),
    "measured_copy_gb_s": ("measured_copy_bytes_per_s", GB),
}
_STORAGE: Final = {
    "sequential_read_gb_s": ("sequential_read_bytes_per_s", GB),
    "random_read_gb_s": ("random_read_bytes_per_s", GB),
    "mapped_read_gb_s": ("mapped_read_bytes_per_s", GB),
}
_POWER: Final = {
    "battery_wh": ("battery_joules", JOULES_PER_WH),
    "sustained_w": ("sustained_watts", 1),
    "peak_w": ("peak_watts", 1),
}
_ENGINE: Final = {"sustained_ratio": ("sustained_ratio", 1)}
"""Figures by their key in the file: their name in the profile, and SI units in one of the key's."""
_SAME_IN_FILE: Final = ("title", "kind", "vendor", "chip", "os", "year", "notes", "doubts")
_SAME_IN_ENGINE: Final = ("kind", "name", "pool", "apis", "core_count", "isa")
BANDWIDTH_TOLERANCE: Final = 0.02
"""How far a stated bandwidth may lie from rate x width / 8: vendors round (100 for 102.4 would not pass)."""


class Amount(Frozen, frozen=True, kw_only=True):
    """A figure above 0 in the unit of its key."""

    value: Positive
    source: str
    confidence: Confidence


class Share(Frozen, frozen=True, kw_only=True):
    """A figure between 0 and 1."""

    value: Ratio
    source: str
    confidence: Confidence


class PoolTable(Frozen, frozen=True, kw_only=True):
    """``[ram]`` or ``[vram]``."""

    technology: str
    total_gib: Amount
    usable_gib: Amount
    bandwidth_gb_s: Amount
    entitled_gib: Amount | None = None
    transfer_mt_s: Amount | None = None
    bus_width_bits: Amount | None = None
    measured_read_gb_s: Amount | None = None
    measured_copy_gb_s: Amount | None = None


class EngineTable(Frozen, frozen=True, kw_only=True):
    """One ``[[engine]]``; best choice for language models first."""

    kind: EngineKind
    name: str
    pool: PoolName
    apis: tuple[str, ...]
    core_count: int = 0
    isa: tuple[str, ...] = ()
    peak_tflops: dict[str, Amount] = {}
    sustained_ratio: Share | None = None


class StorageTable(Frozen, frozen=True, kw_only=True):
    """``[storage]``."""

    technology: str
    sequential_read_gb_s: Amount
    random_read_gb_s: Amount | None = None
    mapped_read_gb_s: Amount | None = None


class PowerTable(Frozen, frozen=True, kw_only=True):
    """``[power]``."""

    battery_wh: Amount | None = None
    sustained_w: Amount | None = None
    peak_w: Amount | None = None


class DeviceFile(Frozen, frozen=True, kw_only=True):
    """A device file as it stands on disk."""

    title: str
    kind: DeviceKind
    vendor: str
    chip: str
    os: OperatingSystem
    year: int
    ram: PoolTable
    engine: tuple[EngineTable, ...]
    storage: StorageTable
    notes: str = ""
    doubts: tuple[str, ...] = ()
    vram: PoolTable | None = None
    power: PowerTable = PowerTable()
    calibration: tuple[Calibration, ...] = ()


def device_names() -> list[str]:
    """Names of all devices, shipped and the user's own, sorted."""
    return list(data_files("devices"))


def load_device(ref: str) -> DeviceProfile:
    """The device of that name, or in that file; ``RTX 4090`` is ``rtx-4090-desktop``, since laptops' cards are others.

    Raises:
        UnknownNameError: No device of that name.
        BadDataError: The file breaks the schema.
    """
    path = as_path(ref)
    if path is not None:
        return _profile(path)
    known = data_files("devices")
    plain = "-".join(ref.lower().replace("_", " ").split())
    name = next((n for n in (ref, plain, f"{plain}-desktop") if n in known), None)
    if name is None:
        raise UnknownNameError("device", ref, known)
    profile, learned = _profile(known[name]), learned_file(name)
    return replace(profile, learned=str(learned)) if learned.is_file() else profile


def dump_device(profile: DeviceProfile) -> str:
    """TOML text of a profile; saved as ``<profile.name>.toml`` it loads back equal."""
    document: dict[str, Any] = {key: getattr(profile, key) for key in _SAME_IN_FILE}
    for pool in profile.pools:
        document[pool.name] = {"technology": pool.technology} | _as_written(pool, _POOL)
    document["engine"] = [_engine_table(engine) for engine in profile.engines]
    document["storage"] = {"technology": profile.storage.technology} | _as_written(profile.storage, _STORAGE)
    document["power"] = _as_written(profile.power, _POWER)
    document["calibration"] = [_calibration_table(c) for c in profile.calibrations]
    optional = {"notes", "doubts", "power", "calibration"}
    return dump({key: value for key, value in document.items() if value or key not in optional})


def _profile(file: Traversable) -> DeviceProfile:
    place = str(file)
    document = read_document(file)
    if "calibration" in document:  # in SI units already
        document["calibration"] = floats(document["calibration"])
    given = convert(document, DeviceFile, place)
    _check(given, document, place)
    pools: list[tuple[PoolName, PoolTable | None]] = [("ram", given.ram), ("vram", given.vram)]
    return DeviceProfile(
        name=file.name.removesuffix(".toml"),
        pools=tuple(
            MemoryPool(name=name, technology=pool.technology, **_in_si(pool, _POOL)) for name, pool in pools if pool
        ),
        engines=tuple(_engine(e) for e in given.engine),
        storage=Storage(technology=given.storage.technology, **_in_si(given.storage, _STORAGE)),
        power=Power(**_in_si(given.power, _POWER)),
        calibrations=given.calibration,
        **{key: getattr(given, key) for key in _SAME_IN_FILE},
    )


def _check(given: DeviceFile, document: dict[str, Any], place: str) -> None:
    """What types cannot say."""
    if not given.engine:
        raise BadDataError(place, "engine", "none", "at least one [[engine]]")
    if not 1990 <= given.year <= 2100:
        raise BadDataError(place, "year", str(given.year), "a year")
    for index, engine in enumerate(given.engine):
        at = f"engine[{index}]"
        if engine.pool == "vram" and given.vram is None:
            raise BadDataError(place, f"{at}.pool", "'vram'", "a [vram] table, or pool = 'ram'")
        if not engine.apis:
            raise BadDataError(place, f"{at}.apis", "none", "at least one api")
        if not 0 <= engine.core_count <= 1_000_000:
            raise BadDataError(place, f"{at}.core_count", str(engine.core_count), "a number of cores, 0 if unknown")
    for name, pool in (("ram", given.ram), ("vram", given.vram)):
        if pool is not None:
            _check_pool(name, pool, place)
    if not is_finite(document.get("calibration", [])):
        raise BadDataError(place, "calibration", "nan or inf", "finite numbers")
    for index, calibration in enumerate(given.calibration):
        _check_calibration(f"calibration[{index}]", calibration, place)


def _check_pool(name: str, pool: PoolTable, place: str) -> None:
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


def _check_calibration(at: str, calibration: Calibration, place: str) -> None:
    for key in ("token_overhead_s", "layer_overhead_s", "activation_s_per_dim_layer"):
        if getattr(calibration, key) < 0:
            raise BadDataError(place, f"{at}.{key}", str(getattr(calibration, key)), "a time of at least 0")
    for key in ("kv_read_bytes_per_s", "attention_flops_per_s", "thread_count"):
        if getattr(calibration, key) <= 0:
            raise BadDataError(place, f"{at}.{key}", str(getattr(calibration, key)), "a number above 0")
    for index, cost in enumerate(calibration.types):
        batches = [batch for batch, _ in cost.batch_seconds_per_byte]
        field = f"{at}.types[{index}].batch_seconds_per_byte"
        if batches[:1] != [1] or batches != sorted(set(batches)):
            raise BadDataError(place, field, f"batches {batches}", "growing batches from 1")
        if any(cost_s <= 0 for _, cost_s in cost.batch_seconds_per_byte):
            raise BadDataError(place, field, "a time of 0 or less", "times above 0")


def _in_si(table: Any, figures: Mapping[str, tuple[str, float]]) -> dict[str, Any]:
    """Figures of a table of the file, by their names in the profile."""
    return {
        name: None if (amount := getattr(table, key)) is None else _figure(amount, factor)
        for key, (name, factor) in figures.items()
    }


def _figure(amount: Amount | Share, factor: float) -> Figure:
    return Figure(value=scaled(amount.value, factor), source=amount.source, confidence=amount.confidence)


def _as_written(part: Any, figures: Mapping[str, tuple[str, float]]) -> dict[str, Any]:
    """Figures of a part of the profile, as the file has them; those that are unknown are left out."""
    found = {key: (getattr(part, name), factor) for key, (name, factor) in figures.items()}
    return {key: _table(figure, factor) for key, (figure, factor) in found.items() if figure is not None}


def _table(figure: Figure, factor: float) -> dict[str, Any]:
    return {"value": unscaled(figure.value, factor), "source": figure.source, "confidence": figure.confidence}


def _engine(given: EngineTable) -> ComputeEngine:
    return ComputeEngine(
        peak_flops_per_s={dtype: _figure(peak, TERA) for dtype, peak in given.peak_tflops.items()},
        **{key: getattr(given, key) for key in _SAME_IN_ENGINE},
        **_in_si(given, _ENGINE),
    )


def _engine_table(engine: ComputeEngine) -> dict[str, Any]:
    table = {key: getattr(engine, key) for key in _SAME_IN_ENGINE} | _as_written(engine, _ENGINE)
    peaks = {dtype: _table(peak, TERA) for dtype, peak in engine.peak_flops_per_s.items()}
    return table | ({"peak_tflops": peaks} if peaks else {})


def _calibration_table(calibration: Calibration) -> dict[str, Any]:
    table: dict[str, Any] = {key: getattr(calibration, key) for key in calibration.__struct_fields__ if key != "types"}
    types = [
        {key: _listed(value) for key in cost.__struct_fields__ if (value := getattr(cost, key)) != ()}
        for cost in calibration.types
    ]
    return table | {"types": types}


def _listed(value: Any) -> Any:
    return [list(pair) for pair in value] if isinstance(value, tuple) else value
