"""What the machine did to a sample while it was taken, and whether the sample may be believed.

A timing is only as good as the machine was quiet. Counters are read before and after each sample, never during it:
Linux pressure-stall information, time stolen by the hypervisor, CPU time of everybody else, quota throttling, major
faults, swap, CPU frequency and heat. Source: Linux Documentation/accounting/psi.rst, proc_pid_stat(5), proc_stat(5).

The limit of CPU stalls is measured (two-core virtual machine, llama.cpp decode on both cores, 0.2 to 3 s samples):
undisturbed samples showed a share of 0.05 to 1 %, a busy loop on one core 49 to 61 %. The other limits are judgement.
"""

import contextlib
import mmap
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import psutil

from harness.cpus import cpu_quota_count, read_text
from harness.domain.record import Phase, Sample, Validity
from harness.measure import cgroup
from harness.measure.cgroup import labelled_int
from harness.measure.gpu_sensors import gpu_readings
from harness.measure.sensors import EnergyMeter, cpu_frequency_hz, hottest_celsius, throttle_count

_TICKS_PER_S: Final[int] = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class Tolerances(NamedTuple):
    """Where belief ends; each is a share of the sample's wall time unless its name says otherwise.

    Attributes:
        steal_ratio: Time taken by the hypervisor, per CPU.
        other_load_ratio: CPU time of other processes, of all CPUs' time.
        throttled_ratio: Held back by a CPU quota.
        major_fault_count: Pages read from disk, per second.
        slowed_ratio: Frequency at the end over that at the start.
        tick_count: CPU time is counted in ticks; a smaller excess proves nothing.
    """

    cpu_stall_ratio: float = 0.05
    memory_stall_ratio: float = 0.02
    io_stall_ratio: float = 0.05
    steal_ratio: float = 0.03
    other_load_ratio: float = 0.05
    throttled_ratio: float = 0.01
    major_fault_count: int = 50
    swap_in_bytes: int = 4 * 2**20
    slowed_ratio: float = 0.8
    tick_count: int = 4


LIMITS: Final = Tolerances()


class Counters(NamedTuple):
    """Everything that grows, read at one moment; None where the system does not tell."""

    clock_s: float
    all_s: float
    busy_s: float
    ours_s: float
    major_fault_count: int
    read_bytes: int | None
    frequency_hz: float | None
    throttled_s: float = 0.0
    cpu_stall_s: float | None = None
    memory_stall_s: float | None = None
    io_stall_s: float | None = None
    steal_s: float | None = None
    swap_in_bytes: int | None = None
    throttle_count: int | None = None


