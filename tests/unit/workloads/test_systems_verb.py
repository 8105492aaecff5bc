"""The verb: what is listed, and what is refused."""

import json
import re

import click
import pytest
from click.testing import CliRunner

from harness.answer.answer import answer as answer_of
from harness.answer.resolve import resolve_model
from harness.cli import cli
from harness.core.errors import RefusedError
from harness.core.question import Question
from harness.core.scenario import Scenario
from harness.hardware.devices import load_device
from harness.show.first_screen import first_screen
from harness.workloads.hooks import companion


@pytest.fixture
def said(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path))
    return lambda *words: CliRunner().invoke(cli, ["workloads", "run", *words], standalone_mode=False)


def test_a_system_that_lacks_a_part_is_refused_before_anything_runs(said):
    result = said("oversight", "-r", "1")
    assert isinstance(result.exception, RefusedError)
    assert str(result.exception) == "oversight needs language: name one with --model MODEL"


@pytest.mark.parametrize("name", ["see", "reason"])
def test_a_part_that_no_case_needs_is_refused(said, name):
    result = said(name, "--encoder", ".")
    assert isinstance(result.exception, RefusedError)
    assert str(result.exception) == f"{name}: no case that is run needs encoder: leave out --encoder FILE"


def test_a_system_without_parts_is_timed_and_scored(said):
    result = said("reason", "-r", "1", "--json")
    record = json.loads(result.stdout)
    assert result.return_value in {0, 3}
    assert [row["op"] for row in record["result"]["passes"]] == ["all", "glue"]
    assert record["result"]["scores"]


def test_systems_are_listed_with_their_parts_and_sizes(said):
    systems = json.loads(said("--json").stdout)
    listed = {system["name"]: system for system in systems.get("items", systems)}
    assert listed["memory"]["parts"] == ["encoder", "language"]
    assert listed["memory"]["sizes"]["default"] == {"entry_count": 10000}


def test_what_says_nothing_without_a_name_is_refused(said):
    result = said("--evaluate")
    assert isinstance(result.exception, click.UsageError)
    assert "'--evaluate' has no meaning without a NAME" in result.exception.format_message()


MODEL = resolve_model("smollm2-135m")
WEIGHT_COUNT = 134_515_008  # of its card


@pytest.mark.parametrize(
    ("name", "least_bytes", "steps"),
    [
        ("answer", 0, {"answer", "support"}),
        ("inspect", 4 * 576 * 6 * 4 * 576, {"loss", "probe"}),  # the dictionary's arrays, of 4 x 576 features
        ("oversight", 0, {"dispute"}),
        ("reason", 0, {"arithmetic", "solve", "choose"}),
        ("see", 50 << 20, {"read"}),
        ("train", 16 * WEIGHT_COUNT, {"step"}),  # weights, gradients and two moments, in F32
    ],
)
def test_every_system_counts_what_it_holds_and_takes_beside_a_model(name, least_bytes, steps):
    held = companion(name, MODEL.weights)
    assert (held.name, held.file_bytes) == (f"{name} default", 0)
    assert held.anonymous_bytes >= least_bytes and bool(held.anonymous_bytes) == bool(least_bytes)
    seconds = held.steps(load_device("raspberry-pi-5"), Scenario())
    assert set(seconds) == steps
    assert name == "see" or all(took_s is not None for took_s in seconds.values())


@pytest.mark.parametrize(
    ("model", "device"), [("smollm2-135m", "raspberry-pi-4-1gb"), ("llama-3.1-8b", "rtx 4090, ryzen 7950x, 64gb ddr5")]
)
def test_training_has_no_room_on_a_small_board_or_beside_a_card(model, device):
    answer = answer_of(Question(model=model, device=device, beside=("train",)))
    assert not answer.runs
    first = first_screen(answer)[0]
    assert first.startswith("No.") and "with train" in first


def test_a_system_and_its_time_stand_on_the_first_screen():
    answer = answer_of(Question(model="smollm2-135m", device="raspberry-pi-5", beside=("answer",)))
    assert re.search(r"with +0 MiB more +answer: answer [\d.]+ s, support [\d.]+ s", "\n".join(first_screen(answer)))
