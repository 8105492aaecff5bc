"""The verb that predicts, from the command line to the exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.models.names import load_model
from harness.models.weights import weights_of


def run(*args: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {"EDGE_HARNESS_HOME": str(home), "EDGE_HARNESS_CACHE": str(home), "PATH": "", "COLUMNS": "140"}
    return subprocess.run(
        [sys.executable, "-m", "harness", *args],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )


def test_fit_answers_with_nothing_downloaded(tmp_path: Path) -> None:
    asked = ("fit", "llama-3.1-8b", "-q", "Q4_K_M", "-d", "iphone-16-pro", "-c", "8192", "--api", "metal", "--json")
    done = run(*asked, home=tmp_path)
    assert done.returncode == 1, done.stderr  # what is wired for the GPU does not come from storage
    answer = json.loads(done.stdout)
    parts = {p["kind"]: p for p in answer["prediction"]["memory"]["parts"]}
    # 2 x 32 x 8 x 128 x 2 bytes x 8192 = 2**30, and 85 bytes of record for each of 8192 cells
    assert parts["kv cache"]["anonymous_bytes"] == 2**30
    assert parts["cell records"]["anonymous_bytes"] == 85 * 8192
    assert answer["prediction"]["verdict"]["word"] == "does not fit"
    assert answer["prediction"]["speed"]["decode_tokens_per_s"]["mid"] < 60e9 / 4.617e9  # the roofline
    assert answer["advice"][0]["kind"] == "entitlement"


def test_a_target_is_judged_on_the_speed_after_minutes(tmp_path: Path) -> None:
    """A phone that reaches 20 tokens/s for seconds does not keep them."""
    asked = ("fit", "llama-3.2-1b", "-q", "Q4_0", "-d", "galaxy-s24", "--no-advice", "--json")
    answer = json.loads(run(*asked, home=tmp_path).stdout)
    burst, late = answer["prediction"]["speed"]["decode_tokens_per_s"]["mid"], answer["sustained"]
    assert late["minutes"] == 10 and 0.3 < late["share"]["mid"] < 0.9 and "pooled" in late["evidence"]
    assert answer["energy"]["scope"] == "whole device"
    between = str((burst + late["tokens_per_s"]["mid"]) / 2)
    assert run(*asked, "--min-speed", between, home=tmp_path).returncode == 0
    judged = run(*asked, "--min-speed", between, "--minutes", "10", home=tmp_path)
    assert judged.returncode == 1
    assert any("after 10 minutes" in reason for reason in json.loads(judged.stdout)["prediction"]["verdict"]["reasons"])
    assert run(*asked, "--min-speed", between, "--minutes", "0.1", home=tmp_path).returncode == 0  # before the knee


def test_a_no_is_exit_1(tmp_path: Path) -> None:
    done = run("fit", "llama-3.1-405b", "-d", "raspberry-pi-5", home=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("No. Llama 3.1 405B does not run on a Raspberry Pi 5")


def test_a_missed_target_is_exit_1_and_says_what_binds(tmp_path: Path) -> None:
    done = run(
        "fit", "llama-3-8b", "-d", "iphone-16-pro", "-c", "2048", "--entitled", "--min-speed", "15", home=tmp_path
    )
    assert done.returncode == 1
    assert done.stdout.startswith("Too slow.")
    assert run("fit", "smollm2-135m", "-d", "iphone-16-pro", "--min-speed", "5", home=tmp_path).returncode == 0


def test_a_budget_stands_in_for_the_device_s_limit(tmp_path: Path) -> None:
    asked = ("fit", "llama-3.2-3b", "-d", "macbook-air-m2", "-c", "2048", "--json", "--no-advice")
    free = json.loads(run(*asked, home=tmp_path).stdout)["prediction"]["verdict"]
    assert free["word"] == "fits"
    tight = json.loads(run(*asked, "--ram-budget", "1.5GiB", home=tmp_path).stdout)["prediction"]["verdict"]
    assert tight["word"] == "fits with streaming"
    assert tight["available_bytes"] == 1.5 * 2**30


def test_a_draft_takes_room_of_its_own(tmp_path: Path) -> None:
    asked = ("fit", "qwen2.5-coder-1.5b", "-d", "macbook-air-m2", "--json", "--no-advice")
    alone = json.loads(run(*asked, home=tmp_path).stdout)["prediction"]
    both = json.loads(run(*asked, "--draft", "qwen2.5-coder-0.5b:Q8_0", home=tmp_path).stdout)["prediction"]
    added = both["memory"]["peak_bytes"]["mid"] - alone["memory"]["peak_bytes"]["mid"]
    # 2 x 24 layers x 2 heads x 64 x 2 bytes x 4096 of cache, 0.53 GB or more of weights
    assert added > 2 * 24 * 2 * 64 * 2 * 4096 + 5.3e8
    assert {p["kind"] for p in both["memory"]["parts"] if p["drafts"]} >= {"weights", "kv cache"}


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("fit", "llama-3.1-8bb", "-d", "iphone-16-pro"), "Did you mean"),
        (("fit", "llama-3.1-8b", "-d", "iphone-16-por"), "Did you mean"),
        (("fit", "llama-3.1-8b", "-d", "iphone-16-pro", "-q", "Q4_K_X"), "quantisation"),
        (("fit", "llama-3.1-8b", "-d", "iphone-16-pro", "--kv-type", "Q9"), "KV type"),
        (("fit", "smollm2-135m", "-d", "iphone-16-pro", "--kv-type", "Q4_K"), "KV type"),
        (
            ("fit", "llama-3.1-8b", "-d", "rtx-4060-desktop", "--ram", "32GiB"),
            "No such option '--ram'",
        ),
        (
            ("fit", "llama-3.1-8b", "-d", "rtx-4060-desktop", "--placement", "--n-cpu-moe 4"),
            "--placement: cpu moe changes nothing",
        ),
        (("fit", "llama-3.1-8b", "-d", "rtx-4060-desktop", "--placement", "-sm row"), ": split mode changes nothing"),
        (("fit", "llama-3.1-8b", "-d", "rtx-4060-desktop", "--draft", "qwen3-0.6b"), "other vocabulary (151936 tokens"),
        (("fit", "smollm2-135m", "-d", "raspberry-pi-5", "--entitled"), "--entitled changes nothing"),
        (("history", "--trend", "decode_tokns_per_s"), "Did you mean 'decode_tokens_per_s'?"),
        (("models", "show", "llama-3.1-8b", "-q", "bogus"), "no quantisation named"),
        (("fit", "./nothing.gguf", "-d", "iphone-16-pro"), "no such file"),
        (("fit", "smollm2-135m", "-d", "iphone-12", "--ram-budget", "lots"), "1.5GiB"),
        (("fit", "nope-*", "-d", "iphone-12"), "nope-*"),
        (("fit", "*", "-d", "*"), "expected 2,000"),
        (("fit", "llama-3.1-8b", "-c", "many"), "whole number"),
    ],
)
def test_wrong_input_is_exit_2_in_one_line(tmp_path: Path, args: tuple[str, ...], word: str) -> None:
    done = run(*args, home=tmp_path)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_patterns_ask_of_each_pair(tmp_path: Path) -> None:
    asked = ("fit", "llama-3.2-1b*", "smollm2-135m", "-d", "iphone-16*", "-q", "Q8_0", "--json")
    answers = json.loads(run(*asked, home=tmp_path).stdout)["items"]
    pairs = [(one["model"]["name"], one["device"]["name"]) for one in answers]
    devices = {device for _, device in pairs}
    assert {"iphone-16", "iphone-16-pro"} <= devices
    assert set(pairs) == {(model, device) for model in ("llama-3.2-1b", "smollm2-135m") for device in devices}
    one = answers[pairs.index(("llama-3.2-1b", "iphone-16-pro"))]
    alone = run("fit", "llama-3.2-1b", "-d", "iphone-16-pro", "-q", "Q8_0", "--no-advice", "--json", home=tmp_path)
    alone = json.loads(alone.stdout)
    assert one["prediction"] == alone["prediction"]
    weights = weights_of(load_model("llama-3.2-1b").shape, "Q8_0")
    assert one["prediction"]["verdict"]["needed_bytes"] > sum(t.size_bytes for t in weights.tensors)


def test_a_grid_has_the_devices_of_each_model_below_its_name(tmp_path: Path) -> None:
    lines = run("fit", "qwen3-8b", "qwen3-4b", "-d", "rtx-40*", home=tmp_path).stdout.splitlines()
    heads = [lines.index(f"  Qwen3 {size} Q4_K_M") for size in ("8B", "4B")]
    for head in heads:
        assert any(line.startswith("    RTX 4090") and "tokens" not in line for line in lines[head + 1 : head + 9])
