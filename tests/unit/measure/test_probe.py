"""Bandwidth, disk, matrix products and the profile that comes of them."""

import timeit
from pathlib import Path

import numpy as np
import pytest

from harness.core.device import Sourced
from harness.hardware.devices import load_device
from harness.measure.probe import bandwidth, disk
from harness.measure.probe import machine_profile as probe

MIB = 2**20


@pytest.mark.parametrize(
    ("cache", "limit", "expected"),
    [
        (32 * MIB, 64 << 30, 256 * MIB),  # 4 x 32 MiB is less than the least size
        (256 * MIB, 64 << 30, 1024 * MIB),  # 4 x the cache
        (256 * MIB, 4096 * MIB, 512 * MIB),  # an eighth of a small machine's RAM
        (0, 64 << 30, 256 * MIB),  # cache unknown
        (0, 4 * MIB, MIB),  # an eighth is less than the first step of a sweep
        (0, 0, MIB),  # RAM unknown
    ],
)
def test_arrays_exceed_the_cache(cache: int, limit: int, expected: int) -> None:
    assert bandwidth.array_bytes(cache, limit) == expected


def test_read_counts_each_byte_once() -> None:
    found = bandwidth.read_bandwidth(2, 16 * MIB, pass_count=2)
    array = np.full(4 * MIB, 0.5, np.float32)  # as many bytes, by one thread
    one_s = min(timeit.repeat(lambda: np.dot(array, array), number=1, repeat=5))
    assert 0.3 < found * one_s / (16 * MIB) < 8


def test_read_kernels_look_at_every_byte() -> None:
    array = np.full(1000, 0.5, np.float32)
    assert bandwidth.READ_KERNELS["dot product"](array) == pytest.approx(250.0)
    array[777] = 9.0
    assert bandwidth.READ_KERNELS["maximum of floats"](array) == 9.0
    array.view(np.uint8)[:] = 7
    array.view(np.uint8)[123] = 3
    assert bandwidth.READ_KERNELS["minimum of bytes"](array) == 3


STEPS = ((1 * MIB, 100.0), (8 * MIB, 100.0), (16 * MIB, 60.0), (32 * MIB, 20.0), (64 * MIB, 25.0), (256 * MIB, 20.0))


def test_the_cache_is_where_the_speed_falls() -> None:
    assert bandwidth.cache_found(STEPS) == 16 * MIB  # memory gives 25, and 60 is more than 1.25 x that
    assert bandwidth.cache_found(((1 * MIB, 21.0), (256 * MIB, 20.0))) == 0
    assert bandwidth.cache_found(()) == 0
    shares = dict(bandwidth.cached_shares(STEPS, 8 * MIB))
    # (1/20 - 1/60) / (1/20 - 1/100) = (1/30) / (1/25); (1/20 - 1/25) / (1/25) = 1/4, which 32 MiB have at least too
    assert shares[16 * MIB] == pytest.approx(25 / 30)
    assert (shares[8 * MIB], shares[32 * MIB], shares[64 * MIB], shares[256 * MIB]) == pytest.approx(
        (1, 1 / 4, 1 / 4, 0)
    )


