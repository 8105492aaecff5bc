"""What people ask `fit` next: the longest context, several devices, why it is slow, what it costs, what to type."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from harness.cli import cli


def fit(*words: str) -> Any:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(cli, ["fit", *words, "--no-advice"], standalone_mode=False)
    assert done.exception is None, done.exception
    return json.loads(done.stdout) if "--json" in words else done.stdout


@pytest.mark.parametrize(("model", "device"), [("llama-3.1-8b", "macbook-air-m3"), ("qwen3-8b", "rtx-4060-desktop")])
def test_the_longest_context_fits_and_a_longer_one_does_not(model: str, device: str) -> None:
    asked = (model, "-d", device, "--api", "metal" if "mac" in device else "cuda", "--json")
    found = fit(*asked, "-c", "max")
    longest = found["scenario"]["context_tokens"]
    assert found["prediction"]["verdict"]["word"] == "fits"
    assert longest % 256 == 0
    longer = fit(*asked, "-c", str(longest + 256))["prediction"]["verdict"]["word"]
    assert longer != "fits"


def test_a_small_model_has_the_context_it_was_made_for() -> None:
    assert fit("smollm2-135m", "-d", "rtx-4090-desktop", "-c", "max", "--json")["scenario"]["context_tokens"] == 8192


def test_several_devices_are_columns_of_what_each_says_alone() -> None:
    devices = ("rtx-4060-desktop", "macbook-air-m3")
    alone = [fit("llama-3.1-8b", "-d", name, "--json") for name in devices]
    together = fit("llama-3.1-8b", "-d", devices[0], "-d", devices[1], "--json")["items"]
    assert [one["prediction"] for one in together] == [one["prediction"] for one in alone]
    lines = fit("llama-3.1-8b", "-d", devices[0], "-d", devices[1]).splitlines()
    assert all(name in lines[0] for name in devices)
    assert next(line for line in lines if line.startswith("answer")).split()[1:] == ["Yes", "Yes"]


@pytest.mark.parametrize(
    ("measured", "says", "cause"),
    [
        (45, "as expected", ""),
        (9, "slower than expected", "all layers are run by the CPU"),
        (57, "faster than the memory", ""),
    ],
)
def test_a_measured_speed_is_explained(measured: float, says: str, cause: str) -> None:
    asked = ("llama-3.1-8b", "-d", "rtx-4060-desktop", "--measured", str(measured))
    decode = fit(*asked, "--json")["prediction"]["speed"]["decode_tokens_per_s"]
    found = fit(*asked, "--json")["measured"]["may_be"]
    assert (decode["low"] <= measured <= decode["high"]) == (says != "slower than expected")
    assert says == "faster than the memory" or says in fit(*asked)
    assert cause in "".join(one["cause"] for one in found)
    assert all(1 / 1.3 < one["tokens_per_s"] / measured < 1.3 for one in found)


def test_more_than_memory_can_deliver_is_a_fault_of_the_profile() -> None:
    assert "more than the memory can deliver" in fit("llama-3.1-8b", "-d", "rtx-4060-desktop", "--measured", "90")


def test_a_million_tokens_cost_their_joules() -> None:
    asked = ("llama-3.1-8b", "-d", "rtx-4060-desktop", "--price", "0.36,2")
    joules = fit(*asked, "--json")["energy"]["sustained_joules_per_token"]["mid"]
    line = next(line for line in fit(*asked).splitlines() if line.startswith("electricity of a million tokens"))
    # A joule a token is 1e6 J, a 3.6th of a kWh, for a million.
    assert float(line.split()[5]) == pytest.approx(joules * 0.1, rel=0.01)
    assert "2 elsewhere" in line


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (
            ("qwen3-30b-a3b", "-d", "rtx-4060-desktop"),
            "llama-server -hf unsloth/Qwen3-30B-A3B-GGUF:Q4_K_M -c 4096 -ngl 49 --n-cpu-moe",
        ),
        (
            ("qwen3-8b", "-d", "rtx-3090-desktop", "--kv-type", "q8_0", "--users", "4"),
            "llama-server -hf unsloth/Qwen3-8B-GGUF:Q4_K_M -c 4096 -ngl 37 -ctk q8_0 -ctv q8_0 -np 4 --kv-unified",
        ),
        (("qwen3-8b", "-d", "raspberry-pi-5-16gb"), "ollama run hf.co/unsloth/Qwen3-8B-GGUF:Q4_K_M"),
    ],
)
def test_the_command_to_copy(words: tuple[str, ...], command: str) -> None:
    assert any(command in line for line in fit(*words, "--json")["commands"])


def test_a_phone_has_no_command() -> None:
    assert fit("llama-3.2-1b", "-d", "iphone-16-pro", "--json")["commands"] == []


@pytest.mark.parametrize(
    ("context", "words", "read"),
    [
        (16384, (), "20 pages (13,000 tokens)"),
        (4096, (), "6 pages (3,900 tokens)"),  # 6 x 650 beside 128 new tokens and a turn of 64
        (2048, (), "2 pages (1,300 tokens)"),
        (1024, (), "a page (650 tokens)"),
        (16384, ("--users", "4"), "20 pages (13,000 tokens)"),
    ],
)
def test_one_user_reads_what_the_context_holds(context: int, words: tuple[str, ...], read: str) -> None:
    asked = ("llama-3.2-1b", "-d", "rtx-4090-desktop", "-c", str(context))
    alone, said = (
        next(line for line in fit(*asked, *more).splitlines() if line.startswith("It reads")) for more in ((), words)
    )
    assert said == alone
    assert said.startswith(f"It reads {read} in ")


def test_without_room_for_a_page_none_is_read() -> None:
    assert "It reads" not in fit("llama-3.2-1b", "-d", "rtx-4090-desktop", "-c", "768")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("llava:7b", "-d", "rtx-4090-desktop", "-c", "49152"),
            "Yes, without its image tower (mmproj), in a context lo",
        ),
        (("llava:7b", "-d", "pixel-8", "-c", "131072"), "No: "),
    ],
)
def test_a_context_that_a_model_was_not_made_for_is_told(words: tuple[str, ...], line: str) -> None:
    assert fit(*words).startswith(line)
    assert any("tokens it was made for" in note for note in fit(*words, "--json")["notes"])


@pytest.mark.parametrize(
    ("device", "words", "table"),
    [
        ("pixel-8", (), False),
        ("pixel-8", ("--verifier", "h100-sxm-server"), True),
        ("macbook-pro-m3-max", (), True),
    ],
)
def test_drafts_are_weighed_where_something_runs_them(device: str, words: tuple[str, ...], table: bool) -> None:
    said = fit("llama-3.3-70b", "-d", device, "--draft", "llama-3.2-1b", *words)
    assert ("speculation with" in said) is table
    assert not words or said.count("no draft") == 4  # 40 ms a cycle: the server alone writes a token in 23 ms
