"""Device files: vendor units in, SI units out, and errors that say what to change."""

import csv
import json
import math
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from harness.cli.devices import devices as COMMAND
from harness.core.device import Calibration, ComputeEngine, Device, Pool, Power, Sourced, Storage, TypeCost
from harness.core.errors import BadDataError, InputError, UnknownNameError
from harness.core.units import GB
from harness.hardware.built import mac_working_set, usable_gb
from harness.hardware.devices import dump_device, load_device

GOOD = """
title = "Board"
kind = "board"
vendor = "Nobody"
chip = "X1"
os = "linux"
year = 2024

[ram]
technology = "LPDDR5"
total_gib = { value = 8, source = "invented", confidence = "assumed" }
usable_gib = { value = 7.5, source = "invented", confidence = "assumed" }
transfer_mt_s = { value = 6400, source = "invented", confidence = "assumed" }
bus_width_bits = { value = 64, source = "invented", confidence = "assumed" }
bandwidth_gb_s = { value = 51.2, source = "invented", confidence = "assumed" }

[[engine]]
kind = "cpu"
name = "4 cores"
pool = "ram"
apis = ["cpu"]
peak_tflops.int8 = { value = 0.3, source = "invented", confidence = "assumed" }

[storage]
technology = "NVMe"
sequential_read_gb_s = { value = 3.5, source = "invented", confidence = "assumed" }

[power]
battery_wh = { value = 10.5, source = "invented", confidence = "assumed" }
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))


def write(folder: Path, text: str, name: str = "board.toml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_vendor_units_become_si_units(tmp_path: Path) -> None:
    """GiB by 2**30, GB/s by 10**9, Wh by 3600, tera by 10**12."""
    device = load_device(write(tmp_path, GOOD))

    assert device.name == "board"
    ram = device.pool("ram")
    assert ram.total_bytes.value == 8_589_934_592  # 8 x 1073741824
    assert ram.usable_bytes.value == 8_053_063_680  # 7.5 x 1073741824
    assert ram.bandwidth_bytes_per_s.value == 51_200_000_000
    assert device.engine_for("cpu").peak_flops_per_s["int8"].value == 300_000_000_000
    assert device.storage.sequential_read_bytes_per_s.value == 3_500_000_000
    assert device.power.battery_joules is not None
    assert device.power.battery_joules.value == 37_800  # 10.5 x 3600


RAM_TOTAL = 'total_gib = { value = 8, source = "invented", confidence = "assumed" }'


@pytest.mark.parametrize(
    ("old", "new", "field", "words"),
    [
        pytest.param('vendor = "Nobody"', 'vender = "Nobody"', "vender", ["unknown key", "vendor"], id="unknown key"),
        pytest.param(
            "total_gib", "total_gb", "ram.total_gb", ["unknown key", "total_gib"], id="unknown key in a table"
        ),
        pytest.param('chip = "X1"\n', "", "chip", ["nothing"], id="missing key"),
        pytest.param(RAM_TOTAL, "", "ram.total_gib", ["nothing"], id="missing figure"),
        pytest.param("[ram]", "[rom]", "rom", ["unknown key", "ram"], id="misspelt table"),
        pytest.param("year = 2024", 'year = "2024"', "year", ["'2024'", "a whole number"], id="text for a year"),
        pytest.param("year = 2024", "year = 20244", "year", ["20244"], id="no year"),
        pytest.param("value = 8,", 'value = "8",', "ram.total_gib.value", ["'8'", "number"], id="text for a number"),
        pytest.param(
            "value = 8,", "value = true,", "ram.total_gib.value", ["True", "number"], id="boolean for a number"
        ),
        pytest.param("value = 8,", "value = -8,", "ram.total_gib.value", ["-8", "above 0"], id="negative"),
        pytest.param("value = 8,", "value = 0,", "ram.total_gib.value", ["0", "above 0"], id="zero"),
        pytest.param("value = 8,", "value = nan,", "ram.total_gib.value", ["nan", "above 0"], id="nan"),
        pytest.param("value = 8,", "value = inf,", "ram.total_gib.value", ["inf", "1e+18"], id="infinite"),
        pytest.param("value = 8,", "value = 1e19,", "ram.total_gib.value", ["1e+19", "1e+18"], id="absurd"),
        pytest.param("value = 7.5,", "value = 8.5,", "ram.usable_gib.value", ["8.5", "total_gib"], id="more than all"),
        pytest.param(
            'confidence = "assumed" }\nusable',
            'confidence = "sure" }\nusable',
            "ram.total_gib.confidence",
            ["'sure'"],
            id="unknown confidence",
        ),
        pytest.param('source = "invented", ', "", "ram.total_gib.source", ["nothing"], id="figure without source"),
        pytest.param('pool = "ram"', 'pool = "vram"', "engine[0].pool", ["vram"], id="engine in a pool there is not"),
        pytest.param(
            'apis = ["cpu"]', 'apis = ["metall"]', "engine[0].apis[0]", ["'metall'", "metal"], id="no such api"
        ),
        pytest.param('apis = ["cpu"]', "apis = []", "engine[0].apis", ["empty"], id="no api"),
        pytest.param('apis = ["cpu"]', 'apis = "cpu"', "engine[0].apis", ["'cpu'", "array"], id="text for a list"),
        pytest.param('kind = "cpu"', 'kind = "tpu"', "engine[0].kind", ["'tpu'"], id="unknown engine"),
        pytest.param("[[engine]]", "[engine]", "engine", ["a table", "array"], id="table for an array"),
        pytest.param("year = 2024", "year = ", "", ["TOML"], id="no TOML"),
    ],
)
def test_errors_name_file_field_found_and_expected(
    tmp_path: Path, old: str, new: str, field: str, words: list[str]
) -> None:
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))

    with pytest.raises(BadDataError) as caught:
        load_device(path)

    assert caught.value.field == field
    for word in [path, *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value).replace(path, "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"\x7fELF\xff\xfe\x00", "UTF-8", id="binary"),
        pytest.param(b"# " + b"x" * 2**20, "1 MiB", id="over the limit"),
        pytest.param(b"", "this key", id="empty"),
        pytest.param(b"a = " + b"[" * 100_000, "TOML", id="deeply nested"),
        pytest.param(b"year = " + b"9" * 10_000, "TOML", id="number too long for Python"),
    ],
)
def test_files_that_are_no_device(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "board.toml"
    path.write_bytes(content)

    with pytest.raises(BadDataError, match=words):
        load_device(str(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="no such file"):
        load_device(str(tmp_path / "none.toml"))
    with pytest.raises(BadDataError, match="a folder"):
        load_device(str(tmp_path))


def test_a_name_that_is_not_there_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'iphone-16-pro'"):
        load_device("iphone-16-por")


def test_own_devices_are_found_and_win(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "devices"
    folder.mkdir(parents=True)
    write(folder, GOOD, "my-board.toml")
    write(folder, GOOD, "iphone-16-pro.toml")

    assert load_device("my-board").title == "Board"
    assert load_device("iphone-16-pro").title == "Board"


def test_iphone_16_pro_has_the_bandwidth_of_its_own_chip() -> None:
    """7500 MT/s x 64 bit / 8 = 60 GB/s; the 100 GB/s often quoted is an M2's. One app gets 3 of 8 GiB."""
    ram = load_device("iphone-16-pro").pool("ram")

    assert ram.bandwidth_bytes_per_s.value == 60e9
    assert ram.usable_bytes.value == 3 * 2**30
    assert ram.entitled_bytes is not None
    assert ram.entitled_bytes.value == 6 * 2**30


