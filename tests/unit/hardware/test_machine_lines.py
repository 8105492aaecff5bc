"""Lines that describe a machine: what a stranger may write, several cards, names that mean several parts."""

import time
from pathlib import Path

import msgspec
import pytest

from harness.core.device import Device
from harness.core.errors import InputError, UnknownNameError
from harness.core.tables import shipped_table
from harness.core.units import GB, GIB
from harness.hardware.devices import load_device
from harness.speed.coefficients import TaughtSpeed
from harness.verbs.learn import devices_of

SPEED = TaughtSpeed(model="llama-3.2-1b", quant="Q4_K_M", test="tg128", tokens_per_s=10.0, api="cuda")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))


@pytest.mark.parametrize("words", ["asus rog strix g16 g614jv (2023)", "acer nitro 5", "nitro+ oc", "book2 pro"])
def test_lines_of_products_may_stand_beside_a_part(words: str) -> None:
    assert load_device(f"{words} rtx 4070").chip.startswith("GeForce RTX 4070")


def test_a_line_of_many_words_is_refused_at_once() -> None:
    begun = time.process_time()
    with pytest.raises(UnknownNameError):
        load_device("book2 " * 200 + "zzzz")
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("rtx 3090 x 0", 0),
        ("0x rtx 3090", 0),
        ("0x rtx 3090 + rtx 4090", 0),
        ("17x rtx 3090", 17),
        ("10x rtx 3090 + 7x rtx 4090", 17),
        ("rtx 3090 x 1000000000", 10**9),
    ],
)
def test_a_number_of_cards_that_no_machine_has(line: str, count: int) -> None:
    with pytest.raises(InputError, match=f"found {count} cards, expected 1 to 16$"):
        load_device(line)
    assert devices_of([(line, SPEED)]) == ({}, {line: 1})


def test_no_cpu_is_none() -> None:
    with pytest.raises(InputError, match="found 0 of 'epyc 7532'"):
        load_device("0x epyc 7532")


@pytest.mark.parametrize("shares", [(0.0, 1.0), (-1.0, 1.0), (1.0,) * 17])
def test_shares_of_cards_are_of_something(shares: tuple[float, ...]) -> None:
    profile = load_device("2x rtx 3090")
    assert profile.card_shares == (1.0, 1.0)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(msgspec.to_builtins(profile) | {"card_shares": shares}, Device)


@pytest.mark.parametrize(
    ("line", "apis"),
    [
        ("rx 7900 xtx + rtx 3090", ("vulkan",)),
        ("rtx 3090 + rx 7900 xtx", ("vulkan",)),
        ("arc a770 + rx 6800", ("vulkan",)),
        ("rtx 3090 + rtx 3060 12gb", ("cuda", "vulkan")),
        ("2x rx 7900 xtx", ("vulkan", "rocm")),
    ],
)
def test_unlike_cards_are_driven_by_what_drives_all(line: str, apis: tuple[str, ...]) -> None:
    assert load_device(line).engine().apis == apis


def test_whatever_drives_a_card_there_is_vulkan_for_all() -> None:
    drivers = shipped_table("data/machines.toml")["apis"]
    assert all("vulkan" in apis for maker, apis in drivers.items() if maker != "^Apple")


@pytest.mark.parametrize("number", [3430, 3630, 3660, 5820, 5860, 7820, 7865, 7920, 7960])
def test_a_tower_has_the_desktop_card(number: int) -> None:
    device = load_device(f"dell precision {number} rtx 3070")
    assert device.chip == "GeForce RTX 3070"
    assert not any("laptop" in reading for reading in device.readings)


@pytest.mark.parametrize("number", [3480, 3571, 5480, 5570, 5690, 7560, 7680, 7780])
def test_a_laptop_has_the_laptops_card_and_says_so(number: int) -> None:
    device = load_device(f"dell precision {number} rtx 3070")
    assert "Laptop" in device.chip
    assert "in a laptop, it is the GeForce RTX 3070 Laptop (8 GB, 448 GB/s)" in device.readings


