"""A target over SSH: the real ssh program to a real server on the loopback address."""

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.tiny_gguf import synthesize_tiny
from harness.cli import cli
from harness.core.errors import CouldNotRunError, RefusedError
from harness.measure.targets import target_named
from harness.measure.targets.shell import ShellTarget
from harness.records.history import History
from harness.records.store import load
from tests.e2e.ssh_server import NEEDS, serving

pytest.importorskip("asyncssh")
pytestmark = pytest.mark.skipif(not NEEDS, reason="needs ssh")


@pytest.fixture
def port(tmp_path, monkeypatch):
    with serving(tmp_path) as server:
        config = f"IdentityFile {tmp_path}/me\nUserKnownHostsFile {tmp_path}/known_hosts\n"
        (tmp_path / "config").write_text(config)
        # OpenSSH takes its configuration from the home in the user database: the real program, told another file.
        (tmp_path / "bin/ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path}/config "$@"\n')
        (tmp_path / "bin/ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
        yield server.port


@pytest.mark.shared_machine
def test_push_run_and_lose_a_machine_behind_ssh(tmp_path: Path, port: int):
    target = target_named(f"ssh://root@127.0.0.1:{port}", folder=str(tmp_path / "pushed here"))
    data = os.urandom(3 << 20)
    (tmp_path / "it's a model.gguf").write_bytes(data)
    place = target.put(tmp_path / "it's a model.gguf", hashlib.sha256(data).hexdigest())
    assert Path(place).read_bytes() == data
    running = target.start(["sh", "-c", "echo 'a  b'; echo told >&2; exit 3"])
    assert [line for _, line in running.told()] == ["told"]
    assert running.finish(10) == (3, "a  b\n")
    lost = target.start(["sleep", "300"])
    lost.process.kill()
    end = time.monotonic() + 6
    while Path(f"/proc/{lost.pid}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{lost.pid}").exists()


def test_a_release_is_pushed_with_the_libraries_beside_its_program(tmp_path: Path):
    """As it is unpacked: three names of one library, and a program that says where it looks for them."""
    release = tmp_path / "release"
    release.mkdir()
    (release / "llama-bench").write_text('#!/bin/sh\nls "$LD_LIBRARY_PATH"; echo "$@"\n')
    for name in ("libggml.so", "libggml.so.0", "libggml.so.0.20.0"):
        (release / name).write_bytes(b"library")
    target = target_named("local", folder=str(tmp_path / "there"))
    words = target.put_program(release / "llama-bench")
    found = subprocess.run([*words, "-p 1"], capture_output=True, text=True, check=True).stdout.split("\n")
    assert found[:5] == ["libggml.so", "libggml.so.0", "libggml.so.0.20.0", "llama-bench", "-p 1"]
    assert len(list((tmp_path / "there").glob("*libggml*"))) == 1  # the same bytes went once
    (tmp_path / "alone").write_bytes(b"")
    assert len(target.put_program(tmp_path / "alone")) == 1


def test_a_host_that_is_not_known_and_one_that_is_not_there(tmp_path: Path, port: int):
    (tmp_path / "known_hosts").write_text("")
    with pytest.raises(CouldNotRunError, match="Host key verification failed"):
        target_named(f"ssh://root@127.0.0.1:{port}").shell("true")
    with pytest.raises(CouldNotRunError, match="refused"):
        target_named("ssh://root@127.0.0.1:1").shell("true")


def test_a_script_that_says_much_before_its_output_is_heard_out():
    """A pipe holds 64 KiB: who reads the output first would wait for ever for one that writes its errors first."""
    much = "head -c 300000 /dev/zero | tr '\\0' x >&2; echo done"
    assert ShellTarget("here", ["sh", "-c"]).shell(much, timeout_s=20) == "done\n"


@pytest.mark.shared_machine
def test_an_interrupted_command_holds_nobody_up():
    """Ctrl-C ends this program at once, and not after the time that the command was given."""
    # What is started in the background of a shell ignores Ctrl-C, and hands that on to its children.
    code = """
import signal
from harness.measure.targets.shell import ShellTarget
signal.signal(signal.SIGINT, signal.default_int_handler)
print(flush=True)
ShellTarget("here", ["sh", "-c"]).shell("sleep 30")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None and process.stdout.readline() == b"\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=15) != 0


QUICK = ("--runtime", "fake", "-c", "256", "-p", "16", "-n", "4", "-t", "1", "-r", "1", "--cold-loads", "0")


@pytest.fixture
def board(tmp_path, port, monkeypatch):
    """A target that has edge-harness; and a home of our own here."""
    program = tmp_path / "bin/edge-harness"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m harness "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "own-home"))
    return f"ssh://root@127.0.0.1:{port}"


def harness(*words):
    done = subprocess.run(
        [sys.executable, "-m", "harness", *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.shared_machine
def test_a_verb_is_run_by_the_edge_harness_that_is_there(tmp_path: Path, board: str):
    model = tmp_path / "my model.json"
    model.write_text(json.dumps({"decode_s_per_token": 2**-5}))
    status, text, log = harness("run", model, *QUICK, "--on", board, "--out", tmp_path / "out", "--json")
    assert status == 0, log
    (record,) = json.loads(text)["items"]
    assert record["model"]["name"] == "my model"
    # 2**-5 s a token, 4 tokens
    assert {s["duration_s"] for s in record["samples"] if s["phase"] == "decode" and not s["warm_up"]} == {4 / 32}
    (kept,) = (tmp_path / "out").glob("*.json")
    assert load(kept).machine.device == board and load(kept).run_id == record["run_id"]
    # the same in the history here, and in the one there; its answer is gone from the target, the model stays
    for home in ("own-home", "target-home"):
        assert record["run_id"] in [r.run_id for r in History(tmp_path / home / "history.sqlite").records()]
    place = Path(target_named(board).folder)
    assert not (place / "answer").exists() and list(place.glob("*-my_model.json"))
    # for people: the text from there
    status, text, log = harness("run", model, *QUICK, "--on", board)
    assert status == 0 and "my model" in text, log
    status, _, log = harness("run", tmp_path / "none.json", *QUICK, "--on", board)
    assert status == 4, log


def test_a_system_is_run_by_the_edge_harness_that_is_there_with_cases_of_ours(tmp_path: Path, board: str):
    pytest.importorskip("harness.workloads")
    cases = tmp_path / "mine.jsonl"
    row = {"kind": "arithmetic", "steps": ["1 + 1 = 2", "2 + 2 = 5"], "label": 1}
    cases.write_text("\n".join([json.dumps(row)] * 3))
    status, text, log = harness("workloads", "run", "reason", "--cases", cases, "--on", board, "--json")
    record = json.loads(text)
    assert status in {0, 3}, log  # the machine may be too busy to be believed
    assert [answer["answer"]["first_error"] for answer in record["result"]["answers"]] == [1, 1, 1]
    kept = [r for r in History(tmp_path / "own-home" / "history.sqlite").records() if r.run_id == record["run_id"]]
    assert kept[0].machine.device == board


def test_a_model_is_streamed_where_edge_harness_is(tmp_path: Path, board: str):
    pytest.importorskip("llama_cpp")
    path = synthesize_tiny(tmp_path / "tiny.gguf", "Q8_0", feed_forward_dim=512)
    given = ("stream", path, "--ram-budget", "900MB", "--no-predict", "--prompt-count", 1, "-n", 4, "-t", 1)
    status, text, log = harness(*given, "--on", board, "--json")
    record = json.loads(text)
    assert status in {0, 3} and record["result"]["kind"] == "stream", log
    assert len(record["result"]["outputs"][0]) >= 4
    status, _, log = harness(*given, "--on", board, "--programs", tmp_path)
    assert status == 2 and "llama-bench cannot stream" in log


def test_a_target_without_edge_harness_needs_a_program(board: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("harness.measure.targets.remote.PROGRAM", "edge-nothing")
    done = CliRunner().invoke(cli, ["soak", "m.gguf", "--on", board])
    assert isinstance(done.exception, RefusedError) and "has no edge-harness" in str(done.exception)
    path = synthesize_tiny(tmp_path / "tiny.gguf", "Q8_0", feed_forward_dim=512)
    done = CliRunner().invoke(cli, ["run", str(path), "--on", "ssh://127.0.0.1:1", "--programs", str(tmp_path)])
    assert isinstance(done.exception, CouldNotRunError) and "127.0.0.1" in str(done.exception)
