"""Machines that others recorded: cores, kinds, threads, caches, instruction sets, memory and fingerprints.

The trees lie beside the checkout (``../shared/machines``); what each machine is comes from the source's own output.
"""

import json
import re
import tarfile
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

from harness.hardware.cpus import numbers, portable_cores, read_text
from harness.measure import cgroup, machine, sensors

FOLDER = Path(__file__).parents[4] / "shared" / "machines"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/tree.tar.xz"))
pytestmark = pytest.mark.skipif(not NAMES, reason="no recorded machines beside the checkout")

READ = re.compile(
    "proc/|cpu/(online|present)$|cpulist$|(capacity|max_freq|midr_el1|product_name)$|node[0-9]+/meminfo$"
    "|(thread_siblings_list|core_cpus_list|cpu_core/cpus|cpu_atom/cpus|cpu_lowpower/cpus|cgroup.type)$"
    "|cache/index[0-9]+/(level|size|type|shared_cpu_list)$"
)
"""Files that are read here."""
UNTOLD_CACHES = ("phone-", "cadvisor-rpi4", "ul-armv7", "ul-ppc-qemu", "ul-rv64-milkvpioneer", "ul-s390")
"""Their kernels tell no cache, or that of some CPUs alone."""
FASTEST_KINDS = {  # threads of the cores worth it: not the efficiency cores where they are slow and few beside the fast
    "cpuid-12th-gen-intel-core-i7-12700h": 6,
    "cpuid-intel-core-i9-14900k": 8,
    "cpuid-intel-core-ultra-7-155h": 14,  # six fast, eight efficient, and without the two that have no last-level cache
    "cpuid-intel-core-ultra-9-288v": 4,
    "cpuid-intel-pentium-gold-8505": 5,  # one fast core alone gives less than the four others
    "cpuid-intel-core-i3-n305": 8,
    "hwloc-nvidia-dgx-gb10": 20,  # 0.72 of the speed of the fastest
    "phone-galaxy-s8-us": 4,
    "phone-galaxy-s9-global": 4,
    "phone-meizu-pro-7-plus": 6,
    "phone-pixel": 4,
}
SAME_CHIPS = [  # two records of one chip, with nothing in either that tells one machine from the other
    {"cpuid-AMD-1Ah-Zen5StrixPoint-RyzenAI9HX370", "cpuid-amd-ryzen-ai-9-hx-370-with-radeon-890m"},
    {"cpuid-11th-gen-intel-core-i7-1165g7", "ul-x86_64-64cpu-linux6.2"},
    {"cpuid-AMD-17h-Zen-2xEpyc-7451", "ul-x86_64-epyc_7451"},
    {"phone-pixel", "phone-pixel-xl"},
]


@cache
def truth(name: str) -> dict:
    return json.loads((FOLDER / name / "truth.json").read_text())


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("machines")
    for name in NAMES:
        with tarfile.open(FOLDER / name / "tree.tar.xz") as tree:
            tree.extractall(folder / name, [m for m in tree if READ.search(m.name)], filter="data")
    return folder


def allowed(root: Path, known: dict) -> frozenset[int]:
    told = numbers(read_text(root / "sys/devices/system/cpu/online"))
    text = read_text(root / "proc/cpuinfo")
    found = told or frozenset(map(int, re.findall(r"^processor\s*:?\s*(\d+)", text, re.MULTILINE))) or frozenset({0})
    pus = frozenset(known.get("pus") or ())
    return pus if pus and pus < found else found


@pytest.fixture(scope="module")
def cpus(trees: Path) -> dict[str, machine.Cpu]:
    return {name: machine.cpu(root=trees / name, affinity=allowed(trees / name, truth(name))) for name in NAMES}


def test_cores(cpus: dict[str, machine.Cpu]) -> None:
    counts = {name: (cpu.physical_core_count, truth(name)["cores"]) for name, cpu in cpus.items()}
    wrong = {name: pair for name, pair in counts.items() if pair[1] not in {None, 0, pair[0]}}
    assert wrong == {}


