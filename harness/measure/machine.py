"""What this machine is: processor, instruction sets, cores, RAM, and the limits that bind. No host or user name."""

import hashlib
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from harness.domain.record import MachineFingerprint
from harness.measure import cgroup
from harness.measure.cgroup import read_int, read_text

_ISA_OF_FLAGS: Final[tuple[tuple[str, frozenset[str]], ...]] = (
    ("avx2", frozenset({"avx2"})),
    ("avx512", frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})),
    ("avx512_vnni", frozenset({"avx512_vnni"})),
    ("amx", frozenset({"amx_tile", "amx_int8"})),
    ("neon", frozenset({"asimd"})),
    ("dotprod", frozenset({"asimddp"})),
    ("i8mm", frozenset({"i8mm"})),
    ("sve", frozenset({"sve"})),
)
"""Our name of an instruction set and the flags in /proc/cpuinfo that it takes (x86 ``flags``, Arm ``Features``)."""

_ISA_OF_SYSCTL: Final = {
    "neon": "hw.optional.arm64",
    "dotprod": "hw.optional.arm.FEAT_DotProd",
    "i8mm": "hw.optional.arm.FEAT_I8MM",
    "avx2": "hw.optional.avx2_0",
    "avx512": "hw.optional.avx512f",
}


class Cpu(NamedTuple):
    """The processor as this process may use it: cores and caches of the CPUs in its affinity.

    A quota is in CPUs' worth of time; ``isa`` are instruction sets that change the cost of dequantisation;
    ``last_cache_bytes`` are those of the last-level cache, all its slices together, 0 where unknown.
    """

    model: str
    physical_core_count: int
    logical_cpu_count: int
    quota_count: float | None
    isa: tuple[str, ...]
    last_cache_bytes: int

    @property
    def thread_count(self) -> int:
        """Threads worth starting: physical cores, held down by the quota, at least one."""
        quota = self.quota_count if self.quota_count is not None else float(self.physical_core_count)
        return max(1, min(self.physical_core_count, int(quota)))


class Memory(NamedTuple):
    """RAM as this process may use it; ``limit_bytes`` is the smallest of all and of every control group's limit."""

    total_bytes: int
    available_bytes: int
    limit_bytes: int


def cpu(*, root: Path = Path("/"), affinity: frozenset[int] | None = None) -> Cpu:
    """The processor; ``affinity`` are the CPUs we may run on, asked of the system unless given."""
    allowed = allowed_cpus() if affinity is None else affinity
    text = read_text(root / "proc/cpuinfo")
    if text is None:
        return _cpu_portable()
    words = frozenset((_field(text, "flags") or _field(text, "Features") or "").split())
    name = _field(text, "model name") or _field(text, "Model") or _arm_part(text) or platform.machine()
    # Those with the same set of siblings are one core.
    cpus = root / "sys/devices/system/cpu"
    cores = {read_text(cpus / f"cpu{index}/topology/thread_siblings_list") or str(index) for index in allowed}
    return Cpu(
        model=name.strip(),
        physical_core_count=max(len(cores), 1),
        logical_cpu_count=len(allowed),
        quota_count=cgroup.cpu_quota_count(root=root),
        isa=tuple(isa for isa, needed in _ISA_OF_FLAGS if needed <= words),
        last_cache_bytes=_last_cache_bytes(root, allowed),
    )


def memory(*, root: Path = Path("/")) -> Memory:
    """RAM and the limit that binds."""
    text = read_text(root / "proc/meminfo")
    if text is None:
        now = psutil.virtual_memory()
        return Memory(now.total, now.available, now.total)
    kib = {m[1]: int(m[2]) for m in re.finditer(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    total = kib.get("MemTotal", 0) * 1024
    limit = min(total, cgroup.memory_limit_bytes(root=root) or total)
    return Memory(total, kib.get("MemAvailable", kib.get("MemFree", 0)) * 1024, limit)


def fingerprint(*, root: Path = Path("/")) -> MachineFingerprint:
    """What identifies the machine for comparison of runs.

    The short hash covers what changes speed: processor, cores, instruction sets, RAM, limit and system, so two
    runs are comparable when their hashes are equal. It holds no host name, user name or serial number.
    """
    system = f"{platform.system()} {platform.machine()}"
    python = platform.python_version()
    return fingerprint_of(system, platform.release(), cpu(root=root), memory(root=root), python=python)


def fingerprint_of(
    system: str, kernel: str, processor: Cpu, ram: Memory, *, python: str = "", device: str = "this machine"
) -> MachineFingerprint:
    """The same of a machine that is known."""
    cores, isa = processor.physical_core_count, processor.isa
    parts = (system, processor.model, cores, isa, ram.total_bytes, ram.limit_bytes)
    return MachineFingerprint(
        system=system,
        kernel=kernel,
        cpu_model=processor.model,
        core_count=cores,
        ram_bytes=ram.total_bytes,
        memory_limit_bytes=ram.limit_bytes,
        isa=isa,
        python=python,
        device=device,
        fingerprint=hashlib.sha256(repr(parts).encode()).hexdigest()[:12],
    )


def allowed_cpus() -> frozenset[int]:
    """Numbers of the CPUs that we may run on."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def _cpu_portable() -> Cpu:
    """The processor through psutil and, on macOS, sysctl."""
    logical = psutil.cpu_count() or 1
    isa = tuple(name for name, key in _ISA_OF_SYSCTL.items() if _sysctl(key) == "1")
    # macOS: the performance cores do the work; efficiency cores slow a barrier down to their own pace.
    fast = _sysctl("hw.perflevel0.physicalcpu")
    cache = _sysctl("hw.perflevel0.l2cachesize") or _sysctl("hw.l3cachesize")
    return Cpu(
        model=_sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine(),
        physical_core_count=int(fast) if fast.isdigit() else psutil.cpu_count(logical=False) or logical,
        logical_cpu_count=logical,
        quota_count=None,
        isa=isa,
        last_cache_bytes=int(cache) if cache.isdigit() else 0,
    )


def _sysctl(key: str) -> str:
    if platform.system() != "Darwin":
        return ""
    try:
        done = subprocess.run(["/usr/sbin/sysctl", "-n", key], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _field(text: str, name: str) -> str | None:
    found = re.search(rf"^{re.escape(name)}\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else None


def _arm_part(text: str) -> str | None:
    implementer, part = _field(text, "CPU implementer"), _field(text, "CPU part")
    return f"Arm implementer {implementer} part {part}" if implementer and part else None


def _last_cache_bytes(root: Path, allowed: frozenset[int]) -> int:
    """Bytes of the highest cache level, each instance that serves an allowed CPU counted once."""
    instances: dict[int, dict[str, int]] = {}
    for index in allowed:
        for folder in (root / f"sys/devices/system/cpu/cpu{index}/cache").glob("index*"):
            level, size = read_int(folder / "level"), (read_text(folder / "size") or "").strip()
            kind = (read_text(folder / "type") or "").strip()
            number = re.fullmatch(r"(\d+)([KMG]?)", size)
            if level is None or number is None or kind == "Instruction":
                continue
            scale = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[number[2]]
            shared = (read_text(folder / "shared_cpu_list") or str(index)).strip()
            instances.setdefault(level, {})[shared] = int(number[1]) * scale
    return sum(instances[max(instances)].values()) if instances else 0
