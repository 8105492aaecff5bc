"""Measure this machine and write down what it is: a device profile like the shipped ones, every figure measured."""

import datetime
import platform
import re
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from msgspec.structs import replace

from harness.catalog.devices import dump_device
from harness.catalog.paths import cache_dir, home_dir
from harness.cpus import read_text
from harness.domain.device import (
    Calibration,
    ComputeEngine,
    DeviceKind,
    DeviceProfile,
    Figure,
    MemoryPool,
    OperatingSystem,
    Power,
)
from harness.measure import machine, sensors
from harness.measure.bandwidth import array_bytes, copy_bandwidth, read_bandwidth
from harness.measure.disk import storage_under
from harness.records.store import write_atomically

DEVICE_NAME: Final = "this-machine"
_INT8_OVER_FP32: Final = (
    ("amx", 16.0),
    ("avx512_vnni", 4.0),
    ("i8mm", 8.0),
    ("dotprod", 4.0),
    ("avx512", 2.0),
    ("avx2", 2.0),
    ("neon", 2.0),
)
"""Multiply-adds of one int8 instruction over those of one fp32 FMA of the same width.

VNNI and dotprod: four products into each 32-bit lane; i8mm: eight; maddubs + maddwd without VNNI: four, in three
instructions instead of one, about two. Sources: Intel SDM (VPDPBUSD), Arm ARM (SDOT, SMMLA).
"""

Progress = Callable[[str], None]


def probe_machine(
    *,
    quick: bool,
    progress: Progress | None = None,
    calibrations: tuple[Calibration, ...] = (),
    folder: Path | None = None,
    name: str = DEVICE_NAME,
) -> DeviceProfile:
    """Measure bandwidth, matrix products, storage, RAM and its limits, cores, instruction sets and sensors.

    ``quick``: fewer passes and a smaller file, under ten seconds on two cores. The storage is that of the cache folder,
    where models rest, unless one is given.
    """
    say = progress or (lambda _line: None)
    today = datetime.datetime.now(tz=datetime.UTC).date()

    def measured(value: float, how: str) -> Figure:
        return Figure(
            value=value, source=f"measured on {today} by edge-harness devices probe: {how}", confidence="measured"
        )

    say("cores, instruction sets and limits")
    cpu, ram = machine.cpu(), machine.memory()
    size = array_bytes(cpu.last_cache_bytes, ram.limit_bytes)
    say("memory bandwidth, reading")
    read = read_bandwidth(cpu.thread_count, size, pass_count=6 if quick else 20)
    say("memory bandwidth, copying")
    copy = copy_bandwidth(cpu.thread_count, size, pass_count=4 if quick else 12)
    say("matrix products")
    fp32 = fp32_peak(pass_count=3 if quick else 10)
    peaks = {"fp32": fp32} | estimated_peaks(fp32, cpu.isa) | engine_peaks(calibrations)
    say("storage")
    storage = storage_under(folder or cache_dir(), measured, file_bytes=256 * 2**20 if quick else 2**30)
    say("sensors")
    found, battery = sensors.report(), sensors.battery_joules()
    limit_words = "installed RAM" if ram.limit_bytes == ram.total_bytes else "memory limit of the control group"
    # What the system itself holds now is gone for us too; a limit of the control group is all ours.
    usable = min(ram.limit_bytes, ram.available_bytes)
    # The theoretical figure cannot be seen from inside; what a read kernel gets is the ceiling that counts.
    read_figure = measured(
        read.bytes_per_s,
        f"{read.kernel}, {read.thread_count} threads over {read.array_bytes >> 20} MiB, "
        f"best of several; middle pass {read.median_bytes_per_s / 1e9:.1f} GB/s",
    )
    return DeviceProfile(
        name=name,
        title=f"This machine ({cpu.model})",
        kind=_kind(),
        vendor=_vendor(),
        chip=cpu.model,
        os=_system(),
        year=today.year,
        pools=(
            MemoryPool(
                name="ram",
                technology="as measured",
                total_bytes=measured(ram.total_bytes, "as the system reports it"),
                usable_bytes=measured(usable, f"{limit_words}, less what others hold now"),
                bandwidth_bytes_per_s=read_figure,
                measured_read_bytes_per_s=read_figure,
                measured_copy_bytes_per_s=measured(copy.bytes_per_s, "copy, read and written bytes each counted once"),
            ),
        ),
        engines=(
            ComputeEngine(
                kind="cpu",
                name=cpu.model,
                pool="ram",
                apis=("cpu",),
                core_count=cpu.physical_core_count,
                isa=cpu.isa,
                peak_flops_per_s={
                    dtype: replace(peak, source=f"edge-harness devices probe, {today}: {peak.source}")
                    for dtype, peak in peaks.items()
                },
            ),
        ),
        storage=storage,
        power=Power(battery_joules=measured(battery, "full charge as the battery reports it") if battery else None),
        calibrations=calibrations,
        notes=_notes(cpu, ram, found),
    )


