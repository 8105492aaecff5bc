"""A draft here, the verifier on a real server: llama-cpp-python's own, a slow line, and servers that cannot."""

import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.faults.replay_server import page, replay
from bench.running_servers import running
from bench.tiny_gguf import synthesize_tiny
from bench.verifier_elsewhere import break_even_s
from harness.app.speculate import speculate
from harness.domain.record import RunRecord, result_of
from harness.domain.result import Speculation
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.measure.jobs.verify import VerifierJob, explain
from harness.measure.pipeline import How
from harness.predict.speculative import expected_tokens_per_cycle
from harness.runtimes.server import RUNTIME
from harness.runtimes.server.verifier import Verifier, is_text

pytestmark = pytest.mark.engine
pytest.importorskip("llama_cpp")
PROMPTS = ("def add(a, b):", "One, two, three", "The cat sat on", "for i in range(9):", "x = [1, 2, 3]")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A target, the same again as the best of all drafts, and a stranger with the same vocabulary."""
    folder = tmp_path_factory.mktemp("models")
    target, near = (synthesize_tiny(folder / name, "Q8_0", seed=3) for name in ("target.gguf", "near.gguf"))
    return target, near, synthesize_tiny(folder / "far.gguf", "Q4_0")


@pytest.fixture(scope="module", params=["echo_server", "llama-cpp-python"])
def url(models: tuple[Path, Path, Path], request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "llama-cpp-python":
        pytest.importorskip("uvicorn", reason="the extra `server` of llama-cpp-python is not installed")
        pytest.importorskip("sse_starlette")
    with running(request.param, models[0], threads=1) as address:
        yield address


def run(url: str, *drafts: Path, folder: Path, **given: object) -> tuple[RunRecord, Speculation]:
    job = VerifierJob(
        target=url, drafts=tuple(map(str, drafts)), prompts=PROMPTS, new_tokens=20, pilot_tokens=20,
        scenario=Scenario(context_tokens=512, thread_count=1), **given,
    )  # fmt: skip
    record = speculate(job, how=How(keep=False, wait=False, folder=folder))
    return record, result_of(record, Speculation)


@pytest.mark.parametrize("fixed", [0, 4])
def test_outputs_are_the_servers_own(url: str, models: tuple[Path, Path, Path], tmp_path: Path, fixed: int) -> None:
    record, result = run(url, models[1], folder=tmp_path, draft_tokens=fixed)
    assert record.outcome in {"ok", "inconclusive"}, record.detail
    assert (record.runtime, record.workload) == ("server", "speculate")
    assert result.unexplained_count == 0, result.differences
    assert len(result.ratios) == len(PROMPTS)
    assert result.draft == "near.gguf"
    assert result.advice.round_trip_s > 0
    assert result.speculative.decoded_count == result.plain.decoded_count or result.differences
    if fixed:  # the adaptive one may find on a busy machine that it does not pay
        assert result.speculative.drafted_count > 0
        assert result.acceptance_ratio > 0.9
    (kept,) = tmp_path.glob("*.json")
    assert '"kind":"speculation"' in kept.read_text().replace(" ", "")


def test_a_stranger_changes_no_output(url: str, models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, result = run(url, models[2], folder=tmp_path, draft_tokens=3)
    assert result.speculative.drafted_count > 0
    assert result.unexplained_count == 0, result.differences


def test_of_several_drafts_the_best_is_taken(url: str, models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, result = run(url, models[2], models[1], folder=tmp_path, draft_tokens=3)
    assert {result.draft, *result.advice.others} == {"near.gguf", "far.gguf"}
    assert result.advice.speedup_ratio >= max(result.advice.others.values())
    assert result.unexplained_count == 0, result.differences


def test_verified_tokens_are_those_of_plain_generation(url: str) -> None:
    """Right, wrong and half right drafts of what the server says by itself, at every length."""
    verifier = Verifier(RUNTIME.attach(url))
    source = random.Random(4)
    for prompt in PROMPTS:
        own: list[str] = []
        while len(own) < 8:
            (token,) = verifier.verify(prompt + "".join(own), "")
            if not is_text(token):
                break
            own.append(token)
        assert verifier.rest(prompt, len(own)).startswith("".join(own))
        for agreed in range(len(own)):
            wrong = next(c for c in source.sample("abcdefgh", 8) if not own[agreed].startswith(c))
            found = verifier.verify(prompt, "".join(own[:agreed]) + wrong + "z")
            assert found == own[: agreed + 1]


def test_where_answers_part_is_explained_or_not(url: str) -> None:
    verifier = Verifier(RUNTIME.attach(url))
    plain = verifier.rest(PROMPTS[0], 12)
    assert explain(verifier, PROMPTS[0], plain, plain) is None
    changed = plain[:3] + ("q" if plain[3] != "q" else "w") + plain[4:]
    difference = explain(verifier, PROMPTS[0], plain, changed)
    assert difference is not None
    assert (difference["at_characters"], difference["explained"]) == (3, False)


def test_a_long_line_turns_it_off(models: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """A tiny model makes tokens in far less than the line takes: the server's plain generation is the better one."""
    with running("echo_server", models[0], round_trip_ms=60.0, threads=1) as address:
        _, result = run(address, models[1], folder=tmp_path)
    assert 0.06 <= result.advice.round_trip_s < 0.2
    assert result.advice.draft_tokens == 0
    assert "do not speculate" in result.advice.words
    assert break_even_s(result.advice) < 0.06
    assert result.speculative.drafted_count == 0
    assert result.speculative.plain_count == result.speculative.cycle_count
    assert not result.differences