def test_caches(cpus: dict[str, machine.Cpu]) -> None:
    told = {n: c for n, c in cpus.items() if truth(n).get("llc_total") and not n.startswith(UNTOLD_CACHES)}
    wrong = {n for n, c in told.items() if abs(c.last_cache_bytes / truth(n)["llc_total"] - 1) > 0.02}
    assert len(told) > 60 and not wrong


def test_kinds_of_intel_s_hybrids(cpus: dict[str, machine.Cpu]) -> None:
    for name, cpu in cpus.items():
        kinds = truth(name)["kinds"] or {}
        if name.startswith("cpuid-intel") and "performance" in kinds:
            assert [len(kind.cpus) for kind in cpu.cores.kinds] == list(kinds.values()), name


@pytest.mark.parametrize(("name", "threads"), FASTEST_KINDS.items())
def test_threads_of_unlike_cores(cpus: dict[str, machine.Cpu], name: str, threads: int) -> None:
    assert cpus[name].thread_count == threads


def test_threads_are_as_many_as_cores_where_all_are_alike(cpus: dict[str, machine.Cpu]) -> None:
    for name, cpu in cpus.items():
        if len(cpu.cores.kinds) == 1 and cpu.cores.quota_count is None:
            assert cpu.thread_count == cpu.physical_core_count, name


def test_what_has_no_vector_sets_that_matter_says_so(cpus: dict[str, machine.Cpu]) -> None:
    assert cpus["cpuid-intel-core-i7-2600-cpu"].isa == ()  # AVX alone
    assert cpus["ul-rv64-visionfive2"].isa == ()
    assert cpus["cpuid-12th-gen-intel-core-i7-12700h"].isa == ("avx2", "avx_vnni")
    assert cpus["phone-galaxy-s8-us"].isa == ("neon",)
    assert cpus["hwloc-nvidia-dgx-gb10"].isa == ("neon", "fp16", "dotprod", "i8mm", "sve")


def test_a_fingerprint_is_of_one_machine(trees: Path, cpus: dict[str, machine.Cpu]) -> None:
    found = defaultdict(set)
    for name, cpu in cpus.items():
        ram = machine.memory(root=trees / name) if (trees / name / "proc/meminfo").exists() else machine.Ram(0, 0, 0)
        # After a restart the kernel takes a little more for itself, and clocks and free memory are others.
        later = ram._replace(total_bytes=int(ram.total_bytes * 0.998), limit_bytes=int(ram.limit_bytes * 0.998))
        prints = [machine.fingerprint_of("Linux", "6", cpu, one).fingerprint for one in (ram, later)]
        assert prints[0] == prints[1], name
        found[prints[0]].add(name)
    assert [names for names in found.values() if len(names) > 1 and names not in SAME_CHIPS] == []


@pytest.mark.parametrize(
    ("name", "cores", "threads", "cache"),
    [("apple-m1", 8, 4, 16), ("apple-m1-pro", 10, 8, 28), ("apple-m3-ultra", 28, 20, 72), ("apple-m5-max", 18, 18, 32)],
)
def test_macs(name: str, cores: int, threads: int, cache: int) -> None:
    told = dict(line.split(": ", 1) for line in (FOLDER / name / "sysctl.txt").read_text().splitlines() if ": " in line)
    found = portable_cores(told)
    assert (found.core_count, found.thread_count) == (cores, threads)
    cpu = machine.portable_cpu(told)
    assert cpu.last_cache_bytes == cache << 20
    assert cpu.isa is not None and "neon" in cpu.isa


def test_the_checker_of_recorded_machines_finds_the_readers_that_it_names() -> None:
    checker = FOLDER / "check.py"
    for module in (cgroup, machine, sensors):
        short = module.__name__.rpartition(".")[2]
        for name in sorted(set(re.findall(rf"\b{short}\.(\w+)\(", checker.read_text()))):
            assert callable(getattr(module, name)), f"{short}.{name}"
