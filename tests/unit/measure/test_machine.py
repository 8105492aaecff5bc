"""Fingerprint, instruction sets and binding limits, on fake /proc and /sys trees."""

import getpass
import platform
from pathlib import Path

import msgspec
import pytest

from harness.hardware.cpus import CoreKind, Cores, cpu_quota_count
from harness.measure import cgroup, machine


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu sse2 avx avx2 fma", ("avx2",)),
        ("flags\t\t: avx2 avx512f avx512bw avx512dq avx512vl", ("avx2", "avx512")),
        ("flags\t\t: avx2 avx512f", ("avx2",)),  # foundation alone is not enough for the kernels
        (
            "flags\t\t: avx2 avx512f avx512bw avx512dq avx512vl avx512_vnni amx_tile amx_int8",
            ("avx2", "avx512", "avx512_vnni", "amx"),
        ),
        ("Features\t: fp asimd asimddp i8mm sve", ("neon", "dotprod", "i8mm", "sve")),
        ("Features\t: fp asimd", ("neon",)),
    ],
)
def test_instruction_sets(tmp_path: Path, line: str, expected: tuple[str, ...]) -> None:
    write(tmp_path / "proc/cpuinfo", f"processor\t: 0\nmodel name\t: Example 9\n{line}\n")
    found = machine.cpu(root=tmp_path, affinity=frozenset({0}))
    assert found.isa == expected
    assert found.model == "Example 9"


def test_hardware_threads_of_a_core_count_once_and_affinity_binds(tmp_path: Path) -> None:
    write(tmp_path / "proc/cpuinfo", "model name : x\n")
    for index in range(8):
        base = tmp_path / f"sys/devices/system/cpu/cpu{index}"
        write(base / "topology/thread_siblings_list", f"{index % 4},{index % 4 + 4}\n")
        for cache, (level, kind, size, shared) in enumerate(
            [(1, "Data", "32K", str(index)), (1, "Instruction", "64M", "0"), (3, "Unified", "16M", f"{index % 2}")]
        ):
            write(base / f"cache/index{cache}/level", f"{level}\n")
            write(base / f"cache/index{cache}/type", f"{kind}\n")
            write(base / f"cache/index{cache}/size", f"{size}\n")
            write(base / f"cache/index{cache}/shared_cpu_list", f"{shared}\n")
    everything = machine.cpu(root=tmp_path, affinity=frozenset(range(8)))
    assert (everything.physical_core_count, everything.logical_cpu_count) == (4, 8)
    assert everything.last_cache_bytes == 2 * 16 * 2**20  # two slices of 16 MiB
    half = machine.cpu(root=tmp_path, affinity=frozenset({0, 4}))
    assert (half.physical_core_count, half.logical_cpu_count) == (1, 2)
    assert half.last_cache_bytes == 16 * 2**20


MOUNT_V1 = "36 25 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
MOUNT_V2 = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


def test_version_1_limit_walks_up(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "4:memory:/outer/inner\n0::/\n")
    write(tmp_path / "proc/self/mountinfo", MOUNT_V1)
    base = tmp_path / "sys/fs/cgroup/memory"
    write(base / "memory.limit_in_bytes", "9223372036854771712\n")
    write(base / "outer/memory.limit_in_bytes", "1000000\n")
    write(base / "outer/inner/memory.limit_in_bytes", "2000000\n")
    assert cgroup.memory_limit_bytes(root=tmp_path) == 1_000_000


@pytest.mark.parametrize(
    ("own", "parent", "high", "expected"),
    [
        ("max", "max", "max", None),
        ("5000", "max", "max", 5000),
        ("5000", "4000", "max", 4000),
        ("5000", "4000", "3000", 3000),
    ],
)
def test_version_2_limit(tmp_path: Path, own: str, parent: str, high: str, expected: int | None) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/a/b\n")
    write(tmp_path / "proc/self/mountinfo", MOUNT_V2)
    write(tmp_path / "sys/fs/cgroup/a/b/memory.max", own)
    write(tmp_path / "sys/fs/cgroup/a/memory.max", parent)
    write(tmp_path / "sys/fs/cgroup/a/memory.high", high)
    assert cgroup.memory_limit_bytes(root=tmp_path) == expected


