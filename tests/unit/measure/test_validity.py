"""Validity of a sample, on a fake /proc whose counters the tests move."""

from pathlib import Path

import pytest

from harness.measure.validity import ValidityProbe

ME, CHILD, OTHER = 4242, 4243, 999


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def stat_line(pid: int, parent: int, ticks: int, faults: int = 0, waited: int = 0) -> str:
    # pid (name) state ppid pgrp session tty tpgid flags minflt cminflt majflt cmajflt utime stime cutime cstime
    return f"{pid} (odd) name) R {parent} 1 1 0 -1 0 0 0 {faults} 0 {ticks} 0 {waited} 0 20 0 1 0 0\n"


class Machine:
    """A fake tree of a machine with two CPUs at 100 ticks a second."""

    def __init__(self, root: Path) -> None:
        self.root, self.now_s = root, 0.0
        self.user = self.steal = self.idle = 0
        self.ours = self.child = self.faults = 0
        self.stall_us = {"cpu": 0, "memory": 0, "io": 0}
        self.mhz = 2000.0
        self.flush()

    def flush(self) -> None:
        write(self.root / "proc/stat", f"cpu  {self.user} 0 0 {self.idle} 0 0 0 {self.steal} 0 0\n")
        write(self.root / f"proc/{ME}/stat", stat_line(ME, 1, self.ours, self.faults))
        write(self.root / f"proc/{CHILD}/stat", stat_line(CHILD, ME, self.child))
        write(self.root / f"proc/{OTHER}/stat", stat_line(OTHER, 1, 77))
        write(self.root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", f"{round(self.mhz * 1000)}\n")
        for name, total in self.stall_us.items():
            write(
                self.root / "proc/pressure" / name,
                f"some avg10=0.00 avg60=0.00 avg300=0.00 total={total}\nfull avg10=0.00 total=99\n",
            )

    def probe(self, **options: object) -> ValidityProbe:
        return ValidityProbe(ME, root=self.root, clock=lambda: self.now_s, **options)  # type: ignore[arg-type]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_CLK_TCK": 100, "SC_PAGE_SIZE": 4096}[name])
    return Machine(tmp_path)


def run_one_second(machine: Machine, *, ours: int = 100, child: int = 98, other: int = 0, steal: int = 0) -> None:
    """One second of two CPUs: 200 ticks in all."""
    machine.now_s += 1.0
    machine.ours += ours
    machine.child += child
    machine.steal += steal
    machine.user += ours + child + other
    machine.idle += 200 - ours - child - other - steal
    machine.flush()


def test_a_quiet_second_is_believed(machine: Machine) -> None:
    probe = machine.probe()
    probe.start()
    machine.stall_us["cpu"] += 8_000  # 0.8 %, as measured on a quiet machine
    run_one_second(machine)
    validity = probe.finish()
    assert validity.doubts == ()
    assert validity.cpu_stall_ratio == pytest.approx(0.008)
    assert validity.other_load_ratio == pytest.approx(0.0)
    assert validity.steal_ratio == 0.0
    assert validity.frequency_hz == 2e9
    assert validity.temperature_celsius_max is None


def test_a_busy_loop_on_one_core_is_doubted_twice(machine: Machine) -> None:
    probe = machine.probe()
    probe.start()
    machine.stall_us["cpu"] += 520_000
    run_one_second(machine, ours=66, child=66, other=68)
    validity = probe.finish()
    assert validity.cpu_stall_ratio == pytest.approx(0.52)
    assert validity.other_load_ratio == pytest.approx(0.34)  # 68 of 200 ticks
    assert [d.split(":")[0] for d in validity.doubts] == [
        "a task waited for a CPU 52% of the time",
        "other processes used 34% of all CPU time",
    ]
    assert all(": " in d for d in validity.doubts)  # each says what to do


def test_own_tasks_that_wait_for_each_other_are_no_disturbance(machine: Machine) -> None:
    probe = machine.probe()
    probe.start()
    machine.stall_us["cpu"] += 600_000  # four threads on two CPUs, and nobody else there
    run_one_second(machine, ours=100, child=100)
    validity = probe.finish()
    assert validity.cpu_stall_ratio == pytest.approx(0.6)
    assert validity.doubts == ()


def test_time_of_descendants_is_ours(machine: Machine) -> None:
    probe = machine.probe()
    probe.start()
    run_one_second(machine, ours=0, child=200)
    assert probe.finish().other_load_ratio == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda m: m.stall_us.__setitem__("memory", 100_000), "waited for memory 10%"),
        (lambda m: m.stall_us.__setitem__("io", 200_000), "waited for the disk 20%"),
        (lambda m: setattr(m, "faults", 51), "51 pages came from disk"),
        (lambda m: setattr(m, "mhz", 1000.0), "slowed to 50%"),
    ],
)
def test_each_disturbance_has_its_doubt(machine: Machine, change: object, word: str) -> None:
    probe = machine.probe()
    probe.start()
    change(machine)  # type: ignore[operator]
    run_one_second(machine)
    (doubt,) = probe.finish().doubts
    assert word in doubt