texts = st.text(max_size=30)
positive = st.floats(min_value=1e-3, max_value=1e15)
names = st.text("abcdefghijklmnop-0123456789", min_size=1, max_size=12)
figures = st.builds(
    Sourced,
    value=positive,
    source=texts,
    confidence=st.sampled_from(["measured", "verified", "from_memory", "assumed"]),
)
maybe = st.none() | figures


@st.composite
def pools(draw: st.DrawFn, name: str) -> Pool:
    total = draw(figures)
    less = st.builds(
        Sourced,
        value=st.floats(min_value=total.value / 1e3, max_value=total.value),
        source=texts,
        confidence=st.just("measured"),
    )
    return Pool(
        name=name,
        technology=draw(texts),
        total_bytes=total,
        usable_bytes=draw(less),
        entitled_bytes=draw(st.none() | less),
        bandwidth_bytes_per_s=draw(figures),
        measured_read_bytes_per_s=draw(maybe),
    )


engines = st.builds(
    ComputeEngine,
    kind=st.sampled_from(["cpu", "gpu", "npu"]),
    name=texts,
    pool=st.just("ram"),
    apis=st.lists(st.sampled_from(["cpu", "cuda", "metal", "npu", "vulkan"]), min_size=1, max_size=3).map(tuple),
    core_count=st.integers(0, 1000),
    isa=st.lists(texts, max_size=3).map(tuple),
    peak_flops_per_s=st.dictionaries(st.sampled_from(["fp32", "fp16", "int8"]), figures),
    sustained_ratio=st.none()
    | st.builds(Sourced, value=st.floats(1e-3, 1), source=texts, confidence=st.just("measured")),
)
calibrations = st.builds(
    Calibration,
    api=texts,
    engine_version=texts,
    thread_count=st.integers(1, 256),
    types=st.lists(
        st.builds(
            TypeCost,
            type_name=texts,
            batch_seconds_per_byte=st.lists(positive, min_size=1, max_size=4).map(
                lambda costs: tuple((batch + 1, cost) for batch, cost in enumerate(costs))
            ),
            repacked=st.booleans(),
        ),
        max_size=3,
    ).map(tuple),
    token_overhead_s=st.floats(0, 1),
    layer_overhead_s=st.floats(0, 1),
    kv_read_bytes_per_s=positive,
    attention_flops_per_s=positive,
)


