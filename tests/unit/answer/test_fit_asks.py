"""What people ask `fit` next: the longest context, several devices, why it is slow, what it costs, what to type."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from harness.answer.answer import answer
from harness.answer.resolve import resolve_device
from harness.cli import cli
from harness.core.program import program_named
from harness.core.question import Question


def fit(*words: str) -> Any:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(cli, ["fit", *words, "--no-advice"], standalone_mode=False)
    assert done.exception is None, done.exception
    return json.loads(done.stdout) if "--json" in words else done.stdout


def one_line(*words: str) -> str:
    return " ".join(fit(*words).split())


@pytest.mark.parametrize(("model", "device"), [("llama-3.1-8b", "macbook-air-m3"), ("qwen3-8b", "rtx-4060-desktop")])
def test_the_longest_context_fits_and_a_longer_one_does_not(model: str, device: str) -> None:
    asked = (model, "-d", device, "--api", "metal" if "mac" in device else "cuda", "--json")
    found = fit(*asked, "-c", "max")
    longest = found["scenario"]["context_tokens"]
    assert found["prediction"]["verdict"]["word"] == "fits"
    assert longest % 256 == 0
    assert fit(*asked[:-1], "-c", "max").startswith("Yes.")
    assert not fit(*asked[:-1], "-c", str(longest + 256)).startswith("Yes.")


def test_a_small_model_has_the_context_it_was_made_for() -> None:
    assert fit("smollm2-135m", "-d", "rtx-4090-desktop", "-c", "max", "--json")["scenario"]["context_tokens"] == 8192


def test_several_devices_are_columns_of_what_each_says_alone() -> None:
    devices = ("rtx-4060-desktop", "macbook-air-m3")
    alone = [fit("llama-3.1-8b", "-d", name, "--json") for name in devices]
    together = fit("llama-3.1-8b", "-d", devices[0], "-d", devices[1], "--json")["items"]
    assert [one["prediction"] for one in together] == [one["prediction"] for one in alone]
    lines = fit("llama-3.1-8b", "-d", devices[0], "-d", devices[1]).splitlines()
    assert "RTX 4060" in lines[0]  # the faster one
    heads = next(line for line in lines if "MacBook Air M3" in line and not line.startswith("RTX"))
    assert heads.index("RTX 4060") < heads.index("MacBook Air M3")  # in the order asked for


@pytest.mark.parametrize(
    ("measured", "says", "cause"),
    [
        (45, "as expected", ""),
        (9, "of the likeliest", "the CPU computes"),
        (62, "The memory cannot deliver that", ""),
    ],
)
def test_a_measured_speed_is_explained(measured: float, says: str, cause: str) -> None:
    asked = ("llama-3.1-8b", "-d", "rtx-4060-desktop", "--measured", str(measured))
    decode = fit(*asked, "--json")["prediction"]["speed"]["decode_tokens_per_s"]
    found = fit(*asked, "--json")["measured_speed"]
    assert (decode["low"] <= measured <= decode["high"]) == (says == "as expected")
    assert says in found["says"]
    assert cause in "".join(one["cause"] for one in found["may_be"])
    # what does not fit is dropped: a figure may lie outside by a tenth, as figures are rounded
    for one in found["may_be"]:
        assert one["tokens_per_s"]["low"] / 1.11 <= measured <= one["tokens_per_s"]["high"] * 1.11


def test_more_than_memory_can_deliver_is_a_fault_of_the_profile() -> None:
    assert "The memory cannot deliver that" in one_line("llama-3.1-8b", "-d", "rtx-4060-desktop", "--measured", "90")


def test_a_million_tokens_cost_their_joules() -> None:
    asked = ("llama-3.1-8b", "-d", "rtx-4060-desktop", "--price", "0.36,2")
    joules = fit(*asked, "--json")["energy"]["sustained_joules_per_token"]["mid"]
    line = next(line for line in fit(*asked).splitlines() if "A million tokens cost" in line)
    # A joule a token is 1e6 J, a 3.6th of a kWh, for a million.
    assert float(line.split()[4]) == pytest.approx(joules * 0.1, rel=0.05)
    assert fit(*asked, "--json")["electricity"]["mid"] == pytest.approx(joules * 0.1)
    assert "2 elsewhere" in " ".join(fit(*asked).split())


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (
            ("qwen3-30b-a3b", "-d", "rtx-4060-desktop"),
            "llama-server -hf unsloth/Qwen3-30B-A3B-GGUF:Q4_K_M -c 4096 -ngl all --n-cpu-moe",
        ),
        (
            ("qwen3-8b", "-d", "rtx-3090-desktop", "--kv-type", "q8_0", "--users", "4"),
            "llama-server -hf unsloth/Qwen3-8B-GGUF:Q4_K_M -c 4096 -ngl all -ctk q8_0 -ctv q8_0 -np 4",
        ),
        (("qwen3-8b", "-d", "raspberry-pi-5-16gb"), "ollama run hf.co/unsloth/Qwen3-8B-GGUF:Q4_K_M"),
    ],
)
def test_the_command_to_copy(words: tuple[str, ...], command: str) -> None:
    assert any(command in line for line in fit(*words, "--json")["commands"])


@pytest.mark.parametrize(
    ("words", "shown", "command"),
    [
        (("llama-3.1-8b", "-q", "UD-Q4_K_XL"), "UD-Q4_K_XL", "-m llama-3.1-8b-UD-Q4_K_XL.gguf"),
        (("qwen3-8b", "-q", "UD-Q4_K_XL"), "UD-Q4_K_XL", "-hf unsloth/Qwen3-8B-GGUF:UD-Q4_K_XL"),  # its uploader's own
        (("llama-3.1-8b", "-q", "4bit"), "4bit", "-m llama-3.1-8b-4bit.gguf"),
        (("llama-3.1-8b", "-q", "q4_k_m"), "Q4_K_M", "-hf bartowski/Meta-Llama-3.1-8B-Instruct-GGUF:Q4_K_M"),
        (("llama-3.1-8b", "-q", "Q5_1"), "Q5_1", "-m llama-3.1-8b-Q5_1.gguf"),  # a rare one
        (("NousResearch/Hermes-3-Llama-3.1-8B:Q8_0",), "Q8_0", "-m Hermes-3-Llama-3.1-8B-Q8_0.gguf"),
        (("gpt-oss-20b",), "MXFP4_MOE", "-hf ggml-org/gpt-oss-20b-GGUF:MXFP4 "),  # the file ends in -MXFP4.gguf
    ],
)
def test_the_answer_and_the_command_are_of_what_was_asked_for(words: tuple[str, ...], shown: str, command: str) -> None:
    found = fit(*words, "-d", "rtx-3090-desktop", "--json")
    assert found["quant"] == found["prediction"]["quant"] == shown
    (line, *more) = found["commands"]
    assert command in line
    assert not more or "-hf" in command  # Ollama fetches by the same tag


def test_a_cpu_beside_a_card_takes_none_of_its_power() -> None:
    asked = ("llama-3.2-1b", "-d", "rtx-4090-desktop")
    by_card, by_cpu = (fit(*asked, "--api", api, "--json")["energy"] for api in ("cuda", "cpu"))
    assert "power of this device: 450 W" in by_card["evidence"]
    assert by_cpu["scope"].startswith("processor")
    assert "450 W" not in by_cpu["evidence"]


def test_another_version_of_a_card_is_named_and_said() -> None:
    first = " ".join(fit("glm-4.6", "-d", "epyc 9554, 12x64GB ddr5-4800").split())
    assert "glm-4.6 (read as GLM-4.7)" in first
    plain = fit("glm-4.7", "-d", "epyc 9554, 12x64GB ddr5-4800", "--json")
    assert plain["model"]["asked_name"] == ""
    assert (
        plain["prediction"]["speed"]
        == fit("glm-4.6", "-d", "epyc 9554, 12x64GB ddr5-4800", "--json")["prediction"]["speed"]
    )


@pytest.mark.parametrize(
    "words",
    [
        ("gemma-3-27b", "-d", "rtx 3090", "--kv-type", "q8_0"),  # a type that ollama has from its environment
        ("qwen3-8b", "-d", "rtx 3090", "--users", "8"),
        ("qwen3-8b", "-d", "rtx 3090", "--api", "vulkan"),
        ("qwen3-8b", "-d", "rtx 3090", "--placement", "-ngl 20"),
        ("gpt-oss-120b", "-d", "h100 80gb"),  # 59 GiB: in parts
    ],
)
def test_ollama_is_named_only_where_it_does_the_same(words: tuple[str, ...]) -> None:
    lines = fit(*words, "--json")["commands"]
    assert len(lines) == 1 and lines[0].startswith("llama-server")


def test_users_with_caches_of_their_own_are_told_so() -> None:
    """Eight of 640 tokens each, rounded up to 768 cells of 128 KiB: 768 MiB."""
    found = fit("llama-3.1-8b", "-d", "jetson orin nano", "--users", "8", "--json")
    (cache,) = (part for part in found["prediction"]["memory"]["parts"] if part["kind"] == "kv cache")
    assert cache["anonymous_bytes"] >> 20 == 768
    assert found["commands"][0].endswith("-np 8") or " -np 8 --c" in found["commands"][0]
    assert "--kv-unified" not in found["commands"][0]


@pytest.mark.parametrize(
    ("model", "device"),
    [
        ("gemma-3-4b", "raspberry pi 5 8gb"),
        ("gemma-3-4b", "macbook air m2 16gb"),
        ("gemma-3-12b", "macbook air m2 16gb"),  # one state of each slot, 4 x 320 MiB, takes more than half of 2.3 GiB
        ("gemma-3-4b", "rtx 3090 + 64gb"),
    ],
)
def test_what_a_server_adds_over_turns_has_room(model: str, device: str) -> None:
    found = fit(model, "-d", device, "--json")
    words = found["commands"][0].split()
    parts, program = found["prediction"]["memory"]["parts"], program_named("llama-server")
    held = sum(part["anonymous_bytes"] + part["file_bytes"] for part in parts if part["pool"] == "ram")
    held -= sum(part["anonymous_bytes"] for part in parts if part["kind"] == "repacked weights")  # originals may go
    later = {part["kind"]: part["anonymous_bytes"] for part in found["prediction"]["memory"]["later"]}
    kept = {flag: int(words[words.index(flag) + 1]) for flag in ("--ctx-checkpoints", "--cache-ram") if flag in words}
    adds = later.get("checkpoints", 0) / program.checkpoints * kept.get("--ctx-checkpoints", program.checkpoints)
    adds += kept.get("--cache-ram", program.cache_ram_mib) * 2**20
    usable = resolve_device(device).pool("ram").usable_bytes.value
    assert held + adds <= usable
    assert bool(kept) == ("64gb" not in device)
    assert kept.get("--ctx-checkpoints", 1) > 0


def test_a_full_context_is_told_where_one_was_asked_for() -> None:
    asked = ("llama-3.1-8b", "-q", "Q5_1", "-d", "rtx 3060", "--kv-type", "q8_0")
    full = fit(*asked, "-c", "128k", "--json")["by_depth"][-1]
    assert full["tokens"] == 130_944
    assert f"{full['decode_tokens_per_s']['mid']:.2g} after 130,944 tokens" in fit(*asked, "-c", "128k")
    assert " tokens\n" not in fit(*asked)


def test_a_wanted_speed_is_held_against_the_one_after_the_minutes() -> None:
    found = fit("llama-3.1-8b", "-d", "rtx 3060", "--min-speed", "100", "--minutes", "10", "--json")
    reason = next(text for text in found["prediction"]["verdict"]["reasons"] if text.endswith("100 wanted")).split()
    assert float(reason[0]) == pytest.approx(found["sustained"]["tokens_per_s"]["mid"], rel=0.01)


def test_a_phone_has_no_command() -> None:
    assert fit("llama-3.2-1b", "-d", "iphone-16-pro", "--json")["commands"] == []


@pytest.mark.parametrize(
    ("context", "words", "tokens"),
    [
        (16384, (), 13_000),
        (4096, (), 3900),  # 6 pages of 650 beside 128 new tokens and a turn of 64
        (2048, (), 1300),
        (1024, (), 650),
        (16384, ("--users", "4"), 3900),  # each has a quarter of the context
    ],
)
def test_one_user_reads_what_the_context_holds(context: int, words: tuple[str, ...], tokens: int) -> None:
    found = fit("llama-3.2-1b", "-d", "rtx-4090-desktop", "-c", str(context), *words, "--json")
    document = next(one for one in found["reading"] if one["kind"] == "document")
    assert document["tokens"] == tokens


def test_without_room_for_a_page_none_is_read() -> None:
    assert fit("llama-3.2-1b", "-d", "rtx-4090-desktop", "-c", "768", "--json")["reading"] == []


@pytest.mark.parametrize("device", ["rtx-4090-desktop", "pixel-8"])
def test_a_context_that_a_model_was_not_made_for_is_told(device: str) -> None:
    found = fit("llava:7b", "-d", device, "-c", "49152", "--json")
    assert "longer than the 32,768 it was made for" in found["notes"][0]


@pytest.mark.parametrize(
    ("device", "table"),
    [
        ("pixel-8", False),
        ("macbook-pro-m3-max", True),
    ],
)
def test_drafts_are_weighed_where_something_runs_them(device: str, table: bool) -> None:
    found = fit("llama-3.3-70b", "-d", device, "--draft", "llama-3.2-1b", "--json")["speculation"]
    assert (found is not None) is table


@pytest.mark.parametrize(
    ("head", "flags"),
    [("mtp", "--spec-type draft-mtp"), ("mtp:2", "--spec-type draft-mtp --spec-draft-n-max 2")],
)
def test_a_head_is_in_the_command(head: str, flags: str) -> None:
    assert flags in fit("qwen3.6-27b", "-d", "rtx 3090", "--draft", head, "--json")["commands"][0]


@pytest.mark.parametrize(
    ("program", "begins"),
    [
        ("ollama", "ollama run hf.co/unsloth/Qwen3-8B-GGUF:Q4_K_M"),
        (
            "llama-server -np 2 --cache-ram 0",
            "llama-server -hf unsloth/Qwen3-8B-GGUF:Q4_K_M -c 4096 -ngl all -np 2 --c",
        ),
        ("llama-cli", "llama-cli -hf unsloth/Qwen3-8B-GGUF:Q4_K_M"),
    ],
)
def test_a_program_has_its_own_command(program: str, begins: str) -> None:
    (line, *_) = fit("qwen3-8b", "-d", "rtx 3090", "--program", program, "--json")["commands"]
    assert line.startswith(begins)


@pytest.mark.parametrize(
    ("program", "device", "says"),
    [("mlx", "rtx 3090", "runs on Apple's GPUs"), ("exllama", "rtx 3090", "no program named 'exllama'")],
)
def test_a_program_that_cannot_run_there_is_refused(program: str, device: str, says: str) -> None:
    done = CliRunner().invoke(cli, ["fit", "qwen3-8b", "-d", device, "--program", program], standalone_mode=False)
    assert says in str(done.exception)


def test_each_program_has_an_answer_of_its_own() -> None:
    programs = ("ollama", "mlx", "koboldcpp", "llama-server")
    found = [fit("qwen3-8b", "-d", "macbook air m3", "--program", name, "--json") for name in programs]
    assert len({json.dumps(one["prediction"]) for one in found}) == len(programs)
    assert found[-1]["prediction"] == fit("qwen3-8b", "-d", "macbook air m3", "--json")["prediction"]


@pytest.mark.parametrize(
    ("program", "device", "words"),
    [
        ("ollama", "rtx-4090-desktop", ("qwen3-8b", "--kv-type", "q8_0")),
        ("ollama", "rtx-4090-desktop", ("qwen3-8b", "--users", "4")),
        ("ollama", "rtx-4090-desktop", ("qwen3-8b", "--draft", "qwen3-0.6b")),
        ("lm-studio", "rtx-4090-desktop", ("qwen3-8b",)),
        ("llama-server", "raspberry-pi-5", ("gpt-oss-20b", "--kv-type", "q8_0")),
        ("llama-server", "raspberry-pi-5", ("gpt-oss-20b", "--users", "2")),
    ],
)
def test_no_command_is_shown_that_would_not_do_what_was_predicted(
    program: str, device: str, words: tuple[str, ...]
) -> None:
    assert fit(*words, "-d", device, "--program", program, "--json")["commands"] == []


def test_an_encoder_is_not_compared_with_a_model_that_writes() -> None:
    done = CliRunner().invoke(cli, ["fit", "bge-m3", "qwen3-8b", "-d", "rtx-4090-desktop"], standalone_mode=False)
    assert "compared with encoders only" in str(done.exception)


def test_streaming_is_told_the_threads_that_were_asked_for() -> None:
    (line,) = fit("gpt-oss-20b", "-d", "raspberry-pi-5", "-t", "2", "--json")["commands"]
    assert line.startswith("edge-harness stream ") and line.endswith(" -t 2")


BENCH_FLAGS = {
    *(
        "-hf",
        "-m",
        "-p",
        "-n",
        "-d",
        "-b",
        "-ub",
        "-ctk",
        "-ctv",
        "-t",
        "-ngl",
        "--n-gpu-layers",
        "-ncmoe",
        "--n-cpu-moe",
    ),
    *("-sm", "-mg", "-nkvo", "-fa", "-dev", "-lm", "-ts", "-ot", "--repack"),
}
"""Flags of llama-bench that a command may use. Source: its --help."""


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"depth_tokens": 4096},
        {"without": ("flash-attention", "repack", "mmap")},
        {"kv_type": "Q8_0"},
        {"api": "cpu", "thread_count": 4},
    ],
)
def test_llama_bench_is_told_only_what_it_knows(fields: dict[str, object]) -> None:
    (line,) = answer(
        Question(model="gpt-oss-20b", device="rtx 4060 + 32GB", program="llama-bench", **fields), advises=False
    ).commands
    assert {word for word in line.split() if word.startswith("-")} <= BENCH_FLAGS
    assert "all" not in line.split()


def test_a_head_that_no_card_names_is_an_assumption() -> None:
    notes = answer(Question(model="llama-3.1-8b", device="rtx 3090", draft="mtp"), advises=False).notes
    assert any("MTP head" in note for note in notes)


def test_a_table_that_stays_on_disk_is_said() -> None:
    # 320,001,536 rows of 160 weights. Source: the header of the published file.
    notes = answer(Question(model="qwen3.8-flash-next", device="m3 ultra 96GB", quant="Q4_K_M"), advises=False).notes
    assert "table of n-grams stays on disk" in notes[0]