class ValidityProbe:
    """Reads the counters around one sample of the work of ``pid`` and its descendants.

    With ``disk_expected`` it reads from disk on purpose (a cold load): faults and I/O are no doubt. CPU time of
    ``own_pids`` and of this process is not that of others. ``root`` may be that of a target, whose files were copied.
    """

    def __init__(
        self,
        pid: int | None = None,
        *,
        disk_expected: bool = False,
        own_pids: Iterable[int] = (),
        limits: Tolerances = LIMITS,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pid = os.getpid() if pid is None else pid
        self._own = {self._pid, os.getpid(), *own_pids}
        self._disk_expected, self._limits, self._root, self._clock = disk_expected, limits, root, clock

    def start(self) -> None:
        """Read the counters before the sample."""
        self._gpus = gpu_readings(root=self._root)
        self._before = self.read()

    def finish(self) -> Validity:
        """Read them again after it, and judge."""
        validity = judge(
            self._before,
            self.read(),
            limits=self._limits,
            disk_expected=self._disk_expected,
            temperature_celsius=hottest_celsius(root=self._root),
            quota_count=cpu_quota_count(root=self._root),
        )
        doubts = dict[str, None]()  # what both readings tell is said once
        for gpu in (*self._gpus, *gpu_readings(root=self._root)):
            if gpu.throttled:
                why = ", ".join(gpu.throttled)
                doubts[f"{gpu.name} ran slower than it could ({why}): cool it, or raise its limits"] = None
            ours, others = (sum(load for pid, load in gpu.loads if (pid in self._own) is own) for own in (True, False))
            if ours and others > self._limits.other_load_ratio:  # a container may not see its own numbers
                doubts[f"other programs took {others:.0%} of {gpu.name}: end them"] = None
        return validity.doubted(*doubts)

    def read(self) -> Counters:
        """All counters now."""
        root, pid = self._root, self._pid
        steal_s: float | None = None
        if (root / "proc/stat").exists():
            busy_s, steal_s, all_s = _machine_times(root)
            ours_s, faults = _tree_times(self._own, pid, root)
            read_bytes = labelled_int(root / "proc" / str(pid) / "io", "read_bytes:")
        else:
            busy_s, all_s, ours_s, faults, read_bytes = self._told_by_psutil()
        swapped_pages = labelled_int(root / "proc/vmstat", "pswpin")
        return Counters(
            clock_s=self._clock(),
            cpu_stall_s=_pressure_s("cpu", pid, root),
            memory_stall_s=_pressure_s("memory", pid, root),
            io_stall_s=_pressure_s("io", pid, root),
            all_s=all_s,
            busy_s=busy_s,
            steal_s=steal_s,
            ours_s=ours_s,
            throttled_s=cgroup.throttled_s(pid=pid, root=root),
            major_fault_count=faults,
            read_bytes=read_bytes,
            swap_in_bytes=None if swapped_pages is None else swapped_pages * mmap.PAGESIZE,
            throttle_count=throttle_count(root=root),
            frequency_hz=cpu_frequency_hz(root=root),
        )

    def _told_by_psutil(self) -> tuple[float, float, float, int, int | None]:
        """Without /proc: CPU seconds busy, all and ours, major faults, bytes read."""
        times = psutil.cpu_times()
        all_s = float(sum(times))
        ours_s, faults, read_bytes = 0.0, 0, None
        for own in self._own:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(own)
                for member in (process, *process.children(recursive=True)):
                    used = member.cpu_times()
                    ours_s += used.user + used.system
                if own == self._pid:
                    faults = int(getattr(process.memory_info(), "pageins", 0))
                    read_bytes = process.io_counters().read_bytes if hasattr(process, "io_counters") else None
        return all_s - times.idle, all_s, ours_s, faults, read_bytes


def child_probe(pid: int | None = None, **options: Any) -> ValidityProbe:
    """A probe in a measured child: what the process that waits for it uses is no disturbance."""
    return ValidityProbe(pid, own_pids=(os.getppid(),), **options)


class Watch:
    """A stretch of work, for a ``with`` block: how long it took, and what the machine did meanwhile.

    Without a ``probe`` nothing is doubted; ``meter`` counts its ``joules``. Both are read outside the clock.
    """

    def __init__(
        self,
        probe: ValidityProbe | None,
        meter: EnergyMeter | None = None,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._probe, self._meter, self._now_s = probe, meter, now_s
        self.validity = Validity()
        self.joules: float | None = None

    def __enter__(self) -> Self:
        if self._probe is not None:
            self._probe.start()
        if self._meter is not None:
            self._meter.start()
        self.started_unix_s, self.start_s = time.time(), self._now_s()
        return self

    def __exit__(self, *_failure: object) -> None:
        self.duration_s = self._now_s() - self.start_s
        if self._probe is not None:
            self.validity = self._probe.finish()
        if self._meter is not None:
            self.joules = self._meter.finish_joules()

    def doubt(self, *reasons: str) -> None:
        """More that speaks against it."""
        self.validity = self.validity.doubted(*reasons)

    def sample(self, phase: Phase, label: str, token_count: int, **more: Any) -> Sample:
        """The stretch as a sample; ``more`` are further fields, and those of which only a part of it counts."""
        told: dict[str, Any] = {"duration_s": self.duration_s, "energy_joules": self.joules} | more
        begun, validity = self.started_unix_s, self.validity
        return Sample(
            phase=phase, label=label, token_count=token_count, started_unix_s=begun, validity=validity, **told
        )


def judge(
    before: Counters,
    after: Counters,
    *,
    limits: Tolerances = LIMITS,
    disk_expected: bool = False,
    temperature_celsius: float | None = None,
    quota_count: float | None = None,
) -> Validity:
    """Ratios between two readings, and the doubts that follow from them.

    stall ratio  = stalled seconds / wall seconds
    steal ratio  = stolen CPU seconds / CPU seconds of all CPUs
    other load   = (busy CPU seconds of all CPUs - those of our processes) / CPU seconds of all CPUs

    A task that waits for a CPU is a disturbance as far as somebody else had that CPU: x CPU seconds of others hold one
    of ours back for x seconds at most. Beyond that our own tasks wait for each other (a run with more threads than
    cores, a GPU that is made of CPU threads), and that is the speed which was asked for. A quota of less than one CPU
    holds every run back as far as it is short of one: so was the probe, and it is no disturbance.
    """

    def grown(name: str) -> Any:
        first, last = getattr(before, name), getattr(after, name)
        return None if first is None or last is None else max(last - first, 0)

    def share(name: str) -> float | None:
        seconds = grown(name)
        return None if seconds is None else min(seconds / wall_s, 1.0)

    wall_s = max(grown("clock_s"), 1e-9)
    # Ticks of a short sample may fill no CPU second at all: the wall time bounds the capacity from below.
    capacity_s = max(grown("all_s"), wall_s)
    other_s = max((after.busy_s - before.busy_s) - (after.ours_s - before.ours_s), 0.0)
    steal_s = grown("steal_s")
    stall = {name: share(f"{name}_stall_s") for name in ("cpu", "memory", "io")}
    other_ratio = min(other_s / capacity_s, 1.0)
    steal_ratio = None if steal_s is None else min(steal_s / capacity_s, 1.0)
    faults, throttled = grown("major_fault_count"), grown("throttled_s") / wall_s
    tick_s = limits.tick_count / _TICKS_PER_S

    doubts: list[str] = []
    if min(stall["cpu"] or 0.0, (other_s + 1 / _TICKS_PER_S) / wall_s) > limits.cpu_stall_ratio:
        doubts.append(
            f"a task waited for a CPU {stall['cpu']:.0%} of the time: stop other programs, or use fewer threads"
        )
    if other_ratio > limits.other_load_ratio and other_s > tick_s:
        doubts.append(f"other processes used {other_ratio:.0%} of all CPU time: stop them")
    if steal_ratio is not None and steal_ratio > limits.steal_ratio and steal_s > tick_s:
        doubts.append(f"the hypervisor took {steal_ratio:.0%} of the CPU time: use a machine with CPUs of its own")
    if throttled > limits.throttled_ratio + max(1.1 - (1.1 if quota_count is None else quota_count), 0.0):
        doubts.append(f"a CPU quota held the run back {throttled:.0%} of the time: raise it or use fewer threads")
    if (stall["memory"] or 0.0) > limits.memory_stall_ratio:
        doubts.append(f"a task waited for memory {stall['memory']:.0%} of the time: free memory or use a smaller model")
    swapped = grown("swap_in_bytes") or 0
    if swapped > limits.swap_in_bytes:
        doubts.append(f"{swapped / 2**20:.0f} MiB came back from swap: free memory or use a smaller model")
    if not disk_expected:
        if (stall["io"] or 0.0) > limits.io_stall_ratio:
            doubts.append(f"a task waited for the disk {stall['io']:.0%} of the time: let other disk work end")
        if faults > limits.major_fault_count * max(wall_s, 1.0):
            doubts.append(f"{faults} pages came from disk: warm the file up, or the model does not fit in memory")
    slowed = after.frequency_hz / before.frequency_hz if before.frequency_hz and after.frequency_hz else 1.0
    if slowed < limits.slowed_ratio:
        doubts.append(f"the CPU slowed to {slowed:.0%} of its frequency: cool it, or plug it in")
    if grown("throttle_count"):
        doubts.append("the CPU reported thermal throttling: let it cool down")
    clocks = [hz for hz in (before.frequency_hz, after.frequency_hz) if hz is not None]
    return Validity(
        cpu_stall_ratio=stall["cpu"],
        memory_stall_ratio=stall["memory"],
        io_stall_ratio=stall["io"],
        steal_ratio=steal_ratio,
        other_load_ratio=other_ratio,
        major_fault_count=faults,
        read_bytes=grown("read_bytes"),
        frequency_hz=sum(clocks) / len(clocks) if clocks else None,
        temperature_celsius_max=temperature_celsius,
        doubts=tuple(doubts),
    )


def _pressure_s(name: str, pid: int, root: Path) -> float | None:
    """Seconds in which some task stalled: of the process's own group where it keeps count, else of the machine."""
    own = next((folder for version, folder in cgroup.cgroup_folders("", pid=pid, root=root) if version == 2), None)
    texts = [read_text(own / f"{name}.pressure")] if own else []
    texts.append(read_text(root / "proc/pressure" / name))
    for text in texts:
        if found := re.search(r"^some .*\btotal=(\d+)\b", text, re.MULTILINE):
            return int(found[1]) / 1e6
    return None


def _machine_times(root: Path) -> tuple[float, float, float]:
    """Busy, stolen and all CPU seconds of the machine since boot."""
    fields = [int(v) for v in read_text(root / "proc/stat").split("\n", 1)[0].split()[1:9]]
    user, nice, system, idle, iowait, irq, softirq, steal = fields + [0] * (8 - len(fields))
    busy = user + nice + system + irq + softirq
    return busy / _TICKS_PER_S, steal / _TICKS_PER_S, (busy + steal + idle + iowait) / _TICKS_PER_S


def _tree_times(own: set[int], pid: int, root: Path) -> tuple[float, int]:
    """CPU seconds of our processes with all their descendants, and the major faults of ``pid``.

    Time of descendants that ended counts too, once their parent has waited for them (cutime, cstime).
    """
    parents: dict[int, tuple[int, int, int]] = {}
    for folder in (root / "proc").iterdir():
        if not folder.name.isdigit():
            continue
        # The name in parentheses may hold spaces and parentheses: what follows the last one is regular.
        fields = read_text(folder / "stat").rpartition(")")[2].split()
        if len(fields) >= 15:
            parents[int(folder.name)] = (int(fields[1]), sum(int(f) for f in fields[11:15]), int(fields[9]))
    members = {p for p in own if p in parents}
    while more := {child for child, (parent, _, _) in parents.items() if parent in members} - members:
        members |= more
    faults = parents[pid][2] if pid in parents else 0
    return sum(parents[m][1] for m in members) / _TICKS_PER_S, faults
