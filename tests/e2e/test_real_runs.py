"""Real runs of the real engine, through the command line, on a small synthetic model."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from bench.tiny_gguf import synthesize_tiny
from harness.core.record import Record
from harness.core.scenario import Scenario
from harness.measure.child import Limits
from harness.measure.jobs.generate import plan
from harness.measure.pipeline import How, Pipeline
from harness.measure.protocol import GenerateJob

pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
pytestmark = pytest.mark.engine

SCENARIO = Scenario(context_tokens=256, prompt_tokens=64, new_tokens=16, thread_count=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", "Q4_0")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "EDGE_HARNESS_HOME": str(tmp_path / "home"), "EDGE_HARNESS_CACHE": str(tmp_path / "cache")}


def verb(*arguments: str, environment: dict[str, str]) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "harness", *arguments, "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    document = json.loads(done.stdout)
    return done.returncode, done.stderr if "error" in document else document.get("items", document)


def length(session: Any, sequence: int) -> int:
    """Tokens of a sequence in the engine's cache."""
    last_position = session.lib.symbol("llama_memory_seq_pos_max")
    last_position.restype, last_position.argtypes = ctypes.c_int32, [ctypes.c_void_p, ctypes.c_int32]
    return int(last_position(session._memory, sequence)) + 1


def test_session_batches_agree_with_single_steps(tiny: Path) -> None:
    from harness.core.ports import Session
    from harness.runtimes.llamacpp.session import LlamaSession

    tokens = [3, 141, 59, 26, 5, 35]
    with LlamaSession(tiny, SCENARIO, sequence_count=2) as session:
        assert isinstance(session, Session)
        single = []
        for position, token in enumerate(tokens):
            session.decode([token], position=position)
            single.append(session.logits().copy())
        session.clear()
        session.decode(tokens, position=0, logits="all")
        together = session.all_logits()
        assert together.shape == (len(tokens), session.vocab_count)
        # One batch and single steps sum in another order; the answers are the same to rounding of the activations.
        for row, alone in zip(together, single, strict=True):
            assert np.corrcoef(row, alone)[0, 1] > 0.99
        assert np.array_equal(session.logits(2), together[2])
        assert np.array_equal(session.logits(), together[-1])

        session.fork(0, 1)
        session.truncate(3, sequence=1)
        assert [length(session, sequence) for sequence in (0, 1)] == [6, 3]
        session.decode_rows([7, 7], [6, 3], [0, 1])
        assert session.kept_count == 2
        session.clear()
        assert length(session, 0) == 0


def test_eval_hook_sees_the_graph(tiny: Path) -> None:
    from harness.runtimes.llamacpp.session import LlamaSession

    seen: list[bool] = []

    def hook(node: int, ask: bool) -> bool:
        assert node
        seen.append(ask)
        return True

    with LlamaSession(tiny, SCENARIO, eval_hook=hook) as session:
        session.decode([1, 2], position=0)
    assert seen.count(True) == seen.count(False) > 10


@pytest.mark.shared_machine
def test_run_writes_a_record_that_the_history_shows(tiny: Path, environment: dict[str, str]) -> None:
    options = ("-p", "64", "-n", "16", "-c", "256", "-r", "2", "-t", "1")

    status, records = verb("run", str(tiny), *options, environment=environment)

    assert status in {0, 3}, records  # 3: this machine was busy
    (record,) = records
    labels = {s["label"] for s in record["samples"]}
    assert {"load @ cold", "load", "pp64", "ttft64", "tg16"} <= labels
    timed = [s for s in record["samples"] if s["label"] == "tg16" and not s["warm_up"]]
    for s in timed:
        assert len(s["token_times_s"]) == 16
        assert abs(sum(s["token_times_s"]) - s["duration_s"]) < 0.01
    memory = record["memory"]
    # The weights are there, and little beside them and the interpreter.
    assert tiny.stat().st_size < memory["peak_rss_bytes"] < tiny.stat().st_size * 2 + (220 << 20)
    assert len(record["model"]["sha256"]) == 64
    assert record["engine"]["name"] == "llama.cpp"

    status, entries = verb("history", environment=environment)
    assert (status, [e["run_id"] for e in entries]) == (0, [record["run_id"]])
    status, again = verb("history", record["run_id"][:20], environment=environment)
    assert (status, again["records"][0]["samples"]) == (0, record["samples"])


