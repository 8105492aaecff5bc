"""What the machine did to a sample while it was taken, and whether the sample may be believed.

A timing is only as good as the machine was quiet. Counters are read before and after each sample, never
during it: Linux pressure-stall information, time stolen by the hypervisor, CPU time of everybody else, quota
throttling, major faults, CPU frequency and heat. Source: Linux Documentation/accounting/psi.rst,
proc_pid_stat(5), proc_stat(5).

The limit of CPU stalls is measured (two-core virtual machine, llama.cpp decode on both cores, 0.2 to 3 s
samples): undisturbed samples showed a share of 0.05 to 1 %, a busy loop on one core 49 to 61 %. The other
limits are judgement.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Final, Self

import psutil

from harness.core.record import Phase, Sample, Validity
from harness.hardware.cpus import cgroup_folders, cpu_quota_count, read_text
from harness.measure import cgroup
from harness.measure.gpu_sensors import GpuReading, gpu_readings
from harness.measure.sensors import EnergyMeter, cpu_frequency_hz, hottest_celsius, throttle_count

_TICKS_PER_S: Final[int] = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_MOST: Final = {
    "cpu_stall": 0.05,
    "other_load": 0.05,
    "steal": 0.03,
    "throttled": 0.01,
    "memory_stall": 0.02,
    "io_stall": 0.05,
}
"""Where belief ends, in shares of the sample's wall time: stalls, and held back by a CPU quota; and in shares
of all CPUs' time: taken by the hypervisor, and by other processes."""
_DOUBTS: Final = {
    "cpu_stall": "a task waited for a CPU {:.0%} of the time: stop other programs, or use fewer threads",
    "other_load": "other processes used {:.0%} of all CPU time: stop them",
    "steal": "the hypervisor took {:.0%} of the CPU time: use a machine with CPUs of its own",
    "throttled": "a CPU quota held the run back {:.0%} of the time: raise it or use fewer threads",
    "memory_stall": "a task waited for memory {:.0%} of the time: free memory or use a smaller model",
    "io_stall": "a task waited for the disk {:.0%} of the time: let other disk work end",
    "faults": "{:.0f} pages came from disk: warm the file up, or the model does not fit in memory",
    "slowed": "the CPU slowed to {:.0%} of its frequency: cool it, or plug it in",
    "throttle_count": "the CPU reported thermal throttling: let it cool down",
}
_FAULTS_A_SECOND: Final = 50
_SLOWED_RATIO: Final = 0.8
"""Frequency at the end over that at the start."""
_TICK_COUNT: Final = 4
"""CPU time is counted in ticks; a smaller excess proves nothing."""

Counters = Mapping[str, float]
"""All that is counted, read at one moment, by name and unit; without what the system does not tell."""


