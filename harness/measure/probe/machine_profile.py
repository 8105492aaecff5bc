"""Measure this machine and write down what it is: a device profile like the shipped ones, every figure measured."""

import datetime
import platform
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from harness.core.device import (
    RAM,
    ComputeEngine,
    Device,
    DeviceKind,
    OperatingSystem,
    Pool,
    Power,
    Sourced,
    Storage,
    measured,
)
from harness.core.isa import best_ratio
from harness.core.paths import cache_dir, home_dir
from harness.hardware.devices import device_names, dump_device, load_device
from harness.hardware.threads import default_thread_count
from harness.measure import machine, sensors
from harness.measure.probe.bandwidth import WorkingSets, array_bytes, cache_found, read_bandwidth, sweep
from harness.measure.probe.disk import storage_under
from harness.records.store import write_atomically

DEVICE_NAME: Final = "this-machine"
_STORED_BYTES: Final = 256 * 2**20
_ROUGH_STORAGE_BYTES_PER_S: Final = 5e8
"""A cheap solid-state disk's."""

Progress = Callable[[str], None]


def probe_machine(*, progress: Progress, name: str = DEVICE_NAME) -> Device:
    """Measure bandwidth, matrix products, storage, RAM and its limits, cores, instruction sets and battery.

    Some ten seconds on two cores. The storage is that of the cache folder, where models rest.
    """
    threads = default_thread_count()
    cache_bytes = machine.cpu().last_cache_bytes
    progress("memory bandwidth, reading")
    sets = sweep(threads, cache_bytes, machine.memory().limit_bytes)
    size, speed = sets[-1]
    # The theoretical figure cannot be seen from inside; what a read kernel gets is the ceiling that counts.
    read = measured(speed, f"the best pass of three kernels, {threads} threads over {size >> 20} MiB")
    progress("matrix products")
    fp32 = fp32_peak()
    progress("storage")
    storage = storage_under(cache_dir(), file_bytes=_STORED_BYTES)
    battery = sensors.battery_joules()
    power = Power()
    if battery is not None:
        power = Power(battery_joules=measured(battery, "full charge as the battery reports it"))
    notes = f"Last-level cache {cache_bytes >> 20} MiB as it is told, {cache_found(sets) >> 20} MiB seen."
    return _profile(name, read, fp32, storage, sets).replace(power=power, notes=notes)


def rough_machine() -> Device:
    """A profile of this machine in half a second: its parts as they are told, its memory read for a moment.

    Storage is assumed; the chip's name, cores, instruction sets, limits and the size of RAM are exact.
    """
    size = array_bytes(0, machine.memory().limit_bytes)
    speed = read_bandwidth(default_thread_count(), size, pass_count=2)
    read = Sourced(speed, "read for a moment, no probe", "assumed")
    disk = Sourced(_ROUGH_STORAGE_BYTES_PER_S, "assumed: a cheap solid-state disk", "assumed")
    storage = Storage(technology="not measured", sequential_read_bytes_per_s=disk)
    profile = _profile(DEVICE_NAME, read, fp32_peak(size_dim=512, pass_count=2), storage)
    return profile.replace(doubts=("read from its parts in a moment: `edge-harness check` probes it",))


def own_profile() -> Device | None:
    """The probed profile of this machine; None where there is none, or where it is of another one.

    A profile in a home that several machines share, or that was probed under other limits, does not hold
    here. One of an older form is skipped with a warning, and taken anew.
    """
    if DEVICE_NAME not in device_names():
        return None
    profile = load_device(DEVICE_NAME)
    return profile if profile.machine == machine.fingerprint().fingerprint else None


