"""The best way to run a model: by hand where it can be seen, and against everything that anybody published."""

import math
import re
from collections import defaultdict
from itertools import combinations

import pytest

from harness.answer.case import Case
from harness.answer.commands import commands_of, way_flags
from harness.answer.nearest import shipped_rows
from harness.answer.resolve import resolve_model
from harness.answer.ways import ways
from harness.core.errors import HarnessError
from harness.core.placement import Placement
from harness.core.scenario import Scenario
from harness.core.way import Way, WayKind
from harness.hardware.devices import device_names, load_device
from harness.speed.coefficients import shipped
from harness.speed.fitted import machine_of
from harness.speed.published.rows import PublishedRow, is_trusted


def best(model: str, device: str, **asked: int) -> Way:
    return ways(Case.of(resolve_model(model, "Q4_K_M"), load_device(device), Scenario(**asked)))[0]


@pytest.mark.parametrize(
    ("model", "device", "kind"),
    [
        ("llama-3.1-8b", "rtx-4060-desktop", WayKind.WHOLE),
        ("qwen3-30b-a3b", "rtx-4060-desktop", WayKind.EXPERTS),
        ("llama-3.3-70b", "rtx-3090-desktop", WayKind.LAYERS),
        ("qwen3.5-397b-a17b", "macbook-pro-m3-max", WayKind.EXPERT_CACHE),
        ("qwen3-32b", "raspberry-pi-5-16gb", WayKind.STREAMED),
        ("llama-3.3-70b", "galaxy-s24-ultra", WayKind.STREAMED),
        ("llama-3.3-70b", "macbook-air-m1-8gb", WayKind.MAPPED),  # nothing streams layers on a Mac
    ],
)
def test_the_best_way_is_the_one_that_people_take(model: str, device: str, kind: WayKind) -> None:
    assert best(model, device).kind is kind


@pytest.mark.parametrize(("os", "streams"), [("linux", True), ("macos", False), ("windows", False), ("ios", False)])
def test_layers_are_streamed_where_the_system_can(os: str, streams: bool) -> None:
    device = load_device("raspberry-pi-5-16gb").replace(os=os)
    case = Case.of(resolve_model("qwen3-32b", "Q4_K_M"), device, Scenario())
    listed = ways(case)
    assert any(way.kind is WayKind.STREAMED for way in listed) == streams
    commands = commands_of(case, listed[0])
    assert any("edge-harness stream" in line for line in commands) == streams


def test_a_file_is_mapped_for_the_cpu_and_not_for_a_gpu_that_wires_it() -> None:
    case = Case.of(resolve_model("llama-3.3-70b", "Q4_K_M"), load_device("macbook-air-m1-8gb"), Scenario())
    (way,) = ways(case)
    assert (way.prediction.api, way_flags(case, way)) == ("cpu", "-dev none")


def test_what_has_no_way_does_not_run() -> None:
    assert not best("deepseek-r1", "raspberry-pi-5").runs


def test_a_published_speed_of_a_mixture_from_the_disk_lies_in_the_interval() -> None:
    """4.36 tokens/s of Qwen3.5 397B A17B on a MacBook Pro with an M3 Max and 48 GB (streaming.csv)."""
    speed = best("qwen3.5-397b-a17b", "macbook-pro-m3-max").prediction.speed.decode_tokens_per_s
    assert speed.low < 4.36 < speed.high


def test_the_usual_api_by_its_name_is_the_usual_api() -> None:
    model, device = resolve_model("qwen3-30b-a3b", "Q4_K_M"), load_device("rtx-4060-desktop")
    named, unnamed = (ways(Case.of(model, device, Scenario(api=api))) for api in ("cuda", ""))
    assert named == unnamed


def test_a_placement_that_was_asked_for_stays() -> None:
    model, device = resolve_model("qwen3-30b-a3b", "Q4_K_M"), load_device("rtx-4060-desktop")
    (way,) = ways(Case.of(model, device, Scenario(placement=Placement(gpu_layers=20))))
    assert way.kind is WayKind.LAYERS
    assert way.scenario.placement == Placement(gpu_layers=20)


def test_of_unlike_cards_the_faster_one_alone_is_a_way() -> None:
    rig, alone = load_device("rtx 3090 + rtx 3060 12gb"), load_device("rtx 3090")
    model = resolve_model("llama-3.1-8b", "Q4_K_M")
    first, card = (ways(Case.of(model, device, Scenario()))[0] for device in (rig, alone))
    assert (first.kind, first.card) == (WayKind.CARD, 0)
    assert first.prediction.speed.decode_tokens_per_s.mid >= 0.99 * card.prediction.speed.decode_tokens_per_s.mid


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
    assert sum(told) / len(told) > 0.94  # 0.9497 of 23,280, and 0.94 on chips and sources that the fit had not seen


def test_nothing_that_anybody_ran_is_said_not_to_run() -> None:
    """A model in a mixture on a chip of shipped devices: one of them runs it, and no word bounds its speed."""
    devices = defaultdict(set)
    for name in device_names():
        device = load_device(name)
        for api in {api for engine in device.engines for api in engine.apis}:
            devices[machine_of(device, Scenario(api=api)).chip].add(name)
    rows: dict[tuple[str, str, str], PublishedRow] = {}
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
        answers = {name: ways(Case.of(model, load_device(name), Scenario()))[0] for name in sorted(devices[chip])}
        assert any(way.runs for way in answers.values()), row.raw
        for owner, way in answers.items():
            words = " ".join((owner, *way.prediction.verdict.reasons))
            assert not re.search("at most|up to|no more than", words), words
    assert asked > 75