@dataclass
class ValidityProbe:
    """Reads the counters around one sample of the work of ``pid`` and its descendants.

    With ``disk_expected`` it reads from disk on purpose (a cold load): faults and stalls are no doubt, what
    others use of the machine stays one. CPU time of ``own_pids`` and of this process is not that of others.
    ``root`` may be that of a target, whose files were copied.
    """

    pid: int = field(default_factory=os.getpid)
    _: KW_ONLY
    disk_expected: bool = False
    own_pids: Collection[int] = ()
    root: Path = Path("/")
    clock: Callable[[], float] = time.monotonic

    def start(self) -> None:
        """Read the counters before the sample."""
        self._own = {self.pid, os.getpid(), *self.own_pids}
        self._gpus = gpu_readings(root=self.root)
        self._before = self.read()

    def finish(self) -> Validity:
        """Read them again after it, and judge."""
        quota = cpu_quota_count(root=self.root)
        validity = judge(self._before, self.read(), disk_expected=self.disk_expected, quota_count=quota)
        gpus = (*self._gpus, *gpu_readings(root=self.root))
        doubts = dict.fromkeys(doubt for gpu in gpus for doubt in self._doubts_of(gpu))  # each is said once
        hottest = hottest_celsius(root=self.root)
        return validity.replace(temperature_celsius_max=hottest).doubted(*doubts)

    def _doubts_of(self, gpu: GpuReading) -> list[str]:
        doubts = []
        if gpu.throttled:
            why = ", ".join(gpu.throttled)
            doubts.append(f"{gpu.name} ran slower than it could ({why}): cool it, or raise its limits")
        ours = sum(load for pid, load in gpu.loads if pid in self._own)
        others = sum(load for pid, load in gpu.loads if pid not in self._own)
        if ours and others > _MOST["other_load"]:  # a container may not see its own numbers
            doubts.append(f"other programs took {others:.0%} of {gpu.name}: end them")
        return doubts

    def read(self) -> Counters:
        """All counters now."""
        root = self.root
        told: dict[str, float | None] = {
            "clock_s": self.clock(),
            "throttled": cgroup.throttled_s(pid=self.pid, root=root),
            "throttle_count": throttle_count(root=root),
            "frequency_hz": cpu_frequency_hz(root=root),
        }
        for name in ("cpu", "memory", "io"):
            told[f"{name}_stall"] = _pressure_s(name, self.pid, root)
        if (root / "proc/stat").exists():
            told |= _machine_times(root) | _tree_times(self._own, self.pid, root)
        else:
            told |= self._told_by_psutil()
        return {name: value for name, value in told.items() if value is not None}

    def _told_by_psutil(self) -> dict[str, float]:
        """What /proc tells, where there is none."""
        times = psutil.cpu_times()
        told = {"all_s": sum(times), "busy_s": sum(times) - times.idle, "ours_s": 0.0, "faults": 0.0}
        for own in self._own:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(own)
                for member in (process, *process.children(recursive=True)):
                    told["ours_s"] += sum(member.cpu_times()[:2])
                if own == self.pid:
                    told["faults"] = getattr(process.memory_info(), "pageins", 0)  # macOS
        return told


def child_probe(pid: int | None = None, *, disk_expected: bool = False) -> ValidityProbe:
    """A probe in a measured child: what the process that waits for it uses is no disturbance."""
    return ValidityProbe(pid or os.getpid(), disk_expected=disk_expected, own_pids=(os.getppid(),))


@dataclass
class Watch:
    """A stretch of work, for a ``with`` block: how long it took, and what the machine did meanwhile.

    Without a ``probe`` nothing is doubted; ``meter`` counts its ``joules``. Both are read outside the clock.
    """

    probe: ValidityProbe | None
    meter: EnergyMeter | None = None
    now_s: Callable[[], float] = time.perf_counter
    validity: Validity = Validity()  # noqa: RUF009  it cannot change
    joules: float | None = None

    def __enter__(self) -> Self:
        if self.probe is not None:
            self.probe.start()
        if self.meter is not None:
            self.meter.start()
        self.started_unix_s, self.start_s = time.time(), self.now_s()
        return self

    def __exit__(self, *_failure: object) -> None:
        self.duration_s = self.now_s() - self.start_s
        if self.probe is not None:
            self.validity = self.probe.finish()
        if self.meter is not None:
            self.joules = self.meter.finish_joules()

    def doubt(self, *reasons: str) -> None:
        """More that speaks against it."""
        self.validity = self.validity.doubted(*reasons)

    def sample(self, phase: Phase, label: str, token_count: int, duration_s: float | None = None) -> Sample:
        """The stretch as a sample; of a given length where only a part of it counts."""
        return Sample(
            phase=phase,
            label=label,
            token_count=token_count,
            duration_s=self.duration_s if duration_s is None else duration_s,
            started_unix_s=self.started_unix_s,
            energy_joules=self.joules,
            validity=self.validity,
        )


