"""One target over SSH: a real server on the loopback address that runs real commands in a home of its own."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.errors import BadDataError, CouldNotRunError, RefusedError
from harness.fleet.ssh import PUSHED_TO, Target, run_over_ssh

asyncssh = pytest.importorskip("asyncssh")

SERVER = """
import asyncio, os, sys
import asyncssh

folder = sys.argv[1]

async def serve(process):
    # As sshd does it: the command goes to the user's shell, in the home folder.
    child = await asyncio.create_subprocess_shell(
        process.command, cwd=folder + "/home", stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"EDGE_HARNESS_HOME": folder + "/target-home"})
    out, err = await child.communicate()
    process.stdout.write(out)
    process.stderr.write(err)
    process.exit(child.returncode)

async def main():
    os.chdir(folder + "/home")
    server = await asyncssh.create_server(
        asyncssh.SSHServer, "127.0.0.1", 0, server_host_keys=[folder + "/host"],
        authorized_client_keys=folder + "/me.pub", process_factory=serve, sftp_factory=True, encoding=None)
    print(server.get_port(), flush=True)
    await server.wait_closed()

asyncio.run(main())
"""
QUICK = ("--runtime", "fake", "-c", "256", "-p", "16", "-n", "4", "-t", "1", "-r", "1", "--cold-loads", "0")


class Board(NamedTuple):
    """The target, and edge-harness on it."""

    target: Target
    program: str
    folder: Path


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("board")
    (folder / "home").mkdir()
    for name in ("host", "me", "stranger"):
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(folder / name))
        key.write_public_key(str(folder / f"{name}.pub"))
    program = folder / "edge harness"  # with a space: words must stay words
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m harness "$@"\n')
    program.chmod(0o755)
    command = [sys.executable, "-c", SERVER, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port = int(process.stdout.readline())  # type: ignore[union-attr]
        known = folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
        target = Target("127.0.0.1", port, "me", folder / "me", known)
        yield Board(target, str(program), folder)
    finally:
        process.kill()
        process.wait()


def test_push_run_fetch(board: Board, tmp_path: Path) -> None:
    model = tmp_path / "my model.json"
    model.write_text(json.dumps({"decode_s_per_token": 2**-5}))

    (record,) = run_over_ssh(
        board.target, ["my model.json"], QUICK, folder=tmp_path / "out", program=board.program, pushed=[model]
    )

    assert (record.outcome, record.machine.device) == ("ok", "127.0.0.1")
    assert (board.folder / "home" / PUSHED_TO / "my model.json").read_bytes() == model.read_bytes()
    assert (tmp_path / "out" / f"{record.run_id}.json").is_file()
    # 2**-5 s a token, 4 tokens.
    assert {s.duration_s for s in record.samples if s.phase == "decode" and not s.warm_up} == {4 / 32}
    # It is in the target's own history as well.
    assert (board.folder / "target-home" / "history.sqlite").is_file()


def test_another_file_of_the_same_name_and_size_is_pushed_anew(board: Board, tmp_path: Path) -> None:
    model = tmp_path / "same.json"
    there = board.folder / "home" / PUSHED_TO / "same.json"

    def push() -> None:
        run_over_ssh(board.target, ["same.json"], QUICK, folder=tmp_path, program=board.program, pushed=[model])

    model.write_text('{"load_s": 0.1}')
    push()
    began_ns = there.stat().st_mtime_ns
    push()
    assert there.stat().st_mtime_ns == began_ns, "the same file is not copied again"
    there.write_text('{"load_s": 9.9}')  # the same length: somebody else's
    push()
    assert there.read_bytes() == model.read_bytes()


def test_a_target_that_never_stops_talking_is_cut_off(board: Board, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("harness.fleet.ssh.RECORD_MAX_BYTES", 1 << 16)
    program = board.folder / "talker"
    program.write_text("#!/bin/sh\nhead -c 3000000 /dev/zero\n")
    program.chmod(0o755)
    with pytest.raises(BadDataError, match="at most 65536"):
        run_over_ssh(board.target, ["m"], folder=tmp_path, program=str(program))


def test_a_failure_on_the_target_is_a_record(board: Board, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"fault": "abort"}')
    (record,) = run_over_ssh(board.target, ["bad.json"], QUICK, folder=tmp_path, program=board.program, pushed=[bad])
    assert record.outcome == "aborted"


def test_words_stay_words(board: Board, tmp_path: Path) -> None:
    trap = board.folder / "home" / "trapped"
    for model in (
        "x; touch trapped; y.json",
        "--help.json",
        "$(touch trapped).json",
        "`touch trapped`.json",
        "'; touch trapped; '.json",
    ):
        (record,) = run_over_ssh(board.target, [model], QUICK, folder=tmp_path, program=board.program)
        assert record.outcome == "refused"
    assert not trap.exists()


def test_an_unknown_host_key_is_refused(board: Board, tmp_path: Path) -> None:
    other = tmp_path / "known_hosts"
    other.write_text(f"[127.0.0.1]:{board.target.port} {(board.folder / 'stranger.pub').read_text()}")
    with pytest.raises(CouldNotRunError, match="host key is not known"):
        run_over_ssh(board.target._replace(known_hosts=other), ["m"], folder=tmp_path, program=board.program)
    other.write_text("")
    with pytest.raises(CouldNotRunError, match="host key is not known"):
        run_over_ssh(board.target._replace(known_hosts=other), ["m"], folder=tmp_path, program=board.program)


def test_what_else_goes_wrong_is_one_line(board: Board, tmp_path: Path) -> None:
    with pytest.raises(CouldNotRunError, match="login refused"):
        stranger = board.target._replace(identity=board.folder / "stranger")
        run_over_ssh(stranger, ["m"], folder=tmp_path, program=board.program)
    with pytest.raises(CouldNotRunError, match="no edge-nothing there"):
        run_over_ssh(board.target, ["m"], folder=tmp_path, program="edge-nothing")
    with pytest.raises(CouldNotRunError, match="status 2"):
        run_over_ssh(board.target, ["m"], ["--no-such-option"], folder=tmp_path, program=board.program)
    with pytest.raises(BadDataError, match="no JSON"):
        run_over_ssh(board.target, ["m"], folder=tmp_path, program="echo")
    with pytest.raises(CouldNotRunError, match="not done within"):
        run_over_ssh(board.target, ["m"], folder=tmp_path, program=str(sleeper(board)), timeout_s=1)
    with pytest.raises(CouldNotRunError, match=r"127\.0\.0\.1:1"):
        run_over_ssh(board.target._replace(port=1), ["m"], folder=tmp_path)
    with pytest.raises(RefusedError, match="no such file"):
        run_over_ssh(board.target, ["m"], folder=tmp_path, pushed=[tmp_path / "none.gguf"])


def sleeper(board: Board) -> Path:
    path = board.folder / "sleeper"
    path.write_text("#!/bin/sh\nsleep 5\n")
    path.chmod(0o755)
    return path


def test_the_verb(board: Board, tmp_path: Path) -> None:
    t = board.target
    command = [
        *(sys.executable, "-m", "harness", "fleet", "ssh", f"me@127.0.0.1:{t.port}", "--program", board.program),
        *("--identity", str(t.identity), "--known-hosts", str(t.known_hosts), "--out", str(tmp_path), "--json"),
        *("--model", "/none/such.json", "--", *QUICK),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 4, done.stderr
    assert [r["outcome"] for r in json.loads(done.stdout)] == ["refused"]