@pytest.mark.parametrize(
    ("line", "gib", "gb_s", "taken"),
    [
        ("geekom a7", 32, 89.6, "ryzen 9 7940hs, ddr5-5600"),
        ("geekom a7 64GB", 64, 89.6, "ryzen 9 7940hs, ddr5-5600, 64gb"),
        ("Geekom A7 (64GB)", 64, 89.6, "ryzen 9 7940hs, ddr5-5600, 64gb"),
        ("geekom a7, 64gb ram", 64, 89.6, "ryzen 9 7940hs, ddr5-5600, 64gb ram"),
        ("geekom a7 + 64gb ddr5-4800", 64, 76.8, "ryzen 9 7940hs, ddr5-5600, 64gb ddr5-4800"),
        ("hp elitebook 845 g10 16gb", 16, 89.6, "ryzen 7 7840u, ddr5-5600, 16gb"),
        ("lattepanda sigma 32gb", 32, 102.4, "core i5-1340p, 16gb lpddr5-6400, 32gb"),
        ("rock 4c+ 4gb", 4, 12.8, "rk3399, 4gb"),
    ],
)
def test_a_name_that_means_parts_may_have_memory_beside_it(line: str, gib: int, gb_s: float, taken: str) -> None:
    device = load_device(line)
    ram = device.pool("ram")
    assert ram.total_bytes.value == gib * GIB
    assert ram.bandwidth_bytes_per_s.value / GB == pytest.approx(gb_s, abs=0.1)
    assert f"{line} is taken for {taken}" in device.readings


@pytest.mark.parametrize("line", ["RTX PRO 6000 Blackwell", "rtx pro 6000 blackwell", "rtx-pro-6000-blackwell"])
def test_capitals_and_dashes_are_no_other_name(line: str) -> None:
    assert not any("is taken for" in reading for reading in load_device(line).readings)
    assert "rtx pro 6000 is taken for rtx pro 6000 blackwell" in load_device("rtx pro 6000").readings


@pytest.mark.parametrize(
    ("line", "count", "chip"),
    [  # instance types of AWS and Google Cloud
        ("g5.xlarge", 1, "A10G"),
        ("g5.12xlarge", 4, "A10G"),
        ("p4d.24xlarge", 8, "A100 SXM4 40 GB"),
        ("p4de.24xlarge", 8, "A100 SXM4 80 GB"),
        ("p5.48xlarge", 8, "H100 SXM5 80 GB"),
        ("a3-highgpu-8g", 8, "H100 SXM5 80 GB"),
        ("g2-standard-4", 1, "L4"),
    ],
)
def test_machines_of_clouds_have_all_their_cards(line: str, count: int, chip: str) -> None:
    device = load_device(line)
    assert (device.card_count, device.chip) == (count, chip)


@pytest.mark.parametrize(
    ("line", "gib", "gb_s"),
    [
        ("ryzen ai max+ 395 64gb/256gb/s", 64, 256),
        ("ryzen ai max+ 395 64gb / 256 gb/s", 64, 256),
        ("xiaomi 14 12gb/256gb", 12, 76.8),
        ("xiaomi 14 12/512", 12, 76.8),
    ],
)
def test_memory_and_storage_of_a_phone_are_no_bandwidth(line: str, gib: int, gb_s: float) -> None:
    ram = load_device(line).pool("ram")
    assert ram.total_bytes.value == gib * GIB
    assert ram.bandwidth_bytes_per_s.value / GB == pytest.approx(gb_s, rel=0.01)


def test_storage_that_reads_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="found storage of 0 GB/s"):
        load_device("9950x 64gb nvme 0gb/s")


def test_a_processor_named_twice_counts_once_and_says_so() -> None:
    (said,) = load_device("epyc 7763 + epyc 7763 with 512GB").readings
    assert said.startswith("one of 2 sockets counts")