@st.composite
def profiles(draw: st.DrawFn) -> Device:
    with_card = draw(st.booleans())
    return Device(
        name=draw(names),
        title=draw(texts),
        kind=draw(st.sampled_from(["phone", "laptop", "gpu-server"])),
        vendor=draw(texts),
        chip=draw(texts),
        os=draw(st.sampled_from(["ios", "linux", "windows"])),
        year=draw(st.integers(1990, 2100)),
        pools=(draw(pools("ram")), *([draw(pools("vram"))] if with_card else [])),
        engines=tuple(draw(st.lists(engines, min_size=1, max_size=3))),
        storage=Storage(technology=draw(texts), sequential_read_bytes_per_s=draw(figures)),
        power=Power(battery_joules=draw(maybe), sustained_watts=draw(maybe), peak_watts=draw(maybe)),
        calibrations=tuple(draw(st.lists(calibrations, max_size=2))),
        notes=draw(texts),
    )


@settings(max_examples=40, deadline=None)
@given(profile=profiles())
def test_a_dumped_profile_loads_back_equal(tmp_path_factory: pytest.TempPathFactory, profile: Device) -> None:
    """To the last bit of every number and the last character of every text."""
    folder = tmp_path_factory.getbasetemp()

    assert load_device(write(folder, dump_device(profile), f"{profile.name}.toml")) == profile


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_none_is_not_written(tmp_path: Path, number: float) -> None:
    device = load_device(write(tmp_path, GOOD))
    pool = replace(device.pool("ram"), working_sets=((1, number),))
    with pytest.raises(BadDataError, match="nan or inf"):
        dump_device(replace(device, pools=(pool,)))


