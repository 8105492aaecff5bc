"""Other engines for real: a server in a process of its own, ik_llama.cpp, llama.cpp's programs, on a tiny model."""

import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.core.record import Record
from harness.core.result import Generation, Load
from harness.core.scenario import Scenario
from harness.measure.jobs import generate, load, served
from harness.measure.pipeline import How, Pipeline
from harness.measure.protocol import GenerateJob
from harness.runtimes import executable
from harness.runtimes.server import RUNTIME as SERVER
from harness.runtimes.server.pieces import Request
from harness.runtimes.server.stream import ServerError

pytestmark = pytest.mark.engine
SCENARIO = Scenario(context_tokens=256, prompt_tokens=12, new_tokens=6, thread_count=1)
SERVE = """
import sys, time, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.n_ctx, p.n_parallel, p.port, p.cpuparams.n_threads = sys.argv[1], 1024, 2, int(sys.argv[2]), 1
server = xllamacpp.Server(p)
print("serving", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", "Q4_0")


def start(tiny: Path, port: int) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tiny), str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(b"serving"):
            return process
    raise AssertionError("the server did not start")


@pytest.fixture(scope="module")
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def url(tiny: Path, port: int):
    pytest.importorskip("xllamacpp", reason="xllamacpp, whose wheel has llama.cpp's server, is not installed")
    process = start(tiny, port)
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


def measured(planned, tmp_path: Path) -> Record:
    with Pipeline(How(keep=False, folder=tmp_path)) as pipeline:
        return pipeline.measure(planned)


def test_server_describes_itself_and_is_found_by_its_port(url: str) -> None:
    attached = SERVER.attach(url)
    d = attached.described
    assert (d.software, d.model, d.quant, d.vocab_count, d.slot_count) == ("llama-server", "tiny.gguf", "Q4_0", 512, 2)
    assert attached.local
    assert attached.pid is not None
    assert "python" in Path(f"/proc/{attached.pid}/cmdline").read_text() if sys.platform == "linux" else True


@pytest.mark.shared_machine
def test_server_run_is_a_record_like_any_other(url: str, tmp_path: Path) -> None:
    job = served.ServedJob(url=url, scenario=SCENARIO, repetitions=2, patience_s=5.0)
    record = measured(served.plan(job), tmp_path)
    assert record.outcome in {"ok", "inconclusive"}, record.detail
    assert record.model is not None
    assert (record.runtime, record.model.name, record.model.quant) == ("server", "tiny.gguf", "Q4_0")
    labels = {s.label for s in record.samples}
    assert {"pp12", "ttft12"} <= labels
    for sample in record.samples:
        assert not any("tokens" in d and "wanted" in d for d in sample.validity.doubts), sample
        if sample.phase == "decode" and not sample.warm_up:
            assert (sample.token_count, len(sample.token_times_s)) == (6, 6)
            assert sum(sample.token_times_s) == pytest.approx(sample.duration_s)
        if sample.phase == "first_token":
            # The way to the server adds to its own time for the prompt, and never takes away.
            own = [p for p in record.samples if p.phase == "prefill" and p.started_unix_s == sample.started_unix_s]
            assert sample.duration_s >= own[0].duration_s
    assert record.memory is not None
    assert record.memory.peak_rss_bytes > tiny_bytes(record)
    assert isinstance(record.result, Generation)


def tiny_bytes(record: Record) -> int:
    assert record.model is not None
    return record.model.size_bytes


def test_server_answers_as_the_engine_in_process(url: str, tiny: Path) -> None:
    pytest.importorskip("llama_cpp")
    from harness.runtimes.llamacpp import RUNTIME as LLAMACPP

    prompt = tuple(random.Random(3).randrange(3, 500) for _ in range(12))
    text = SERVER.attach(url).ask(Request(prompt=prompt, new_tokens=6)).text
    with LLAMACPP.open(tiny, SCENARIO) as session:
        session.decode(prompt, position=0)
        tokens: list[int] = []
        for i in range(6):
            tokens.append(session.greedy())
            session.decode(tokens[-1:], position=12 + i)
        expected = session.detokenize(tokens)
    assert text.split() == expected.split()


def test_prefix_cache_is_never_used(url: str) -> None:
    attached = SERVER.attach(url)
    prompt = tuple(random.Random(5).randrange(3, 500) for _ in range(64))
    assert attached.ask(Request(prompt=prompt, new_tokens=1)).cached_tokens == 0
    assert attached.ask(Request(prompt=prompt, new_tokens=1)).cached_tokens == 0


@pytest.mark.shared_machine
def test_a_closed_exchange_frees_the_servers_slot(url: str) -> None:
    attached = SERVER.attach(url)
    endpoint = attached.dialect.endpoint
    body = attached.dialect.body(Request(prompt=(5, 6, 7), new_tokens=400))
    with endpoint.exchange("/completion", body) as sent:
        next(sent.lines())
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        slots = json.load(urllib.request.urlopen(f"{attached.dialect.endpoint and url}/slots", timeout=5))
        if not any(slot["is_processing"] for slot in slots):
            return
        time.sleep(0.1)
    raise AssertionError("the server still computes an answer that nobody reads")


@pytest.mark.shared_machine
def test_load_on_a_real_server(url: str, tmp_path: Path) -> None:
    lengths = {"prompt_tokens": (4, 8), "new_tokens": (4, 4)}
    job = load.LoadJob(url=url, levels=(1.0, 2.0), request_count=4, **lengths)
    record = measured(load.plan(job), tmp_path)
    assert isinstance(record.result, Load), record.detail
    assert [level.completed_count for level in record.result.levels] == [4, 4]
    assert all(level.new_tokens == 16 and not level.failures for level in record.result.levels)
    assert all(4 * 4 <= level.prompt_tokens <= 4 * 8 for level in record.result.levels)
    assert record.memory is not None
    attached = SERVER.attach(url)
    assert record.memory.peak_rss_bytes == pytest.approx(psutil.Process(attached.pid).memory_info().rss, rel=0.5)


def test_a_server_that_is_killed_and_comes_back(tiny: Path) -> None:
    pytest.importorskip("xllamacpp")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    first = start(tiny, port)
    attached = SERVER.attach(f"http://127.0.0.1:{port}")
    first.kill()
    first.wait()
    with pytest.raises(ServerError, match="nothing answers") as gone:
        attached.ask(Request(prompt=(5, 6), new_tokens=1))
    assert gone.value.outcome == "refused"
    second = start(tiny, port)
    try:
        assert SERVER.attach(f"http://127.0.0.1:{port}").ask(Request(prompt=(5, 6), new_tokens=1)).new_tokens == 1
    finally:
        second.kill()
        second.wait()


def test_ik_runs_the_same_session(tiny: Path) -> None:
    pytest.importorskip("ik_llama_cpp", reason="ik-llama-cpp-python is not installed")
    # Two libraries of one ancestry in one process: each has its symbols to itself.
    from harness.runtimes.ik import RUNTIME as IK
    from harness.runtimes.llamacpp import RUNTIME as LLAMACPP

    scenario = Scenario(context_tokens=256, thread_count=1, batch_count=2)
    prompt = [5, 9, 14, 20, 9, 14]
    with IK.open(tiny, scenario) as ik, LLAMACPP.open(tiny, scenario) as usual:
        for session in (ik, usual):
            session.decode(prompt, position=0)
        assert ik.vocab_count == usual.vocab_count
        assert ik.detokenize(prompt) == usual.detokenize(prompt)
        assert ik.tokenize(ik.detokenize(prompt)) == usual.tokenize(usual.detokenize(prompt))
        ours, theirs = ik.logits().copy(), usual.logits().copy()
        assert np.corrcoef(ours, theirs)[0, 1] > 0.99  # its kernels round activations otherwise
        ik.truncate(5)
        ik.decode(prompt[5:], position=5)
        assert np.allclose(ik.logits(), ours, atol=1e-4)
        for session in (ik, usual):
            session.fork(0, 1)
            for _ in range(2):  # cut there, it can be done again
                session.decode_rows([7, 9], [6, 6], [0, 1])
                together = session.all_logits().copy()
                session.truncate(6)
                session.truncate(6, sequence=1)
            for token, row in zip((7, 9), together, strict=True):
                session.decode([token], position=6)
                assert np.allclose(session.logits(), row, atol=2e-2 * np.abs(row).max())
                session.truncate(6)


@pytest.mark.shared_machine
def test_ik_through_the_pipeline(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("ik_llama_cpp")
    job = GenerateJob(path=str(tiny), scenario=SCENARIO, runtime="ik", repetitions=1, cold_loads=0, patience_s=0.1)
    planned = generate.plan(job, None)
    record = measured(planned, tmp_path)
    assert record.outcome in {"ok", "inconclusive"}, record.detail
    assert record.engine is not None
    assert record.engine.name == "ik_llama.cpp"


HAVE_PROGRAMS = executable.program("llama-bench") is not None


@pytest.mark.shared_machine
@pytest.mark.skipif(not HAVE_PROGRAMS, reason=f"no llama-bench: set {executable.FOLDER_VARIABLE}")
@pytest.mark.parametrize(
    ("scenario", "labels"),
    [
        (SCENARIO, {"pp12", "tg6"}),
        (Scenario(context_tokens=256, prompt_tokens=12, new_tokens=6, depth_tokens=8), {"pp12 @ d8", "tg6 @ d8"}),
    ],
)
def test_programs_give_their_raw_samples(tiny: Path, tmp_path: Path, scenario: Scenario, labels: set[str]) -> None:
    # So many that the program outlasts a period of the memory watch.
    job = GenerateJob(path=str(tiny), scenario=scenario, runtime="executable", repetitions=40, patience_s=60.0)
    planned = generate.plan(job, None)
    record = measured(planned, tmp_path)
    assert record.outcome in {"ok", "inconclusive"}, record.detail
    found = {s.label for s in record.samples}
    assert found <= labels
    assert found
    if record.outcome == "ok":
        assert found == labels
    assert record.memory is not None
    assert record.memory.peak_rss_bytes > 2_000_000


@pytest.mark.skipif(not HAVE_PROGRAMS, reason=f"no llama-bench: set {executable.FOLDER_VARIABLE}")
def test_a_program_that_refuses_a_file_is_a_recorded_refusal(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + os.urandom(64))
    job = GenerateJob(path=str(broken), scenario=SCENARIO, runtime="executable", repetitions=1)
    record = measured(generate.plan(job, None), tmp_path)
    assert record.outcome == "refused"
    assert "llama-bench ended with status" in record.detail


def test_first_tokens_that_are_no_character_are_not_lost(url: str) -> None:
    """Every tenth answer of a random model begins with bytes of an unfinished character, sent at its end, or never."""
    attached = SERVER.attach(url)
    asked = (Request(prompt=(token,), new_tokens=7) for token in range(3, 500))
    late = next(r.prompt for r in asked if attached.ask(r).counts[0] > 1)
    told: list = []
    job = served.ServedJob(url=url, scenario=SCENARIO, repetitions=1)
    run = served.Served(job, attached, lambda name, data: told.append((name, data)))
    usual, prompts = attached.prompt, [late, late]
    attached.prompt = lambda *a, **k: prompts.pop() if prompts else usual(*a, **k)
    run._answer(warm_up=False)
    assert not prompts
    ((_, sample),) = told
    assert (sample.token_count, len(sample.token_times_s)) == (6, 6)