def test_break_even_is_where_the_law_gives_no_gain(models: tuple[Path, Path, Path]) -> None:
    """By hand: p = 50 ms a plain token, t(5) = 60 ms, d = 2 ms, acceptance 0.8; the lengths that were timed."""
    from harness.domain.drafting import DraftAdvice

    advice = DraftAdvice(
        draft_tokens=4, speedup_ratio=1.0, acceptance_ratio=0.8, ceiling_ratio=5.0,
        verify_s={1: 0.050, 5: 0.080}, draft_s=0.002, round_trip_s=0.020,
    )  # fmt: skip
    by_hand = 3.3616 * 0.050 / 1.03 - 4 * 0.002 - 0.060
    assert expected_tokens_per_cycle(0.8, 4) == pytest.approx(3.3616)
    assert break_even_s(advice, 4) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        ({"/v1/models": page({"data": [{"id": "m"}]})}, "gives no log-probabilities of a prompt"),
        (
            {
                "/v1/models": page({"data": [{"id": "m"}]}),
                "/v1/completions": page({"choices": [{"text": "One, two, three,", "logprobs": None}]}),
            },
            "gives no log-probabilities of a prompt",
        ),
        (
            {
                "/v1/models": page({"data": [{"id": "m"}]}),
                "/v1/completions": page({"error": {"message": "logprobs is not supported"}}, 500, reason="Error"),
            },
            "logprobs is not supported",
        ),
    ],
)
def test_a_server_that_cannot_is_refused(pages: dict, said: str) -> None:
    with replay(pages) as server, pytest.raises(RefusedError, match=said):
        Verifier(RUNTIME.attach(server.url))


def test_perplexity_is_of_the_second_half_of_each_chunk() -> None:
    """Chunks of 4 tokens: the fourth is scored, given the three before it; by hand from what the server tells."""
    told = {
        "a": -0.1,
        "b": -0.2,
        "c": -0.3,
        "d": -0.4,
        "e": -0.5,
        "f": -0.6,
        "g": -0.7,
        "h": -0.8,
        "i": -0.9,
        "j": -1.0,
    }

    def reply(connection: socket.socket, asked: dict) -> None:
        tokens = [*asked["prompt"].removeprefix("One, two, three")] or list("abc")
        tops = [None, *({t: told[t], "x": -2.0} for t in tokens[1:]), {"z": -0.1}]
        made = {"tokens": [*tokens, "z"], "top_logprobs": tops, "text_offset": [*range(len(tokens)), 99]}
        connection.sendall(page({"choices": [{"text": "z", "logprobs": made}]}))

    with replay({"/v1/models": page({"data": [{"id": "m"}]}), "/v1/completions": reply}) as server:
        verifier = Verifier(RUNTIME.attach(server.url))
        assert verifier.text_nll("abcdefghij", 2, chunk_tokens=4) == [0.4, 0.8]
        with pytest.raises(ValueError, match="fewer than 12"):
            verifier.text_nll("abcdefghij", 3, chunk_tokens=4)


def test_the_verb_refuses_what_has_no_meaning() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "speculate", "m", "--draft", "lookup", "--verifier", "http://127.0.0.1:9"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "expected a draft model, which --verifier needs" in done.stderr