def _profile(
    name: str, read: Sourced, fp32: Sourced, storage: Storage, working_sets: WorkingSets = ()
) -> Device:
    cpu = machine.cpu()
    ram = machine.memory()
    limit_words = "memory limit of the control group"
    if ram.limit_bytes == ram.total_bytes:
        limit_words = "installed RAM"
    # What the system and others hold now is gone for us too.
    usable = min(ram.limit_bytes, ram.available_bytes)
    pool = ram_pool(ram, measured(usable, f"{limit_words}, less what others hold now"), read)
    engine = cpu_engine(cpu, cpu.model)
    return Device(
        name=name,
        title=f"This machine ({cpu.model})",
        kind=_kind(),
        vendor="Apple" if _system() == "macos" else (cpu.board or cpu.model or "unknown").split()[0],
        chip=cpu.model,
        os=_system(),
        year=this_year(),
        pools=(pool.replace(working_sets=working_sets),),
        engines=(engine.replace(peak_flops_per_s={"fp32": fp32} | estimated_peaks(fp32, cpu.isa)),),
        storage=storage,
        machine=machine.fingerprint().fingerprint,
    )


def ram_pool(ram: machine.Ram, usable: Sourced, read: Sourced) -> Pool:
    """The RAM of a machine that was looked at; ``read`` is its bandwidth, as what goes through it got it."""
    return Pool(
        name=RAM,
        technology="as measured",
        total_bytes=measured(ram.total_bytes, "as the system reports it"),
        usable_bytes=usable,
        bandwidth_bytes_per_s=read,
        measured_read_bytes_per_s=read,
    )


def cpu_engine(cpu: machine.Cpu, name: str) -> ComputeEngine:
    """The CPU of a machine that was looked at, without peaks."""
    return ComputeEngine(
        kind="cpu", name=name, pool=RAM, apis=("cpu",), core_count=cpu.cores.core_count, isa=cpu.isa
    )


def this_year() -> int:
    """The year in which it is measured."""
    return datetime.datetime.now(tz=datetime.UTC).year


def save_profile(profile: Device, path: Path | None = None) -> Path:
    """Write the profile as TOML, into the user's own devices unless ``path`` is given.

    A file that is there is replaced in one step, so that no reader sees half of it.
    """
    target = path or home_dir() / "devices" / f"{profile.name}.toml"
    write_atomically(target, dump_device(profile).encode())
    return target


def fp32_peak(*, size_dim: int = 2048, pass_count: int = 4) -> Sourced:
    """Best of several products of two float32 matrices through numpy's BLAS, in operations a second.

    A product of two n x n matrices is 2 n**3 operations.
    """
    draw = np.random.default_rng(1)
    a = draw.random((size_dim, size_dim), dtype=np.float32)
    b = draw.random((size_dim, size_dim), dtype=np.float32)
    out = np.empty_like(a)
    np.matmul(a, b, out=out)
    times = timeit.repeat(lambda: np.matmul(a, b, out=out), number=1, repeat=pass_count)
    return measured(
        2 * size_dim**3 / min(times), f"numpy BLAS, {size_dim} x {size_dim}, best of {pass_count}"
    )


def estimated_peaks(fp32: Sourced, isa: tuple[str, ...] | None) -> dict[str, Sourced]:
    """fp16 and int8 from the fp32 peak and the widest instruction for each.

    fp16 without half-precision arithmetic (x86) converts and multiplies in fp32: the same peak.
    """
    peaks = {}
    for dtype, field in (("fp16", "fp16_ratio"), ("int8", "int8_ratio")):
        ratio, name = best_ratio(isa, field)
        why = name or "no vector extension"
        if isa is None:
            why = "instruction sets not told"
        peaks[dtype] = Sourced(fp32.value * ratio, f"{ratio:g} x the measured fp32 peak ({why})", "assumed")
    return peaks


def _system() -> OperatingSystem:
    names: dict[str, OperatingSystem] = {"Darwin": "macos", "Windows": "windows"}
    if hasattr(sys, "getandroidapilevel"):
        return "android"
    return names.get(platform.system(), "linux")


def _kind() -> DeviceKind:
    """Class of device, as far as it shows: by its battery, and the device tree of a board."""
    if _system() == "android":
        return "phone"
    if sensors.battery_joules() is not None:
        return "laptop"
    return "board" if Path("/proc/device-tree/model").exists() else "desktop"