@pytest.mark.shared_machine
def test_a_matrix_goes_on_after_files_that_no_engine_loads(
    tiny: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    short = tmp_path / "short.gguf"
    short.write_bytes(tiny.read_bytes()[: tiny.stat().st_size // 2])
    text = tmp_path / "text.gguf"
    text.write_text("no model at all, but long enough for a header")
    options = ("-p", "16", "-n", "4", "-c", "64", "-r", "1", "-t", "1")

    status, records = verb("run", str(short), str(text), str(tiny), *options, environment=environment)

    assert status == 4
    assert [r["outcome"] for r in records][:2] == ["refused", "refused"]
    assert records[2]["outcome"] in {"ok", "inconclusive"}
    assert all(r["detail"] for r in records[:2])


def run_while(tiny: Path, folder: Path, act: Any, **scenario: Any) -> Record:
    """Run a copy of the model, and do something to it after the first decode sample."""
    path = folder / "victim.gguf"
    path.write_bytes(tiny.read_bytes())
    done = threading.Event()

    def hear(event: str, data: Any) -> None:
        if event == "sample" and data["phase"] == "prefill" and not done.is_set():
            done.set()
            act(path)

    fields = {"context_tokens": 512, "prompt_tokens": 8, "new_tokens": 100, "thread_count": 1} | scenario
    job = GenerateJob(path=str(path), scenario=Scenario(**fields), repetitions=100, cold_loads=0)
    with Pipeline(How(keep=False, limits=Limits(wall_s=60))) as pipeline:
        return pipeline.measure(plan(job, None), on_event=hear)


@pytest.mark.shared_machine
def test_a_file_cut_under_the_mapping_is_a_recorded_crash(tiny: Path, tmp_path: Path) -> None:
    record = run_while(tiny, tmp_path, lambda path: os.truncate(path, 4096), repack=False)

    assert record.outcome == "crashed"
    assert "SIGBUS" in record.detail


@pytest.mark.shared_machine
def test_a_block_spoilt_in_mid_run_is_a_recorded_failure(tiny: Path, tmp_path: Path) -> None:
    from harness.models.gguf import read_gguf

    head = next(t for t in read_gguf(tiny).weights().tensors if t.name in {"output.weight", "token_embd.weight"})

    def spoil(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(head.offset_bytes)
            file.write(b"\xff" * 18)  # one Q4_0 block; its scale, 0xffff in half precision, is not a number

    record = run_while(tiny, tmp_path, spoil, repack=False)

    assert record.outcome == "failed"
    assert "1 of 512 logits are NaN or infinite" in record.detail


@pytest.mark.shared_machine
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the child in /proc")
def test_a_killed_child_is_recorded(tiny: Path, tmp_path: Path) -> None:
    def kill(_path: Path) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for pid in children:
            if "child_process.py" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(int(pid), signal.SIGKILL)

    record = run_while(tiny, tmp_path, kill)

    assert record.outcome == "crashed"
    assert "SIGKILL" in record.detail
    assert record.samples


@pytest.mark.shared_machine
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
@pytest.mark.parametrize("use_group", [True, False])
def test_a_memory_limit_is_recorded(tiny: Path, use_group: bool) -> None:
    limits = Limits(wall_s=60, memory_bytes=80 << 20, use_group=use_group)
    wide = Scenario(context_tokens=131072, prompt_tokens=2048, new_tokens=4, ubatch_tokens=2048, thread_count=1)

    with Pipeline(How(keep=False, limits=limits)) as pipeline:
        job = GenerateJob(path=str(tiny), scenario=wide, repetitions=1, cold_loads=0)
        record = pipeline.measure(plan(job, None))

    assert record.outcome == "out of memory", record.detail


@pytest.mark.shared_machine
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_the_run_and_the_record_says_so(
    tiny: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "harness", "run", str(tiny), "-r", "1000", "-n", "500", "--json"]
    # A shell's background jobs ignore Ctrl-C and so would their children: this one listens, wherever the tests run.
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509  nothing here has threads
    )
    until_s = time.monotonic() + 60
    while not psutil.Process(process.pid).children() and time.monotonic() < until_s:
        time.sleep(0.05)
    time.sleep(0.5)  # the child exists: the run is a run
    process.send_signal(number)
    out, err = process.communicate(timeout=60)

    assert process.returncode == 128 + number, err
    record = json.loads(out)["items"][0]
    assert (record["outcome"], record["detail"]) == ("interrupted", f"ended by {number.name}")
    status, entries = verb("history", environment=environment)
    assert (status, [e["outcome"] for e in entries][:1]) == (0, ["interrupted"])