def judge(
    before: Counters, after: Counters, *, disk_expected: bool = False, quota_count: float | None = None
) -> Validity:
    """Ratios between two readings, and the doubts that follow from them.

    stall ratio  = stalled seconds / wall seconds
    steal ratio  = stolen CPU seconds / CPU seconds of all CPUs
    other load   = (busy CPU seconds of all CPUs - those of our processes) / CPU seconds of all CPUs

    A task that waits for a CPU is a disturbance as far as somebody else had that CPU: x CPU seconds of others
    hold one of ours back for x seconds at most. Beyond that our own tasks wait for each other (a run with
    more threads than cores, a GPU that is made of CPU threads), and that is the speed which was asked for. A
    quota of less than one CPU holds every run back as far as it is short of one: so was the probe, and it is
    no disturbance.
    """
    grown = {name: max(after[name] - before[name], 0) for name in before.keys() & after.keys()}
    grown["other_load"] = max(grown["busy_s"] - grown["ours_s"], 0.0)
    wall_s = max(grown["clock_s"], 1e-9)
    # Ticks of a short sample may fill no CPU second at all: the wall time bounds the capacity from below.
    capacity_s = max(grown["all_s"], wall_s)
    amount = dict(grown)
    for name in _MOST.keys() & grown.keys():
        amount[name] = min(grown[name] / (capacity_s if name in {"steal", "other_load"} else wall_s), 1.0)
    doubted = {name for name, most in _MOST.items() if amount.get(name, 0.0) > most}
    for name in ("steal", "other_load"):
        if grown.get(name, 0.0) <= _TICK_COUNT / _TICKS_PER_S:
            doubted.discard(name)
    if (grown["other_load"] + 1 / _TICKS_PER_S) / wall_s <= _MOST["cpu_stall"]:
        doubted.discard("cpu_stall")
    if amount["throttled"] <= _MOST["throttled"] + max(1.1 - (quota_count or 2.0), 0.0):
        doubted.discard("throttled")
    if grown["faults"] > _FAULTS_A_SECOND * max(wall_s, 1.0):
        doubted.add("faults")
    if disk_expected:
        doubted -= {"cpu_stall", "memory_stall", "io_stall", "faults"}
    clocks = [reading["frequency_hz"] for reading in (before, after) if reading.get("frequency_hz")]
    if clocks:
        amount["slowed"] = clocks[-1] / clocks[0]
    if amount.get("slowed", 1.0) < _SLOWED_RATIO:
        doubted.add("slowed")
    if amount.get("throttle_count"):
        doubted.add("throttle_count")
    return Validity(
        cpu_stall_ratio=amount.get("cpu_stall"),
        memory_stall_ratio=amount.get("memory_stall"),
        io_stall_ratio=amount.get("io_stall"),
        steal_ratio=amount.get("steal"),
        other_load_ratio=amount["other_load"],
        major_fault_count=int(grown["faults"]),
        frequency_hz=sum(clocks) / len(clocks) if clocks else None,
        doubts=tuple(words.format(amount[name]) for name, words in _DOUBTS.items() if name in doubted),
    )


def _pressure_s(name: str, pid: int, root: Path) -> float | None:
    """Seconds in which some task stalled: of the process's own group where it keeps count, else of the machine."""
    folders = cgroup_folders("", pid=pid, root=root)
    files = [folder / f"{name}.pressure" for version, folder in folders if version == 2][:1]
    for file in (*files, root / "proc/pressure" / name):
        if found := re.search(r"^some .*\btotal=(\d+)\b", read_text(file), re.MULTILINE):
            return int(found[1]) / 1e6
    return None


def _machine_times(root: Path) -> dict[str, float]:
    """Busy, stolen and all CPU seconds of the machine since boot."""
    fields = read_text(root / "proc/stat").partition("\n")[0].split()[1:9]
    seconds = [int(value) / _TICKS_PER_S for value in fields]
    user, nice, system, idle, iowait, irq, softirq, steal = seconds
    busy_s = user + nice + system + irq + softirq
    return {"busy_s": busy_s, "steal": steal, "all_s": busy_s + steal + idle + iowait}


def _tree_times(own: set[int], pid: int, root: Path) -> dict[str, float]:
    """CPU seconds of our processes with all their descendants, and the major faults of ``pid``.

    Time of descendants that ended counts too, once their parent has waited for them (cutime, cstime).
    """
    processes = {}
    for folder in (root / "proc").glob("[0-9]*"):
        # The name in parentheses may hold spaces and parentheses: what follows the last one is regular.
        fields = read_text(folder / "stat").rpartition(")")[2].split()[1:15]
        if len(fields) == 14:
            processes[int(folder.name)] = [int(value) for value in fields]
    members = own & processes.keys()
    while more := {child for child, fields in processes.items() if fields[0] in members} - members:
        members |= more
    ours_s = sum(sum(processes[member][10:14]) for member in members) / _TICKS_PER_S
    return {"ours_s": ours_s, "faults": processes[pid][8] if pid in processes else 0}
