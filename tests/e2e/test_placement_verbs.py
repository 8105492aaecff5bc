"""Splits of a model from the command line: what is found, what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = Path(__file__).parents[2] / "harness/published/data/decode.csv"
MIXTURE = ("qwen3-30b-a3b", "-q", "Q4_K_M", "-d", "rtx-4060-desktop, 32GB")


def run(*args: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {"EDGE_HARNESS_HOME": str(home), "EDGE_HARNESS_CACHE": str(home), "PATH": "", "COLUMNS": "160"}
    command = [sys.executable, "-m", "harness", *args]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_the_best_split_has_flags_and_speed(tmp_path: Path) -> None:
    done = run("fit", *MIXTURE, "--json", home=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    best, second = answer["ways"]
    placement = best["scenario"]["placement"]
    assert best["flags"] == f"-ngl all --n-cpu-moe {placement['cpu_moe']}"
    assert (second["kind"], second["flags"]) == ("cpu", "-dev none")
    assert best["prediction"] == answer["prediction"]
    # the split that was found, asked for by its options, is what it was said to be
    options = ("--placement", best["flags"], "--no-advice", "--json")
    asked = json.loads(run("fit", *MIXTURE, *options, home=tmp_path).stdout)["prediction"]
    assert asked["verdict"]["word"] == "fits"
    assert asked["speed"] == answer["prediction"]["speed"]
    assert {p["pool"] for p in asked["memory"]["parts"]} == {"vram", "ram"}


def test_two_cards_hold_what_one_does_not(tmp_path: Path) -> None:
    asked = ("fit", "llama-3.3-70b", "-q", "Q4_K_M", "--no-advice", "--json", "-d")
    named = (["rtx-3090-desktop"], ["rtx-3090-desktop", "--placement", "-ts 1,1"], ["2x rtx 3090"])
    one, two, both = (run(*asked, *more, home=tmp_path) for more in named)
    assert json.loads(one.stdout)["ways"][0]["flags"].startswith("-ngl 4")
    memory = json.loads(two.stdout)["prediction"]["memory"]
    assert json.loads(both.stdout)["ways"][0]["flags"] == "-ngl all -ts 1,1"
    cards = [p["anonymous_bytes"] for p in memory["parts"] if p["kind"] == "weights" and p["card"] is not None]
    assert len(cards) == 2 and max(cards) / sum(cards) < 0.56


def test_a_placement_on_several_cards_is_answered_as_it_was_asked(tmp_path: Path) -> None:
    asked = ("fit", "gpt-oss-120b", "-d", "2x rtx 3090 + 64GB", "--no-advice", "--json", "--placement")
    flags = "-ngl all --n-cpu-moe 14 -ts 25,12"
    (way,) = json.loads(run(*asked, flags, home=tmp_path).stdout)["ways"]
    assert (way["flags"], way["prediction"]["verdict"]["word"]) == (flags, "fits")
    # without shares of its own it has those of the cards' memory, half of the blocks each: the second overflows
    done = run(*asked, "--n-cpu-moe 14", home=tmp_path)
    (even,) = json.loads(done.stdout)["ways"]
    assert (even["flags"], done.returncode) == ("-ngl all --n-cpu-moe 14 -ts 1,1", 1)


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (
            ("fit", "qwen3-30b-a3b", "-d", "2x rtx 4060", "--placement", "-ts 1,1,1"),
            "-ts 1,1,1: 2x-geforce-rtx-4060 has 2 cards",
        ),
        (("fit", *MIXTURE, "--placement", "-ngl many"), "many"),
        (("fit", *MIXTURE, "--placement", "auto"), "expected flags of llama.cpp"),
        (("fit", *MIXTURE, "--placement", "-ts 0,0"), "shares such as -ts 3,1"),
        (("validate", "--rows", str(ROWS), "--leave-out", "source"), "No such option '--leave-out'"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, args: tuple[str, ...], word: str) -> None:
    done = run(*args, home=tmp_path)
    assert done.returncode == 2
    assert word in done.stderr and "Traceback" not in done.stderr and not done.stdout


def test_cards_that_differ_are_shown_each_as_it_is(tmp_path: Path) -> None:
    said = run("devices", "show", "rtx 3090 + rtx 3060 12gb", home=tmp_path).stdout
    rows = [line.split() for line in said.splitlines() if "vram bandwidth" in line]
    assert [row[row.index("bandwidth") + 1] for row in rows] == ["936.0", "360.0"]