def test_a_sweep_goes_from_a_mebibyte_to_beyond_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "MINIMUM_BYTES", 4 * MIB)
    found = bandwidth.sweep(2, 2 * MIB, 64 << 30)
    assert [size for size, _ in found] == [MIB, 2 * MIB, 4 * MIB, 8 * MIB]
    assert all(speed > 0 for _, speed in found)
    # four times a cache of 3 MiB is no power of two, and the profile's bandwidth is read over all of it
    assert [size // MIB for size, _ in bandwidth.sweep(2, 3 * MIB, 64 << 30)] == [1, 2, 4, 8, 12]
    assert [size for size, _ in bandwidth.sweep(2, 3 * MIB, 0)] == [MIB]


def test_disk_reads_the_whole_file_and_leaves_nothing(tmp_path: Path) -> None:
    found = disk.storage_under(tmp_path, file_bytes=8 * MIB)
    source = found.sequential_read_bytes_per_s.source
    assert "8 MiB file" in source
    assert found.sequential_read_bytes_per_s.value > 0
    assert found.mapped_read_bytes_per_s is None or found.mapped_read_bytes_per_s.value > 0
    assert (found.busy_read_bytes_per_s is None) == ("possibly cached" in source)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("proc/cpuinfo", "flags : fpu hypervisor", True),
        ("proc/cpuinfo", "flags : fpu", False),
        ("sys/class/dmi/id/sys_vendor", "Amazon EC2", True),
        ("sys/class/dmi/id/product_name", "Google Compute Engine", True),
        ("sys/class/dmi/id/product_name", "Virtual Machine", True),  # of Microsoft Corporation, as their tablets
        ("sys/class/dmi/id/sys_vendor", "Microsoft Corporation", False),
        ("sys/class/dmi/id/product_name", "PowerEdge R740", False),
        ("sys/hypervisor/type", "xen", True),
        ("proc/device-tree/hypervisor/compatible", "linux,kvm\0", True),
        ("proc/device-tree/compatible", "linux,dummy-virt\0", True),
        ("proc/device-tree/compatible", "raspberrypi,5-model-b\0brcm,bcm2712\0", False),
    ],
)
def test_a_guest_knows_its_hypervisor_on_every_processor(name: str, text: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(text)
    assert disk.is_virtual(root=tmp_path) is expected


def test_a_whole_machine_of_a_cloud_has_no_host(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/dmi/id"
    folder.mkdir(parents=True)
    (folder / "sys_vendor").write_text("Amazon EC2\n")
    (folder / "product_name").write_text("m7g.metal\n")
    assert not disk.is_virtual(root=tmp_path)


@pytest.mark.parametrize(("virtual", "ratio"), [(True, disk.FIRST_READ_RATIO), (False, 1.0)])
def test_what_a_host_holds_comes_slower_from_its_disk(
    virtual: bool, ratio: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "is_virtual", lambda: virtual)
    monkeypatch.setattr(disk, "_touched_bytes_per_s", lambda *_: 1e9)
    found = disk.storage_under(tmp_path, file_bytes=4 * MIB).mapped_read_bytes_per_s
    assert found is not None and found.value == pytest.approx(1e9 / ratio)


def test_disk_falls_back_where_direct_reads_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = disk.os.open

    def refuse(path: object, flags: int, *rest: int, **named: int) -> int:
        if flags & getattr(disk.os, "O_DIRECT", 0):
            raise OSError(22, "Invalid argument")
        return real(path, flags, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("harness.measure.probe.disk.os.open", refuse)
    found = disk.storage_under(tmp_path, file_bytes=4 * MIB)
    source = found.sequential_read_bytes_per_s.source
    assert ("possibly cached" in source) == (found.busy_read_bytes_per_s is None)


def test_estimated_peaks_follow_the_instruction_set() -> None:
    fp32 = Sourced(value=1e11, source="", confidence="measured")
    found = probe.estimated_peaks(fp32, ("avx2", "avx512", "avx512_vnni"))
    assert {dtype: peak.value for dtype, peak in found.items()} == {"fp16": 1e11, "int8": 4e11}
    found = probe.estimated_peaks(fp32, ("avx2", "avx_vnni"))
    assert {dtype: peak.value for dtype, peak in found.items()} == {"fp16": 1e11, "int8": 4e11}
    assert "not told" in probe.estimated_peaks(fp32, None)["int8"].source
    found = probe.estimated_peaks(fp32, ("neon", "dotprod", "i8mm"))
    assert {dtype: peak.value for dtype, peak in found.items()} == {"fp16": 2e11, "int8": 8e11}
    assert {peak.confidence for peak in found.values()} == {"assumed"}


def test_fp32_peak_is_measured() -> None:
    found = probe.fp32_peak(size_dim=128, pass_count=2)
    assert found.value > 1e6
    assert found.confidence == "measured"


def test_quick_probe_writes_a_profile_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("harness.measure.probe.bandwidth.array_bytes", lambda *_: 8 * MIB)
    real_storage = disk.storage_under
    small = lambda folder, **_: real_storage(folder, file_bytes=4 * MIB)  # noqa: E731
    monkeypatch.setattr("harness.measure.probe.machine_profile.storage_under", small)
    real = probe.fp32_peak
    monkeypatch.setattr("harness.measure.probe.machine_profile.fp32_peak", lambda **_: real(size_dim=128, pass_count=1))
    lines: list[str] = []
    profile = probe.probe_machine(progress=lines.append)
    path = probe.save_profile(profile)
    loaded = load_device(probe.DEVICE_NAME)
    assert path == tmp_path / "home/devices/this-machine.toml"
    assert loaded.pool("ram").measured_read_bytes_per_s == profile.pool("ram").measured_read_bytes_per_s
    assert loaded.engine_for("cpu").core_count >= 1
    assert len(lines) == 3
    figure = loaded.pool("ram").bandwidth_bytes_per_s
    assert figure.confidence == "measured"
    assert "edge-harness devices probe" in figure.source


def test_no_room_for_the_disk_test_is_said(tmp_path: Path) -> None:
    found = disk.storage_under(tmp_path / "absent", file_bytes=4 * MIB)
    assert found.technology == "not measured" and found.sequential_read_bytes_per_s.confidence == "assumed"
