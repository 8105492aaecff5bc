"""The two verbs that predict, from the command line to the exit status."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.catalog.names import load_model
from harness.predict.weights import weights_of


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
        (("fit", "llama-3.1-8b", "-q", "Q8_0", "-q", "Q4_0"), "--quant was given 2 times"),
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
        (("matrix", "-m", "nope"), "models show"),
        (("matrix", "-m", ","), "names with a comma between"),
        (("matrix", "-m", "smollm2-135m", "-d", "raspberry-pi-5", "--entitled"), "No such option '--entitled'"),
        (("fit", "smollm2-135m", "-d", "raspberry-pi-5", "--entitled"), "--entitled changes nothing"),
        (("history", "--outcome", "crahsed"), "Did you mean 'crashed'?"),
        (("matrix", "-m", "llama3.1:8b-q8_0"), "mixtures with --quants"),
        (("models", "show", "llama-3.1-8b", "-q", "bogus"), "no quantisation named"),
        (("fit", "./nothing.gguf", "-d", "iphone-16-pro"), "no such file"),
        (("fit", "smollm2-135m", "-d", "iphone-12", "--ram-budget", "lots"), "1.5GiB"),
        (("matrix", "-m", "nope-*"), "nope-*"),
        (("matrix", "-c", "many"), "whole number"),
    ],
)
def test_wrong_input_is_exit_2_in_one_line(tmp_path: Path, args: tuple[str, ...], word: str) -> None:
    done = run(*args, home=tmp_path)
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_matrix_has_a_cell_for_each_combination(tmp_path: Path) -> None:
    asked = ("-d", "iphone-16*", "-m", "llama-3.2-?b", "-q", "Q4_K_M,Q8_0", "-c", "2048,8192")
    done = run("matrix", *asked, "--json", home=tmp_path)
    columns = json.loads(done.stdout)
    columns = {name: cells for name, cells in columns.items() if isinstance(cells, list)}
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    assert len(rows) == len({r["device"] for r in rows}) * len({r["model"] for r in rows}) * 2 * 2
    one = next(r for r in rows if (r["device"], r["model"]) == ("iphone-16-pro", "llama-3.2-1b"))
    assert one["verdict"] == "fits"
    weights = weights_of(load_model("llama-3.2-1b").shape, one["quant"])
    assert int(one["needed_bytes"]) > sum(t.size_bytes for t in weights.tensors)
    assert float(one["decode_tokens_per_s"]) > 5


def test_matrix_takes_names_as_fit_does(tmp_path: Path) -> None:
    written = run(
        "matrix", "-d", "RTX 4090", "-m", "llama3.1:8b", "-q", "AWQ", "--api", "CUDA", "--json", home=tmp_path
    )
    found = json.loads(written.stdout)
    assert (found["device"], found["model"], found["quant"]) == (["rtx-4090-desktop"], ["llama-3.1-8b"], ["Q4_0"])


def test_a_matrix_takes_repeated_names_as_more_of_them(tmp_path: Path) -> None:
    words = ("-d", "iphone-12", "-d", "pixel-8,raspberry-pi-5", "-m", "smollm2-135m", "-m", "qwen2.5vl:3b")
    table = json.loads(run("matrix", *words, "--json", home=tmp_path).stdout)
    assert set(zip(table["device"], table["model"], strict=True)) == {
        (device, model)
        for device in ("iphone-12", "pixel-8", "raspberry-pi-5")
        for model in ("smollm2-135m", "qwen2.5-vl-3b")
    }


def test_a_matrix_of_many_cells_is_a_row_a_device(tmp_path: Path) -> None:
    done = run("matrix", "-d", "rtx-*", "-m", "qwen3-8b,qwen3-4b", "-c", "4096,8192", home=tmp_path)
    assert done.returncode == 0
    assert "largest that fits" in done.stdout
    assert "rtx-4090-desktop" in done.stdout