def test_steal_is_a_doubt(machine: Machine) -> None:
    probe = machine.probe()
    probe.start()
    run_one_second(machine, ours=90, child=90, steal=20)
    validity = probe.finish()
    assert validity.steal_ratio == pytest.approx(0.1)
    assert "hypervisor took 10%" in validity.doubts[0]


def test_a_cold_load_may_read_the_disk(machine: Machine) -> None:
    probe = machine.probe(disk_expected=True)
    probe.start()
    machine.stall_us["io"] += 900_000
    machine.faults += 5000
    run_one_second(machine)
    validity = probe.finish()
    assert validity.doubts == ()
    assert validity.major_fault_count == 5000


def test_three_ticks_of_a_short_sample_prove_nothing(machine: Machine) -> None:
    probe = machine.probe()
    probe.start()
    machine.now_s += 0.1
    machine.user += 20
    machine.ours += 17  # 3 of 20 ticks are not ours: 15 %, but ticks are only 10 ms fine
    machine.flush()
    assert probe.finish().doubts == ()


def test_own_group_pressure_wins_over_the_machines(machine: Machine) -> None:
    write(machine.root / f"proc/{ME}/cgroup", "0::/a/b\n")
    write(machine.root / f"proc/{ME}/mountinfo", "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    own = machine.root / "sys/fs/cgroup/a/b/cpu.pressure"
    write(own, "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    probe = machine.probe()
    probe.start()
    machine.stall_us["cpu"] += 500_000  # somebody else's tasks wait
    write(own, "some avg10=0.00 avg60=0.00 avg300=0.00 total=10000\n")
    run_one_second(machine)
    assert probe.finish().cpu_stall_ratio == pytest.approx(0.01)


def test_quota_throttling_is_a_doubt(machine: Machine) -> None:
    write(machine.root / f"proc/{ME}/cgroup", "0::/a\n")
    write(machine.root / f"proc/{ME}/mountinfo", "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    stat = machine.root / "sys/fs/cgroup/a/cpu.stat"
    write(stat, "usage_usec 5\nthrottled_usec 1000000\n")
    probe = machine.probe()
    probe.start()
    write(stat, "usage_usec 5\nthrottled_usec 1250000\n")
    run_one_second(machine)
    (doubt,) = probe.finish().doubts
    assert "quota held the run back 25%" in doubt


@pytest.mark.parametrize(("quota", "doubts"), [("50000 100000", 0), ("75000 100000", 1), ("200000 100000", 1)])
def test_a_quota_of_less_than_a_cpu_is_the_machine_that_was_probed(machine: Machine, quota: str, doubts: int) -> None:
    """Half of the time held back: as half a CPU does, and three quarters or two do not."""
    for pid in (ME, "self"):
        write(machine.root / f"proc/{pid}/cgroup", "0::/a\n")
        write(machine.root / f"proc/{pid}/mountinfo", "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    write(machine.root / "sys/fs/cgroup/a/cpu.max", quota)
    stat = machine.root / "sys/fs/cgroup/a/cpu.stat"
    write(stat, "usage_usec 5\nthrottled_usec 0\n")
    probe = machine.probe()
    probe.start()
    write(stat, "usage_usec 5\nthrottled_usec 500000\n")
    run_one_second(machine)
    assert len(probe.finish().doubts) == doubts


def test_missing_pressure_is_none_not_zero(machine: Machine) -> None:
    for name in machine.stall_us:
        (machine.root / "proc/pressure" / name).unlink()
    probe = machine.probe()
    probe.start()
    machine.now_s += 1
    machine.user += 100
    machine.ours += 100
    write(machine.root / "proc/stat", f"cpu  {machine.user} 0 0 {machine.idle} 0 0 0 0 0 0\n")
    write(machine.root / f"proc/{ME}/stat", stat_line(ME, 1, machine.ours))
    validity = probe.finish()
    assert validity.cpu_stall_ratio is None
    assert validity.memory_stall_ratio is None


def test_this_machine_can_be_read() -> None:
    probe = ValidityProbe()
    probe.start()
    sum(range(200_000))
    validity = probe.finish()
    assert validity.other_load_ratio is not None
    assert 0 <= validity.other_load_ratio <= 1


def test_without_proc_psutil_tells(tmp_path: Path) -> None:
    probe = ValidityProbe(root=tmp_path)
    probe.start()
    validity = probe.finish()
    assert validity.cpu_stall_ratio is None
    assert validity.other_load_ratio is not None
