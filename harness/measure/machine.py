"""Read the facts of a machine: processor, caches, instruction sets, RAM, and the limits that bind.

Names of the host and of its users are never read. Every reader takes a ``root``: the root of this machine, of a
target whose files were copied, or of a recorded machine.
"""

import hashlib
import math
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

from harness.core.isa import isa_of_flags, isa_of_keys
from harness.core.record import MachineFingerprint
from harness.hardware.cpus import (
    ROOT,
    Cores,
    allowed_cpus,
    cores,
    numbers,
    parts_of,
    performance_levels,
    portable_cores,
    read_int,
    read_text,
    sysctl,
)
from harness.measure import cgroup

_BOARD_FILES = (
    "sys/devices/soc0/machine", "sys/devices/soc0/soc_id", "proc/device-tree/model",
    "sys/class/dmi/id/sys_vendor", "sys/class/dmi/id/product_name", "sys/class/dmi/id/board_name",
)  # fmt: skip


_SIGNATURE = ("vendor_id", "cpu family", "model", "stepping", "CPU variant", "CPU revision")


class Cache(NamedTuple):
    """All caches of one level that serve our CPUs."""

    level: int
    size_bytes: int
    instance_count: int


class Cpu(NamedTuple):
    """The processor as this process may use it: cores and caches of the CPUs in its affinity.

    ``isa`` are instruction sets that change the cost of dequantisation, of all processors alike; None where
    nothing tells them. ``signature`` is what the chip calls itself: family, model and stepping, or parts.
    """

    model: str
    cores: Cores
    isa: tuple[str, ...] | None
    caches: tuple[Cache, ...] = ()
    signature: str = ""
    board: str = ""

    @property
    def physical_core_count(self) -> int:
        """Cores, hardware threads of one counted once."""
        return self.cores.core_count

    @property
    def logical_cpu_count(self) -> int:
        """CPUs that the system schedules on."""
        return self.cores.logical_count

    @property
    def thread_count(self) -> int:
        """Threads worth starting, by the rule of :mod:`harness.hardware.cpus`."""
        return self.cores.thread_count

    @property
    def last_cache_bytes(self) -> int:
        """Bytes of the last level of cache as it is told, all instances together; 0 where it is not."""
        return max(self.caches, default=Cache(0, 0, 0)).size_bytes


class Ram(NamedTuple):
    """RAM as this process may use it.

    ``limit_bytes`` is the smallest of all and of every control group's limit.

    ``nodes`` are NUMA nodes with CPUs, ``other_bytes`` lie in nodes without (a GPU's memory, memory behind a
    link) and are no part of the RAM.
    """

    total_bytes: int
    available_bytes: int
    limit_bytes: int
    nodes: int = 1
    other_bytes: int = 0


def cpu(*, root: Path = ROOT, affinity: frozenset[int] | None = None) -> Cpu:
    """The processor; ``affinity`` are the CPUs we may run on, asked of the system unless given."""
    allowed = allowed_cpus() if affinity is None else affinity
    text = read_text(root / "proc/cpuinfo")
    if not text:
        return portable_cpu(sysctl())
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE) or [""]
    common = set.intersection(*(set(line.split()) for line in lines))
    parts = sorted(set(parts_of(text).values()))
    chip = [_field(text, name) for name in _SIGNATURE]
    board = [read_text(root / name) for name in _BOARD_FILES]
    return Cpu(
        model=_model(root, text, parts),
        cores=cores(root=root, affinity=allowed),
        isa=isa_of_flags(common),
        caches=_caches(root, allowed),
        signature=" ".join([*filter(None, chip), *parts]),
        board=" ".join(filter(None, [*board, _field(text, "Hardware"), _field(text, "Revision")])),
    )


