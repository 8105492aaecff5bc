"""One measurement of a device changes every prediction for it: through the commands, as a user does it."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.core.device import APIS

DEVICE = "raspberry-pi-5-16gb"
# a board that runs everything at 0.7 of what is said of its kind
LINES = ("qwen3-8b Q4_K_M - 1.1", "llama-3.2-3b Q4_K_M - 2.6")


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))

    def run(*arguments, status=0):
        done = CliRunner().invoke(cli, [*map(str, arguments)], standalone_mode=True)
        assert (done.exit_code or done.return_value or 0) == status, done.output
        return done.stdout

    return run


def decode(call, model, *more):
    document = json.loads(call("fit", model, "-d", DEVICE, "-q", "Q4_K_M", "--no-advice", "--json", *more))
    return document["prediction"]["speed"]["decode_tokens_per_s"], document


def ratio(interval):
    return interval["high"] / interval["low"]


def test_fit_uses_what_was_measured_and_forget_it(call):
    other = "gemma-3-4b"  # never measured
    before, _ = decode(call, other)
    lines = [word for line in LINES for word in ("--line", line)]
    lesson = json.loads(call("learn", "--device", DEVICE, *lines, "--json"))["lessons"][0]
    for taken in lesson["taken"]:
        measured = taken["measurement"]["tokens_per_s"]
        assert abs(taken["after"]["mid"] / measured - 1) < 0.5 * abs(taken["before"]["mid"] / measured - 1)
    after, document = decode(call, other)
    assert after["mid"] < 0.85 * before["mid"]
    assert ratio(after) < ratio(before)
    assert any("learnt from measurements" in note for note in document["notes"])
    call("learn", "--device", DEVICE, "--forget")
    assert decode(call, other)[0] == before


def test_the_same_measurement_counts_once(call):
    call("learn", "--device", DEVICE, "--line", LINES[0])
    once, _ = decode(call, "gemma-3-4b")
    call("learn", "--device", DEVICE, "--line", LINES[0])
    assert decode(call, "gemma-3-4b")[0] == once


def test_a_speed_above_the_memory_is_not_believed_and_a_contradiction_is_named(call):
    assert (
        "its memory allows"
        in CliRunner()
        .invoke(cli, ["learn", "--device", DEVICE, "--line", "qwen3-8b Q4_K_M - 900", "--json"])
        .exception.args[0]
    )
    lines = ("qwen3-8b Q4_K_M - 2.1", "llama-3.1-8b Q4_K_M - 2.1", "gemma-3-4b Q4_K_M - 0.9")
    out = call("learn", "--device", DEVICE, *(w for line in lines for w in ("--line", line)))
    assert "contradicts the others" in out


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("qwen3-8b Q4_K_M 1e8 -", "its arithmetic allows"),
        ("qwen3-8b Q4_K_M 30000 -", "its arithmetic allows"),  # over 4e14 operations/s: twice what is sold
        ("qwen3-8b Q4_K_M - 1e-9", "under a hundredth"),
        ("llama-3.1-70b Q4_K_M 100 -", "do not fit in the vram"),  # 42.5 GB
        ("nosuchmodel Q4_K_M 1500 40", "no model of that name"),
        ("qwen3-8b AWQ 1500 40", "a mixture of llama.cpp"),
    ],
)
def test_a_speed_that_cannot_be_is_refused_and_not_kept(call, line, why):
    card = "RTX 4060"
    done = CliRunner().invoke(cli, ["learn", "--device", card, "--line", line])
    assert why in str(done.exception)
    call("learn", "--device", card, "--line", "qwen3-8b Q4_K_M - 40", "--line", line)
    kept = json.loads(call("learn", "--device", card, "--json"))["lessons"][0]["taken"]
    assert [taken["measurement"]["tokens_per_s"] for taken in kept] == [40.0]
    call("learn", "--device", card, "--forget")  # by the name that it was learnt by


def test_a_pipe_without_a_writer_is_no_file_of_measurements(call, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    done = CliRunner().invoke(cli, ["learn", "--device", DEVICE, str(tmp_path / "pipe")])
    assert "no regular file" in str(done.exception)


def test_a_fleet_learns_by_the_names_in_its_records(call, tmp_path):
    rows = [
        {"model_type": "qwen3 8B Q4_K - Medium", "model_n_params": 8190735360, "model_size": 5027783488, "n_prompt": p,
         "n_gen": g, "avg_ts": speed, "backends": "CUDA", "gpu_info": gpu}
        for gpu, factor in (("NVIDIA GeForce RTX 4090", 1.0), ("Nobody's Card 1", 0.4))
        for p, g, speed in ((512, 0, 9000 * factor), (0, 128, 130 * factor))
    ]  # fmt: skip
    file = tmp_path / "fleet" / "bench.json"
    file.parent.mkdir()
    file.write_text(json.dumps(rows))
    (tmp_path / "fleet" / "notes.json").write_text("{}")
    found = json.loads(call("learn", tmp_path / "fleet", "--json"))
    assert [lesson["device"] for lesson in found["lessons"]] == ["rtx-4090-desktop"]
    assert found["unknown"] == {"Nobody's Card 1": 2}
    assert len(found["passed_over"]) == 1
    # what one person learnt, another takes over
    shared = tmp_path / "shared" / "rtx-4090-desktop.json"
    shared.parent.mkdir()
    shared.write_text(Path(found["lessons"][0]["path"]).read_text())
    kept = json.loads(shared.read_text())
    call("learn", "--device", "rtx-4090-desktop", "--forget")
    call("learn", tmp_path / "shared")
    again = json.loads((tmp_path / "home" / "learned" / "rtx-4090-desktop.json").read_text())
    assert again["measurements"] == kept["measurements"]


def test_the_nearest_measurements_behind_an_answer_are_shown(call):
    near = json.loads(call("fit", "qwen3-8b", "-d", "rtx-4090-desktop", "--explain", "--json"))["explanation"]
    assert {row["phase"] for row in near} == {"decode", "prefill"}
    assert all(row["measured_tokens_per_s"] > 0 and row["predicted_tokens_per_s"] > 0 for row in near)
    for row in near:
        assert row["chip"] and row["api"] in APIS and row["quant"] and row["source"]
    assert "RTX 4090" in call("fit", "qwen3-8b", "-d", "rtx-4090-desktop", "--explain")


def test_a_file_and_a_line_say_the_same(call, tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text(f"# measured on the board\n{LINES[0]}\n")
    call("learn", "--device", DEVICE, file)
    by_file, _ = decode(call, "gemma-3-4b")
    call("learn", "--device", DEVICE, "--forget")
    call("learn", "--device", DEVICE, "--line", LINES[0])
    assert decode(call, "gemma-3-4b")[0] == by_file


CARD = ("fit", "llama-3.1-8b", "-d", "rtx-4060-desktop")


def test_options_that_conflict_are_refused(call):
    call("learn", "--device", DEVICE, "--forget", "--line", LINES[0], status=2)


def test_users_over_a_split_get_more_together_and_less_each(call):
    split = (*CARD, "--placement", "-ngl 10", "--json", "--no-advice")
    one, eight = (json.loads(call(*split, "--users", n))["prediction"]["speed"] for n in (1, 8))
    assert 1 < eight["decode_tokens_per_s"]["mid"] / one["decode_tokens_per_s"]["mid"] < 8


def test_users_change_the_answer(call):
    assert decode(call, "gemma-3-4b", "--users", 4)[0]["mid"] > 1.3 * decode(call, "gemma-3-4b")[0]["mid"]


@pytest.mark.parametrize("asked", ["llama-3.1-8b Q4_K_M", "qwen3-30b-a3b Q4_K_M", "gpt-oss-20b MXFP4"])
def test_the_answer_of_fit_teaches_nothing(call, asked):
    model, quant = asked.split()

    def speeds(name, quant):
        document = json.loads(call("fit", name, "-q", quant, "-d", "rtx 3090", "--no-advice", "--json"))
        speed = document["prediction"]["speed"]
        return [speed[phase]["mid"] for phase in ("prefill_tokens_per_s", "decode_tokens_per_s")]

    before = speeds(model, quant)
    other = speeds("qwen3-4b", "Q4_K_M")
    call("learn", "--device", "rtx 3090", "--line", f"{asked} {before[0]} {before[1]}")
    assert speeds(model, quant) == pytest.approx(before, rel=0.01)
    assert speeds("qwen3-4b", "Q4_K_M") == pytest.approx(other, rel=0.01)
