"""The best way to run a model: by hand where it can be seen, and against everything that anybody published."""

import math
import re
from collections import defaultdict
from itertools import combinations

import pytest

from harness.app.published import shipped_rows
from harness.app.resolve import resolve_model
from harness.app.ways import Way, ways
from harness.catalog.devices import device_names, load_device
from harness.domain.scenario import Scenario
from harness.errors import HarnessError
from harness.predict.coefficients import shipped
from harness.predict.fitted import machine_of
from harness.published.rows import Row, is_trusted
from harness.report.answer import first_line, next_step


def best(model: str, device: str, **asked: int) -> Way:
    return ways(resolve_model(model, "Q4_K_M"), load_device(device), Scenario(**asked))[0]


@pytest.mark.parametrize(
    ("model", "device", "how"),
    [
        ("llama-3.1-8b", "rtx-4060-desktop", "whole on the card"),
        ("qwen3-30b-a3b", "rtx-4060-desktop", "on the card, with the experts of"),
        ("llama-3.3-70b", "rtx-3090-desktop", "blocks on the card, the others with the CPU"),
        ("qwen3.5-397b-a17b", "macbook-pro-m3-max", "of wanted experts in memory, the others read from storage"),
        ("qwen3-32b", "raspberry-pi-5-16gb", "layers in memory, the others streamed"),
        ("llama-3.3-70b", "galaxy-s24-ultra", "layers in memory, the others streamed"),
        ("llama-3.3-70b", "macbook-air-m1-8gb", "mapped from storage"),  # nothing streams layers on a Mac
    ],
)
def test_the_best_way_is_the_one_that_people_take(model: str, device: str, how: str) -> None:
    way = best(model, device)
    assert how in way.how
    line = first_line(way, load_device(device), None)
    assert line.startswith(("Yes", "Slowly", "Very slowly"))
    assert way.is_usual or way.flags in line


@pytest.mark.parametrize(("os", "streams"), [("linux", True), ("macos", False), ("windows", False), ("ios", False)])
def test_layers_are_streamed_where_the_system_can(os: str, streams: bool) -> None:
    device = load_device("raspberry-pi-5-16gb").replace(os=os)
    listed = ways(resolve_model("qwen3-32b", "Q4_K_M"), device, Scenario())
    assert any(way.how.endswith("streamed") for way in listed) == streams
    assert ("edge-harness stream" in next_step(listed[0], device, False, False)) == streams


def test_a_file_is_mapped_for_the_cpu_and_not_for_a_gpu_that_wires_it() -> None:
    (way,) = ways(resolve_model("llama-3.3-70b", "Q4_K_M"), load_device("macbook-air-m1-8gb"), Scenario())
    assert (way.prediction.api, way.flags) == ("cpu", "-ngl 0")


def test_what_has_no_way_is_a_no() -> None:
    way = best("deepseek-r1", "raspberry-pi-5")
    assert not way.runs
    assert first_line(way, load_device("raspberry-pi-5"), None).startswith("No: it needs")


def test_a_published_speed_of_a_mixture_from_the_disk_lies_in_the_interval() -> None:
    """4.36 tokens/s of Qwen3.5 397B A17B on a MacBook Pro with an M3 Max and 48 GB (streaming.csv)."""
    speed = best("qwen3.5-397b-a17b", "macbook-pro-m3-max").prediction.speed.decode_tokens_per_s
    assert speed.low < 4.36 < speed.high


def test_an_api_or_a_placement_that_was_asked_for_stays() -> None:
    model, device = resolve_model("qwen3-30b-a3b", "Q4_K_M"), load_device("rtx-4060-desktop")
    (way,) = ways(model, device, Scenario(api="cuda"))
    assert way.is_usual and not way.runs
    assert way.prediction.api == "cuda"


def test_which_of_two_is_faster_on_one_device_is_told_rightly() -> None:
    """All pairs of one source's runs of one test by one runtime on one chip whose speeds differ by more than 10 %."""
    values, groups = shipped().values, defaultdict(list)
    for row in shipped_rows():
        if row.work is not None and row.phase == "decode" and is_trusted(row):
            same = (row.chip, row.machine.api, row.machine.runtime, row.source, row.raw.get("test"))
            groups[same].append((math.log(row.measured), -row.predicted(values)[0]))
    pairs = [pair for runs in groups.values() for pair in combinations(runs, 2)]
    told = [(a[0] > b[0]) == (a[1] > b[1]) for a, b in pairs if abs(a[0] - b[0]) > math.log(1.1)]
    assert len(told) > 5000
    assert sum(told) / len(told) > 0.95


def test_nothing_that_anybody_ran_is_said_not_to_run() -> None:
    """A model in a mixture on a chip of shipped devices: one of them runs it, and no word bounds its speed."""
    devices = defaultdict(set)
    for name in device_names():
        device = load_device(name)
        for api in {api for engine in device.engines for api in engine.apis}:
            devices[machine_of(device, Scenario(api=api)).chip].add(name)
    rows: dict[tuple[str, str, str], Row] = {}
    for row in shipped_rows():
        if row.work is not None and row.work.model and row.phase == "decode" and devices[row.machine.chip]:
            rows.setdefault((row.machine.chip, row.work.model, row.work.type_name), row)
    asked = 0
    for (chip, name, quant), row in sorted(rows.items())[::10]:
        try:
            model = resolve_model(name, quant)
        except HarnessError:  # a type of another runtime's
            continue
        asked += 1
        answers = {name: ways(model, load_device(name), Scenario())[0] for name in sorted(devices[chip])}
        assert any(way.runs for way in answers.values()), row.raw
        for owner, way in answers.items():
            words = " ".join((first_line(way, load_device(owner), None), *way.prediction.verdict.reasons))
            assert not re.search("at most|up to|no more than", words), words
    assert asked > 75