def memory(*, root: Path = ROOT) -> Ram:
    """RAM and the limit that binds; what others in a group with a limit hold is not available."""
    text = read_text(root / "proc/meminfo")
    if not text:
        now = psutil.virtual_memory()
        return Ram(now.total, now.available, now.total)
    kib = {m[1]: int(m[2]) for m in re.finditer(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    node_count, other = _nodes(root)
    total = max(kib.get("MemTotal", 0) * 1024 - other, 0)
    limit = min(total, cgroup.memory_limit_bytes(root=root) or total)
    free = min(kib.get("MemAvailable", kib.get("MemFree", 0)) * 1024, total)
    return Ram(total, min(free, cgroup.memory_room_bytes(root=root) or free), limit, node_count, other)


def fingerprint(*, root: Path = ROOT) -> MachineFingerprint:
    """What identifies the machine for comparison of runs.

    The short hash covers what changes speed and stays through a restart: the chip's own signature, cores by
    kind, caches, instruction sets, board, limits, and the size of RAM in steps of a fifth (a kernel takes a
    little more or less of it). Two runs are comparable when their hashes are equal. It holds no host name,
    user name or serial number.
    """
    system = f"{platform.system()} {platform.machine()}"
    python = platform.python_version()
    return fingerprint_of(system, platform.release(), cpu(root=root), memory(root=root), python=python)


def fingerprint_of(
    system: str, kernel: str, processor: Cpu, ram: Ram, *, python: str = "", device: str = "this machine"
) -> MachineFingerprint:
    """The same of a machine that is known."""
    kinds = [(round(kind.speed, 1), len(kind.cpus)) for kind in processor.cores.kinds]
    size = 0
    limit = 0
    if ram.total_bytes:
        size = round(4 * math.log2(ram.total_bytes))
    if ram.limit_bytes < ram.total_bytes:
        limit = ram.limit_bytes
    chip = processor.model, processor.signature, processor.board, processor.isa, processor.caches
    parts = (
        system,
        *chip,
        kinds,
        processor.logical_cpu_count,
        processor.cores.quota_count,
        size,
        limit,
        ram.nodes,
    )
    return MachineFingerprint(
        system=system,
        kernel=kernel,
        cpu_model=processor.model,
        core_count=processor.physical_core_count,
        ram_bytes=ram.total_bytes,
        memory_limit_bytes=ram.limit_bytes,
        isa=processor.isa,
        python=python,
        device=device,
        fingerprint=hashlib.sha256(repr(parts).encode()).hexdigest()[:12],
    )


def portable_cpu(told: Mapping[str, str]) -> Cpu:
    """The processor as macOS describes it in its ``sysctl``.

    On other systems psutil answers, which knows no instruction sets.
    """
    caches: list[Cache] = []
    size_bytes = instance_count = 0
    for level, core_count in performance_levels(told).items():
        size, shared = (
            int(told.get(f"hw.perflevel{level}.{name}", 0)) for name in ("l2cachesize", "cpusperl2")
        )
        if size:
            instances = -(-core_count // shared) if shared else 1
            size_bytes += size * instances
            instance_count += instances
    if size_bytes:
        caches.append(Cache(2, size_bytes, instance_count))
    else:
        sizes = {level: int(told.get(f"hw.l{level}cachesize", 0)) for level in (2, 3)}
        caches += [Cache(level, size, 1) for level, size in sizes.items() if size]
    return Cpu(
        model=told.get("machdep.cpu.brand_string") or platform.processor() or platform.machine(),
        cores=portable_cores(told),
        isa=isa_of_keys(told),
        caches=tuple(caches),
        board=told.get("hw.model", ""),
    )


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _model(root: Path, text: str, parts: list[str]) -> str:
    """Name of the chip: Arm's own ``model name`` tells the architecture alone."""
    name = _field(text, "model name") or _field(text, "Model Name")
    if name and not re.match(r"ARMv|AArch64", name):
        return name
    told = (
        _field(text, "Hardware"),
        read_text(root / "sys/devices/soc0/machine"),
        _field(text, "Model"),
        read_text(root / "proc/device-tree/model"),
        f"Arm {' + '.join(parts)}" if parts else "",
        _field(text, "uarch"),
        _field(text, "cpu"),
        *re.findall(r"machine\s*[:=]\s*(.+)", text),
        name,
    )
    return next(filter(None, told), "unknown processor")


def _nodes(root: Path) -> tuple[int, int]:
    """NUMA nodes that have CPUs, and bytes of those that have none."""
    with_cpus = other = 0
    for folder in (root / "sys/devices/system/node").glob("node[0-9]*"):
        size = re.search(r"MemTotal:\s+(\d+) kB", read_text(folder / "meminfo"))
        listed = folder / "cpulist"
        mask = read_text(folder / "cpumap") or "1"
        if numbers(read_text(listed)) if listed.exists() else mask.strip("0,"):
            with_cpus += 1
        elif size:
            other += int(size[1]) * 1024
    return (with_cpus, other) if with_cpus else (1, 0)


def _caches(root: Path, allowed: frozenset[int]) -> tuple[Cache, ...]:
    """Caches by level, each instance that serves an allowed CPU counted once."""
    instances: dict[int, dict[str, int]] = {}
    for index in allowed:
        for folder in (root / f"sys/devices/system/cpu/cpu{index}/cache").glob("index*"):
            level = read_int(folder / "level")
            size = read_text(folder / "size")
            kind = read_text(folder / "type")
            number = re.fullmatch(r"(\d+)([KMG]?)", size)
            if level is None or number is None or kind == "Instruction":
                continue
            scale = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[number[2]]
            shared = read_text(folder / "shared_cpu_list") or str(index)
            instances.setdefault(level, {})[shared] = int(number[1]) * scale
    return tuple(Cache(level, sum(of.values()), len(of)) for level, of in sorted(instances.items()))