def save_profile(profile: DeviceProfile, path: Path | None = None) -> Path:
    """Write the profile as TOML, into the user's own devices unless ``path`` is given; replaces it atomically."""
    target = path or home_dir() / "devices" / f"{profile.name}.toml"
    write_atomically(target, dump_device(profile).encode())
    return target


def fp32_peak(*, size_dim: int = 2048, pass_count: int = 4) -> Figure:
    """Best of several products of two float32 matrices through numpy's BLAS, in operations a second.

    A product of two n x n matrices is 2 n**3 operations.
    """
    draw = np.random.default_rng(1)
    a = draw.random((size_dim, size_dim), dtype=np.float32)
    b = draw.random((size_dim, size_dim), dtype=np.float32)
    out = np.empty_like(a)
    np.matmul(a, b, out=out)
    times = timeit.repeat(lambda: np.matmul(a, b, out=out), number=1, repeat=pass_count)
    how = f"numpy BLAS, {size_dim} x {size_dim}, best of {pass_count}"
    return Figure(value=2 * size_dim**3 / min(times), source=how, confidence="measured")


def estimated_peaks(fp32: Figure, isa: tuple[str, ...]) -> dict[str, Figure]:
    """fp16 and int8 from the fp32 peak and the widest instruction for each; a calibrated engine's own replace them.

    fp16 without half-precision arithmetic (x86 before AVX512-FP16) converts and multiplies in fp32: the same peak.
    Arm with dotprod (v8.2) multiplies halves at twice the fp32 rate.
    """
    half = 2.0 if "dotprod" in isa or "sve" in isa else 1.0
    name, ratio = next(((n, r) for n, r in _INT8_OVER_FP32 if n in isa), ("no vector extension", 1.0))
    ratios = {"fp16": (half, ""), "int8": (ratio, f" ({name})")}
    return {
        dtype: Figure(value=fp32.value * r, source=f"{r:g} x the measured fp32 peak{why}", confidence="assumed")
        for dtype, (r, why) in ratios.items()
    }


def engine_peaks(calibrations: tuple[Calibration, ...]) -> dict[str, Figure]:
    """fp16 and int8 peaks that the engine's own products reached at its largest batch.

    Operations per second = 2 x batch / (seconds per byte x bytes per weight).
    """
    from harness.domain.ggml import BLOCKS

    found: dict[str, Figure] = {}
    for calibration in calibrations:
        for dtype, type_name in (("fp16", "F16"), ("int8", "Q8_0")):
            cost = next((c for c in calibration.types if c.type_name == type_name), None)
            if cost is None:
                continue
            batch, seconds = cost.batch_seconds_per_byte[-1]
            per_weight_s = seconds * BLOCKS[type_name].bits_per_weight / 8
            source = f"{type_name} products of {batch} tokens in {calibration.engine_version}"
            found[dtype] = Figure(value=2 * batch / per_weight_s, source=source, confidence="measured")
    return found


def _notes(cpu: machine.Cpu, ram: machine.Memory, found: sensors.SensorReport) -> str:
    lines = [f"Last-level cache {cpu.last_cache_bytes / 2**20:.0f} MiB."]
    if ram.limit_bytes < ram.total_bytes:
        lines.append(f"Control group limits memory to {ram.limit_bytes / 2**30:.2f} GiB.")
    if cpu.quota_count is not None:
        lines.append(f"CPU quota {cpu.quota_count:g}.")
    if found.energy_counters:
        lines.append("Energy counters: " + ", ".join(found.energy_counters) + ".")
    if found.thermal_zones:
        lines.append("Thermal zones: " + ", ".join(name for name, _ in found.thermal_zones) + ".")
    lines += [note[0].upper() + note[1:] + "." for note in found.notes]
    return " ".join(lines)


def _system() -> OperatingSystem:
    names: dict[str, OperatingSystem] = {"Darwin": "macos", "Windows": "windows"}
    return "android" if hasattr(sys, "getandroidapilevel") else names.get(platform.system(), "linux")


def _vendor() -> str:
    if platform.system() == "Darwin":
        return "Apple"
    text = read_text(Path("/sys/class/dmi/id/sys_vendor")) or read_text(Path("/proc/device-tree/model")) or ""
    return re.sub(r"[^\x20-\x7e]", "", text).strip() or "unknown"


def _kind() -> DeviceKind:
    """Class of device by its chassis and battery (SMBIOS chassis types 8 to 14, 30 to 32 are portable)."""
    if _system() == "android":
        return "phone"
    chassis = (read_text(Path("/sys/class/dmi/id/chassis_type")) or "").strip()
    if chassis in {"8", "9", "10", "11", "14", "30", "31", "32"} or sensors.battery_joules() is not None:
        return "laptop"
    if Path("/proc/device-tree/model").exists():
        return "board"
    return "edge-server" if chassis in {"17", "23", "28"} else "desktop"
