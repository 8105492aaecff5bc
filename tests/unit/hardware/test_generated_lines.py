"""Lines of parts, written from the rows of the tables in the ways that people and programs write them.

Each line is made of facts (how many of which card, its memory, a CPU, so much RAM, storage, a clock) and read back: the
facts must come out as they went in, and a number of storage, of a clock or of a temperature as no fact at all.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest

from harness.core.errors import HarnessError
from harness.core.paths import table_rows
from harness.core.units import GIB
from harness.hardware.devices import load_device

MOST_WRONG_RATIO = 0.01


class Facts(NamedTuple):
    """What a line tells: a card with its number, a CPU with its RAM."""

    card: str
    gb: float
    gb_s: float
    count: int
    cpu: str
    ram_gb: int


def unique(layer: str) -> list[dict[str, str]]:
    """Rows whose names are those of no other row, without makers' words."""
    rows = table_rows("devices", layer)
    owners: dict[str, set[str]] = {}
    for row in rows:
        for key in row["keys"].split(";"):
            owners.setdefault(key, set()).add(row["name"])
    return [
        row
        for row in rows
        if row["gb_s"] and all(len(owners[key]) == 1 for key in row["keys"].split(";") if len(key) > 3)
    ]


CARDS = [
    row
    for row in unique("cards")
    if row["form"] == "desktop" and float(row["gb"]) >= 4 and row["name"].startswith(("GeForce", "Radeon RX", "Arc"))
    if " GB" not in row["name"] and int(row["year"] or 0) >= 2016
]
CPUS = [row for row in unique("cpus") if row["kind"] == "desktop" and row["name"].startswith(("Core i", "Ryzen"))]

COUNTS = {1: [""], 2: ["2x ", "2 x ", "2× ", "dual ", "two ", "a pair of "], 4: ["4x ", "quad "], 3: ["3x ", "three "]}
STORAGE = ["", ", 1TB SSD", ", 2TB NVMe", " + 512GB nvme ssd", ", 4 TB HDD", ", 1TB storage"]


def spoken(facts: Facts, rng: random.Random) -> str:
    """As a forum writes it."""
    count = rng.choice(COUNTS[facts.count])
    name = facts.card if rng.random() < 0.5 else facts.card.removeprefix("GeForce ").removeprefix("Radeon ")
    memory = rng.choice([f" {facts.gb:g}GB", ""])
    ram = rng.choice(["{}GB RAM", "{} gigs of ram", "{}GB DDR4-3200", "{} GB ddr4 3200 MT/s", "{}GB 3600MHz DDR4"])
    text = f"{count}{name}{memory}, {facts.cpu}, {ram.format(facts.ram_gb)}{rng.choice(STORAGE)}"
    return text if rng.random() < 0.5 else text.lower()


def fastfetch(facts: Facts, rng: random.Random) -> str:
    """As fastfetch prints it: the card and the processor's own graphics, clocks, used memory, disks."""
    gpus = [f"GPU {i + 1}: {facts.card} [Discrete]" for i in range(facts.count)]
    gpus.append(f"GPU {facts.count + 1}: AMD Radeon Graphics [Integrated]")
    used = rng.uniform(1, 7)
    return "\n".join(
        [
            "OS: Ubuntu 24.04.1 LTS x86_64",
            f"Kernel: Linux 6.8.0-{rng.randint(20, 90)}-generic",
            f"CPU: {facts.cpu} ({rng.choice([8, 16, 32])}) @ {rng.uniform(3, 5.7):.2f} GHz",
            *gpus,
            f"Memory: {used:.2f} GiB / {facts.ram_gb}.00 GiB ({used / facts.ram_gb:.0%})",
            f"Disk (/): {rng.randint(50, 400)}.12 GiB / 915.32 GiB (27%) - ext4",
        ]
    )


def windows(facts: Facts, rng: random.Random) -> str:
    """As the page About of Windows' settings says it."""
    several = f"{facts.count} x " if facts.count > 1 else ""
    return "\n".join(
        [
            f"Device name DESKTOP-{rng.randint(1000, 9999)}XY",
            f"Processor {facts.cpu} {rng.uniform(2, 4):.2f} GHz",
            f"Installed RAM {facts.ram_gb}.0 GB ({facts.ram_gb - 0.2:.1f} GB usable)",
            f"Graphics card {several}{facts.card} ({facts.gb:g} GB)",
            "Storage 932 GB SSD Samsung 980",
            "System type 64-bit operating system, x64-based processor",
        ]
    )


def keyed(facts: Facts, rng: random.Random) -> str:
    """As people list the parts of a computer."""
    count = rng.choice(COUNTS[facts.count])
    return f"CPU: {facts.cpu}\nGPU: {count}{facts.card}\nRAM: {facts.ram_gb}GB DDR4 3200MHz\nStorage: 2TB NVMe"


WAYS: tuple[Callable[[Facts, random.Random], str], ...] = (spoken, spoken, fastfetch, windows, keyed)


def wrong_of(facts: Facts, line: str) -> str:
    """What of the facts came out otherwise; empty where all are as they went in."""
    try:
        device = load_device(line)
    except HarnessError as error:
        return f"refused: {error}"
    pool = device.pool(device.engine().pool)
    found = {
        "card": pool.name == "vram" and abs(pool.bandwidth_bytes_per_s.value / 1e9 / facts.gb_s - 1) < 0.02,
        "gb": abs(pool.total_bytes.value / GIB - facts.gb) < 0.5,
        "count": device.card_count == facts.count,
        "ram": abs(device.pool("ram").total_bytes.value / GIB - facts.ram_gb) < 0.5,
    }
    return ", ".join(name for name, right in found.items() if not right)


def lines_of(seed: int, number: int) -> list[tuple[Facts, str]]:
    """So many facts with a line each."""
    rng = random.Random(seed)
    made = []
    for _ in range(number):
        card, cpu = rng.choice(CARDS), rng.choice(CPUS)
        ram_gb = rng.choice([16, 32, 64, 96, 128])
        facts = Facts(
            card["name"], float(card["gb"]), float(card["gb_s"]), rng.choice([1, 1, 1, 2, 3, 4]), cpu["name"], ram_gb
        )
        made.append((facts, rng.choice(WAYS)(facts, rng)))
    return made


@pytest.mark.parametrize(("seed", "number"), [(56, 300), pytest.param(57, 5000, marks=pytest.mark.slow)])
def test_facts_come_out_of_a_line_as_they_went_in(seed: int, number: int) -> None:
    wrong = [(line, said) for facts, line in lines_of(seed, number) if (said := wrong_of(facts, line))]
    assert len(wrong) <= MOST_WRONG_RATIO * number, wrong[:10]
