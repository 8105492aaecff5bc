"""Measure this machine and write down what it is: a device profile like the shipped ones, every figure measured."""

import datetime
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness.catalog.devices import dump_device
from harness.catalog.paths import cache_dir, home_dir
from harness.domain.device import (
    Calibration,
    ComputeEngine,
    DeviceKind,
    DeviceProfile,
    Figure,
    MemoryPool,
    OperatingSystem,
    Power,
    Storage,
)
from harness.measure import machine, sensors
from harness.measure.bandwidth import Bandwidth, array_bytes, copy_bandwidth, read_bandwidth
from harness.measure.cgroup import read_text
from harness.measure.disk import DiskSpeed, disk_speed
from harness.measure.gemm import Peak, estimated_peaks, fp32_peak
from harness.records.store import write_atomically

DEVICE_NAME: Final = "this-machine"

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
    say("cores, instruction sets and limits")
    cpu, ram = machine.cpu(), machine.memory()
    threads = cpu.thread_count
    size = array_bytes(cpu.last_cache_bytes, ram.limit_bytes)
    say("memory bandwidth, reading")
    read = read_bandwidth(threads, size, pass_count=6 if quick else 20)
    say("memory bandwidth, copying")
    copy = copy_bandwidth(threads, size, pass_count=4 if quick else 12)
    say("matrix products")
    fp32 = fp32_peak(pass_count=3 if quick else 10)
    say("storage")
    disk = _disk(folder or cache_dir(), 256 * 2**20 if quick else 2**30)
    say("sensors")
    found = sensors.report()
    peaks = {p.dtype: p for p in (fp32, *estimated_peaks(fp32, cpu.isa))} | engine_peaks(calibrations)
    return _profile(name, cpu, ram, read, copy, peaks, disk, found, calibrations)


def save_profile(profile: DeviceProfile, path: Path | None = None) -> Path:
    """Write the profile as TOML, into the user's own devices unless ``path`` is given; replaces it atomically."""
    target = path or home_dir() / "devices" / f"{profile.name}.toml"
    write_atomically(target, dump_device(profile).encode())
    return target


def engine_peaks(calibrations: tuple[Calibration, ...]) -> dict[str, Peak]:
    """fp16 and int8 peaks that the engine's own products reached at its largest batch.

    Operations per second = 2 x batch / (seconds per byte x bytes per weight).
    """
    from harness.domain.ggml import BLOCKS

    found: dict[str, Peak] = {}
    for calibration in calibrations:
        for dtype, type_name in (("fp16", "F16"), ("int8", "Q8_0")):
            cost = next((c for c in calibration.types if c.type_name == type_name), None)
            if cost is None:
                continue
            batch, seconds = cost.batch_seconds_per_byte[-1]
            per_weight_s = seconds * BLOCKS[type_name].bits_per_weight / 8
            source = f"{type_name} products of {batch} tokens in {calibration.engine_version}"
            found[dtype] = Peak(dtype, 2 * batch / per_weight_s, "measured", source)
    return found


def _disk(folder: Path, file_bytes: int) -> DiskSpeed | None:
    try:
        return disk_speed(folder, file_bytes=file_bytes)
    except OSError:  # no room, or a read-only place: the profile says that it was not measured
        return None


def _profile(
    name: str,
    cpu: machine.Cpu,
    ram: machine.Memory,
    read: Bandwidth,
    copy: Bandwidth,
    peaks: dict[str, Peak],
    disk: DiskSpeed | None,
    found: sensors.SensorReport,
    calibrations: tuple[Calibration, ...],
) -> DeviceProfile:
    today = datetime.datetime.now(tz=datetime.UTC).date()

    def measured(value: float, how: str) -> Figure:
        return Figure(
            value=value, source=f"measured on {today} by edge-harness devices probe: {how}", confidence="measured"
        )

    spread = f"best of several; middle pass {read.median_bytes_per_s / 1e9:.1f} GB/s"
    read_figure = measured(
        read.bytes_per_s, f"{read.kernel}, {read.thread_count} threads over {read.array_bytes >> 20} MiB, {spread}"
    )
    limit_words = "installed RAM" if ram.limit_bytes == ram.total_bytes else "memory limit of the control group"
    # What the system itself holds now is gone for us too; a limit of the control group is all ours.
    usable = min(ram.limit_bytes, ram.available_bytes)
    if disk is None:
        storage = Storage(
            technology="not measured",
            sequential_read_bytes_per_s=Figure(
                value=1e8, source="not measured: the cache folder has no room", confidence="assumed"
            ),
        )
    else:
        how = f"{disk.way} reads of a {disk.file_bytes >> 20} MiB file"
        storage = Storage(
            technology="disk under the cache folder",
            sequential_read_bytes_per_s=measured(disk.sequential_bytes_per_s, f"{how}, 4 MiB each, in order"),
            random_read_bytes_per_s=measured(disk.random_bytes_per_s, f"{how}, 64 KiB each, at random"),
            busy_read_bytes_per_s=measured(disk.busy_bytes_per_s, f"{how}, four at a time, all threads computing")
            if disk.busy_bytes_per_s
            else None,
            mapped_read_bytes_per_s=measured(disk.mapped_bytes_per_s, "the file mapped, every page touched in order")
            if disk.mapped_bytes_per_s
            else None,
        )
    battery = sensors.battery_joules()
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
                # The theoretical figure cannot be seen from inside; what a read kernel gets is the ceiling that counts.
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
                    p.dtype: Figure(
                        value=p.flops_per_s,
                        source=f"edge-harness devices probe, {today}: {p.source}",
                        confidence=p.confidence,
                    )
                    for p in peaks.values()
                },
            ),
        ),
        storage=storage,
        power=Power(
            battery_joules=measured(battery, "full charge as the battery reports it") if battery else None,
        ),
        calibrations=calibrations,
        notes=_notes(cpu, ram, found),
    )


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