lines = GOOD.splitlines()


@cache
def probed() -> list[str]:
    return dump_device(load_device("raspberry-pi-5")).splitlines()


values = st.sampled_from(
    ["1", "-1", "nan", "1e400", "true", '"x"', "[]", "[1, 'a']", "{}", "{ value = 1 }", "1979-05-27", "''"]
)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_spoilt_file_is_read_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    """Lines lost, doubled, swapped, cut short, or with another value: never anything but a profile or BadDataError."""
    spoilt = list(data.draw(st.sampled_from([lines, probed()])))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        match data.draw(st.sampled_from(["lose", "double", "swap", "cut", "value", "junk"])):
            case "lose":
                del spoilt[at]
            case "double":
                spoilt.insert(at, spoilt[at])
            case "swap":
                spoilt[at], spoilt[0] = spoilt[0], spoilt[at]
            case "cut":
                spoilt[at] = spoilt[at][: data.draw(st.integers(0, 60))]
            case "value":
                spoilt[at] = f"{spoilt[at].split('=')[0] or 'year'} = {data.draw(values)}"
            case "junk":
                spoilt[at] = data.draw(st.text(max_size=20))
    path = write(tmp_path_factory.getbasetemp(), "\n".join(spoilt))

    try:
        assert isinstance(load_device(path), Device)
    except BadDataError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("thread_count", "0"),
        ("token_overhead_s", "-1e-3"),
        ("kv_read_bytes_per_s", "0.0"),
        ("attention_flops_per_s", "nan"),
        ("layer_overhead_s", "inf"),
    ],
)
def test_a_calibration_that_cannot_be(tmp_path: Path, key: str, value: str) -> None:
    costs = Calibration(
        api="cpu", engine_version="1", thread_count=2, types=(), token_overhead_s=0.001, layer_overhead_s=0.0001,
        kv_read_bytes_per_s=1e10, attention_flops_per_s=1e11,
    )  # fmt: skip
    text = dump_device(replace(load_device(write(tmp_path, GOOD)), calibrations=(costs,)))
    assert load_device(write(tmp_path, text)).calibrations == (costs,)

    with pytest.raises(BadDataError, match="calibrations"):
        load_device(write(tmp_path, re.sub(f"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)))


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('pool = "ram"', 'pool = "vram"', "engine[0].pool"),
        ("value = 8053063680.0", "value = 9e9", "ram.usable_bytes.value"),
        ("value = 51200000000.0", "value = 0.0", "pools[0].bandwidth_bytes_per_s.value"),
        ("value = 51200000000.0", "value = nan", "pools[0].bandwidth_bytes_per_s.value"),
        ('name = "ram"', 'name = "vram"', "ram"),
        ('vendor = "Nobody"', 'vender = "Nobody"', "vender"),
    ],
)
def test_a_profile_as_a_probe_writes_it_is_checked_too(tmp_path: Path, old: str, new: str, field: str) -> None:
    text = dump_device(load_device(write(tmp_path, GOOD)))
    assert old in text
    text = text.replace(old, new)
    if old.startswith("name"):
        text = text.replace('pool = "ram"', 'pool = "vram"')

    with pytest.raises(BadDataError) as caught:
        load_device(write(tmp_path, text))
    assert caught.value.field == field


def test_list_and_show(tmp_path: Path) -> None:
    run = CliRunner().invoke

    listed = json.loads(run(COMMAND, ["show", "--json"], catch_exceptions=False).stdout)["items"]
    shown = json.loads(run(COMMAND, ["show", write(tmp_path, GOOD), "--json"], catch_exceptions=False).stdout)
    words = run(COMMAND, ["show", "raspberry-pi-5"], catch_exceptions=False).stdout

    assert {"iphone-16-pro", "rtx-4090-desktop"} <= {d["name"] for d in listed}
    assert math.isclose(shown["pools"][0]["total_bytes"]["value"], 8 * 2**30)
    assert "17.1 GB/s" in words  # 4267 x 32 / 8000 = 17.07


def test_a_page_of_a_device_says_what_was_measured_of_it_and_by_whom() -> None:
    with (files("harness") / "published" / "data" / "decode.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["chip"] == "RTX 3090" and row["test"].startswith("tg")]
    page = CliRunner(env={"COLUMNS": "200"}).invoke(COMMAND, ["show", "rtx 3090"], catch_exceptions=False).stdout
    count = int(re.findall(r"([0-9]+) speeds of this chip", page)[0])

    assert count >= len(rows) > 0
    assert "github.com/" in page.partition("speeds of this chip")[2]
    assert "others measured" not in CliRunner().invoke(COMMAND, ["show", "licheepi 4a"]).stdout


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("rtx-4090", "rtx-4090-desktop"),
        ("RTX 4090", "rtx-4090-desktop"),
        ("iPhone_16 Pro", "iphone-16-pro"),
        ("rtx4090", "rtx-4090-desktop"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090-desktop"),
        ("RTX 4090 Laptop GPU", "rtx-4090-laptop"),
        ("7900xtx", "rx-7900-xtx-desktop"),
        ("Samsung Galaxy S24 Ultra", "galaxy-s24-ultra"),
        ("Apple M2 Ultra", "mac-studio-m2-ultra"),  # a chip that one device here has
        ("GB10", "dgx-spark"),
        ("AMD EPYC 9654 96-Core Processor", "epyc-9654-server"),
        ("Intel(R) Core(TM) Ultra 7 155H", "meteor-lake"),
        ("Framework Desktop", "strix-halo"),  # a title
        # as drivers, systems and shops print them
        ("NVIDIA H100 80GB HBM3", "h100-sxm-server"),
        ("NVIDIA H100 PCIe", "h100-pcie-server"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb-server"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80-gb"),  # 1.94 TB/s; the device file is of the 2.04 of SXM
        ("Raspberry Pi 4 Model B Rev 1.5", "raspberry-pi-4"),
        ("AWS Graviton4", "graviton4-server"),
        ("MacBook Air (M2, 2022)", "macbook-air-m2"),
        ("MacBook Pro 14-inch M4 Pro", "macbook-pro-m4-pro"),
    ],
)
def test_a_device_as_people_write_it(written: str, name: str) -> None:
    assert load_device(written).name == name


def test_a_sibling_has_its_own_memory_and_the_graphics_of_the_chip_that_is_listed() -> None:
    device = load_device("8845HS")

    assert "780M" in device.chip
    assert device.title == "Ryzen 7 8845HS"
    assert device.pool("ram").bandwidth_bytes_per_s.value / 1e9 == 89.6  # DDR5-5600 x 128 bit
    assert "LPDDR5X-7500 = 120.0 GB/s" in device.readings[-1]


@pytest.mark.parametrize(
    ("written", "taken", "other"),
    [
        ("A100", "A100 SXM4 40 GB", "A100 PCIe 80 GB"),
        ("H100", "H100 PCIe 80 GB", "H100 SXM5 80 GB"),
        ("M4 Max 36GB", "14-core CPU", "546.1 GB/s"),
        ("iphone 15 plus", "", ""),
    ],
)
def test_a_name_of_several_things_says_which_it_took_and_what_the_others_give(
    written: str, taken: str, other: str
) -> None:
    readings = "; ".join(load_device(written).readings)

    assert taken in readings
    assert other in readings.partition(", not ")[2]


@pytest.mark.parametrize("written", ["foo 9000 ultra", "RTX 4095", "Radeon 4090", "M4 Max Turbo"])
def test_a_name_that_is_nobodys_is_not_guessed_and_no_size_is_invented(written: str) -> None:
    with pytest.raises(UnknownNameError, match="name what is in it") as caught:
        load_device(written)
    assert "GB" not in str(caught.value)


def test_what_is_known_of_a_line_is_said_where_the_rest_is_not() -> None:
    with pytest.raises(UnknownNameError, match="Understood: rtx 4090, 64GB"):
        load_device("rtx 4090 + rtx 6095 + 64GB")


def test_words_that_nobody_knows_are_left_out_and_named() -> None:
    device = load_device("watercooled rtx 4070 on a z790 board with 64GB")
    assert device.chip == "GeForce RTX 4070"
    assert device.ignored == ("watercooled", "z790")


@pytest.mark.parametrize(
    ("line", "storage_gb_s", "link_gb_s"),
    [
        ("3090 + 64gb ddr4 + nvme 7GB/s", 7.0, None),
        ("rtx 3090, 64gb, gen 4 nvme", 7.0, None),
        ("rtx 3090 32gb sata ssd", 0.55, None),
        ("rtx 3090 pcie 3.0 x4, 5800x, 32gb", None, 3.94),
        ("rtx 4060 ti 16gb eGPU on a ryzen 7 7840u", None, 2.8),
        ("rtx 5090 pcie 5.0 x8 + 64gb", None, 31.5),
    ],
)
def test_storage_and_link_stand_in_a_line(line: str, storage_gb_s: float | None, link_gb_s: float | None) -> None:
    device = load_device(line)
    if storage_gb_s:
        assert device.storage.sequential_read_bytes_per_s.value == storage_gb_s * GB
    found = device.own_pool.link_bytes_per_s
    assert (found.value / GB if found else None) == (pytest.approx(link_gb_s, rel=0.01) if link_gb_s else None)
    again = load_device(device.name)
    assert (again.storage, again.own_pool.link_bytes_per_s) == (device.storage, device.own_pool.link_bytes_per_s)


def test_names_that_begin_so_are_offered() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'pixel-9-pro"):
        load_device("pixel-9-p")


@pytest.mark.parametrize(
    ("gib", "macos", "working_set_mb"),  # what Metal printed in logs of llama.cpp, MB of 1e6 bytes
    [(16, 15, 11453.25), (24, 15, 17179.89), (36, 15, 28991.03), (64, 15, 51539.61), (16, 26, 12713.12),
     (24, 26, 19069.67), (32, 26, 26800.60), (36, 26, 30150.67), (48, 26, 40200.90), (64, 26, 55662.79),
     (128, 26, 115448.73)],
)  # fmt: skip
def test_a_macs_working_set_follows_its_system(gib, macos, working_set_mb):
    share, why = mac_working_set(gib, macos)
    assert share * gib * 2**30 / 1e6 == pytest.approx(working_set_mb, rel=5e-4)
    assert f"macOS {macos}" in why


@pytest.mark.parametrize(
    ("line", "system", "usable_gib"),
    [
        ("m4 max 64gb macos 15", "macos", 48.0),  # three quarters
        ("m4 max 64gb", "macos", 51.84),  # macOS 26
        ("rtx 4090 + 64GB ddr5-6000 + wsl2", "linux", 32.0),  # half of the RAM
        ("rtx 4090 + 64GB ddr5-6000, windows 11", "windows", 53.76),
        ("iphone-13-pro", "ios", 3.12),
    ],
)
def test_what_an_app_may_hold_follows_the_system_in_a_line(line: str, system: str, usable_gib: float) -> None:
    device = load_device(line)
    assert (device.os, device.pool("ram").usable_bytes.value / 2**30) == (system, pytest.approx(usable_gib, rel=1e-3))
    assert load_device(device.name).pool("ram").usable_bytes == device.pool("ram").usable_bytes


@pytest.mark.parametrize(
    ("gib", "system", "usable", "entitled"),
    [(4, "ios", 2.1, 2.4), (6, "ios", 3, 4.2), (8, "ios", 3, 6), (16, "ipados", 5, 12), (8, "ipados", 5, 6)],
)
def test_what_ios_grants_an_app_is_what_apps_reported(gib: float, system: str, usable: float, entitled: float) -> None:
    held = usable_gb(gib, 0, system)
    assert held[:2] == (usable, entitled)
    assert f"what {system} granted" in held[2]


def test_a_smaller_iphone_is_not_taken_to_grant_more() -> None:
    small, large = (load_device(name).pool("ram").usable_bytes for name in ("iphone 15", "iphone-15-pro"))
    assert small.value <= large.value == 3 * 2**30
    measured = load_device("iphone-13-pro").pool("ram").usable_bytes
    assert (measured.value, measured.confidence) == (pytest.approx(3.12 * 2**30), "measured")


def test_a_name_that_means_two_rows_of_one_speed_is_not_said_to_mean_both() -> None:
    readings = " ".join(load_device("ryzen ai max+ 395 128gb").readings)
    assert "also means" not in readings


def test_figures_in_another_order_suggest_the_card_itself() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'rtx-4090-desktop'"):
        load_device("rtx 4900")


@pytest.mark.parametrize(("gib", "system"), [(3, "ios"), (4, "ipados"), (12, "ipados"), (24, "ipados")])
def test_a_size_of_which_no_app_reported_is_assumed(gib: float, system: str) -> None:
    usable, entitled, why = usable_gb(gib, 0, system)
    assert 0 < usable < entitled < gib
    assert "seen" in why
    assert "granted" not in why


@pytest.mark.parametrize(
    ("line", "own"),
    [
        ("macbook air m2 linux", "macos"),
        ("m4 max 64gb windows 11", "macos"),
        ("iphone 15 pro windows", "ios"),
        ("ipad pro m4 macos", "ipados"),
        ("pixel 8 linux", "android"),
        ("rtx 4090 macos", "windows, linux or wsl"),
    ],
)
def test_a_system_that_a_device_cannot_have_is_refused(line: str, own: str) -> None:
    with pytest.raises(InputError, match=f"found (linux|windows|macos), expected {own}"):
        load_device(line)


@pytest.mark.parametrize(
    ("line", "gb_s"),
    [
        ("rtx 4090 + 64GB ddr5-6000", 96.0),  # 6000 x 128 / 8
        ("rtx 4090 + 512GB 12 channel ddr5-4800", 460.8),  # 4800 x 768 / 8
        ("rtx 4090 + 512GB", 358.4),  # no board of two channels takes it: eight of DDR5-5600
        ("rtx 3090 + 512GB 8 channel ddr4-3200", 204.8),
    ],
)
def test_the_rams_bandwidth_is_said_by_its_parts(line: str, gb_s: float) -> None:
    assert load_device(line).pool("ram").bandwidth_bytes_per_s.value / 1e9 == pytest.approx(gb_s)


@pytest.mark.parametrize(
    ("line", "ending"),
    [("2x strix halo", ", one of 2"), ("dual epyc 9654", ", one of 2"), ("strix halo", ""), ("2x rtx 3090", "")],
)
def test_one_machine_that_answers_for_several_says_so_in_its_title(line, ending):
    title = load_device(line).title
    assert title.endswith(ending) and (", one of" in title) == bool(ending)


@pytest.mark.parametrize(
    ("line", "api"),
    [
        ("core ultra x7 358h", "vulkan"),  # Arc B390
        ("core ultra 7 265h", "vulkan"),  # Arc 140T
        ("ryzen 7 7840hs", "vulkan"),  # Radeon 780M
        ("ryzen ai 9 hx 470", "vulkan"),  # Radeon 890M
        ("core ultra 7 256v", "vulkan"),
        ("ryzen 5 5600g", "cpu"),
        ("core i7-1260p", "cpu"),
    ],
)
def test_large_graphics_of_a_laptop_answer_first(line, api):
    device = load_device(line)
    assert device.api() == api
    assert any(engine.kind == "cpu" for engine in device.engines)