def test_a_container_that_sees_only_its_own_subtree(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "4:memory:/docker/abc\n")
    write(
        tmp_path / "proc/self/mountinfo", "36 25 0:31 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    )
    write(tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes", "7000\n")
    assert cgroup.memory_limit_bytes(root=tmp_path) == 7000


def test_memory_limit_is_the_smaller_of_ram_and_group(tmp_path: Path) -> None:
    write(tmp_path / "proc/meminfo", "MemTotal:       8000 kB\nMemAvailable:   6000 kB\n")
    assert machine.memory(root=tmp_path)[:3] == (8_192_000, 6_144_000, 8_192_000)
    write(tmp_path / "proc/self/cgroup", "0::/a\n")
    write(tmp_path / "proc/self/mountinfo", MOUNT_V2)
    write(tmp_path / "sys/fs/cgroup/a/memory.max", "4096000\n")
    assert machine.memory(root=tmp_path).limit_bytes == 4_096_000


def test_cpu_quota_of_both_versions(tmp_path: Path) -> None:
    write(tmp_path / "proc/self/cgroup", "0::/a\n")
    write(tmp_path / "proc/self/mountinfo", MOUNT_V2)
    write(tmp_path / "sys/fs/cgroup/a/cpu.max", "150000 100000\n")
    assert cpu_quota_count(root=tmp_path) == 1.5
    write(tmp_path / "proc/self/cgroup", "1:cpu,cpuacct:/a\n")
    write(tmp_path / "proc/self/mountinfo", "36 25 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n")
    write(tmp_path / "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n")
    assert cpu_quota_count(root=tmp_path) is None
    write(tmp_path / "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "50000\n")
    assert cpu_quota_count(root=tmp_path) == 0.5


def test_memory_of_a_node_without_a_cpu_is_no_ram(tmp_path: Path) -> None:
    """Two nodes with four CPUs each, and a GPU's memory, which the kernel counts as memory too."""
    write(tmp_path / "proc/meminfo", "MemTotal:       9000 kB\nMemAvailable:   8500 kB\n")
    for node, (cpus, kib) in enumerate([("0-3", 3000), ("4-7", 3000), ("", 3000)]):
        write(tmp_path / f"sys/devices/system/node/node{node}/cpulist", f"{cpus}\n")
        write(tmp_path / f"sys/devices/system/node/node{node}/meminfo", f"Node {node} MemTotal:       {kib} kB\n")
    found = machine.memory(root=tmp_path)
    assert (found.nodes, found.other_bytes, found.total_bytes) == (2, 3000 * 1024, 6000 * 1024)
    assert found.available_bytes == found.limit_bytes == 6000 * 1024


def test_what_others_of_the_group_hold_is_not_free(tmp_path: Path) -> None:
    write(tmp_path / "proc/meminfo", "MemTotal:       9000 kB\nMemAvailable:   8000 kB\n")
    write(tmp_path / "proc/self/cgroup", "0::/a\n")
    write(tmp_path / "proc/self/mountinfo", MOUNT_V2)
    write(tmp_path / "sys/fs/cgroup/a/memory.max", "4000000")
    write(tmp_path / "sys/fs/cgroup/a/memory.current", "3000000")
    write(tmp_path / "sys/fs/cgroup/a/memory.stat", "anon 2000000\nactive_file 400000\ninactive_file 600000\n")
    assert machine.memory(root=tmp_path).available_bytes == 4_000_000 - 2_000_000  # pages of files can go


def test_quota_holds_threads_down() -> None:
    free = Cores((CoreKind(1.0, tuple(range(8))),), 16)
    assert free.thread_count == 8
    assert free._replace(quota_count=2.5).thread_count == 2
    assert free._replace(quota_count=0.5).thread_count == 1


def test_fingerprint_names_nobody() -> None:
    found = machine.fingerprint()
    text = msgspec.json.encode(found).decode()
    assert platform.node() not in text or platform.node() in platform.platform()
    assert getpass.getuser() not in text.replace(found.cpu_model, "")
    assert len(found.fingerprint) == 12
    assert found == machine.fingerprint()
    assert 0 < found.memory_limit_bytes <= found.ram_bytes


def test_fingerprint_hash_follows_the_limit(tmp_path: Path) -> None:
    write(tmp_path / "proc/cpuinfo", "model name : x\nflags : avx2\n")
    write(tmp_path / "proc/meminfo", "MemTotal: 8000 kB\n")
    first = machine.fingerprint(root=tmp_path)
    write(tmp_path / "proc/self/cgroup", "0::/a\n")
    write(tmp_path / "proc/self/mountinfo", MOUNT_V2)
    write(tmp_path / "sys/fs/cgroup/a/memory.max", "4096000\n")
    assert machine.fingerprint(root=tmp_path).fingerprint != first.fingerprint
