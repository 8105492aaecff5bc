"""One target over SSH: a real server on the loopback address that runs real commands in a home of its own."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from harness.core.errors import BadDataError, CouldNotRunError, RefusedError
from harness.measure.targets import target_named
from harness.measure.targets.remote import run_there
from harness.measure.targets.shell import ShellTarget
from tests.e2e.ssh_server import NEEDS, Server, serving

pytest.importorskip("asyncssh")
pytestmark = pytest.mark.skipif(not NEEDS, reason="needs ssh")

QUICK = ("--runtime", "fake", "-c", "256", "-p", "16", "-n", "4", "-t", "1", "-r", "1", "--cold-loads", "0")


class Board(NamedTuple):
    """The target, and edge-harness on it."""

    server: Server
    program: str
    folder: Path

    def target(self, identity: str = "me", known_hosts: Path | None = None) -> ShellTarget:
        folder = self.folder
        told = f"IdentityFile {folder}/{identity}\nIdentitiesOnly yes\nGlobalKnownHostsFile none\n"
        (folder / "config").write_text(f"{told}UserKnownHostsFile {known_hosts or folder / 'known_hosts'}\n")
        return target_named(self.server.name, folder=str(folder / "pushed"))


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("board")
    program = folder / "edge harness"  # with a space: words must stay words
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m harness "$@"\n')
    program.chmod(0o755)
    with serving(folder) as server, pytest.MonkeyPatch.context() as patch:
        # OpenSSH takes its configuration from the home in the user database: the real program, told another file.
        ssh = folder / "own-bin/ssh"
        ssh.parent.mkdir()
        ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n')
        ssh.chmod(0o755)
        patch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
        yield Board(server, str(program), folder)


def run_over_ssh(target: ShellTarget, models, options=(), *, program="edge-harness", pushed=()):
    words, files = ["run", *options, "--", *models], {p.name: p for p in pushed}
    with mock.patch("harness.measure.targets.remote.PROGRAM", program):
        return list(run_there(target, words, files).records)


@pytest.mark.shared_machine
def test_push_run_fetch(board: Board, tmp_path: Path) -> None:
    model = tmp_path / "my model.json"
    model.write_text(json.dumps({"decode_s_per_token": 2**-5}))

    (record,) = run_over_ssh(board.target(), ["my model.json"], QUICK, program=board.program, pushed=[model])

    assert (record.outcome, record.machine.device) == ("ok", board.server.name)
    (there,) = board.folder.glob("pushed/*-my_model.json")
    assert there.read_bytes() == model.read_bytes()
    assert record.model is not None and record.model.name == "my model"
    # 2**-5 s a token, 4 tokens.
    assert {s.duration_s for s in record.samples if s.phase == "decode" and not s.warm_up} == {4 / 32}
    # It is in the target's own history as well.
    assert (board.folder / "target-home" / "history.sqlite").is_file()


def test_another_file_of_the_same_name_and_size_is_pushed_anew(board: Board, tmp_path: Path) -> None:
    model = tmp_path / "same.json"

    def push() -> list[Path]:
        run_over_ssh(board.target(), ["same.json"], QUICK, program=board.program, pushed=[model])
        return sorted(board.folder.glob("pushed/*-same.json"))

    model.write_text('{"load_s": 0.1}')
    (first,) = push()
    began_ns = first.stat().st_mtime_ns
    assert push() == [first]
    assert first.stat().st_mtime_ns == began_ns, "the same file is not copied again"
    model.write_text('{"load_s": 9.9}')  # the same length
    assert sorted(p.read_text() for p in push()) == ['{"load_s": 0.1}', '{"load_s": 9.9}']


def test_a_target_that_never_stops_talking_is_cut_off(board: Board, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("harness.core.outside.MOST_BYTES", 1 << 16)
    program = board.folder / "talker"
    program.write_text("#!/bin/sh\nhead -c 3000000 /dev/zero\n")
    program.chmod(0o755)
    with pytest.raises(CouldNotRunError, match="more than 65536 bytes"):
        run_over_ssh(board.target(), ["m"], program=str(program))


def test_a_failure_on_the_target_is_a_record(board: Board, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"fault": "abort"}')
    (record,) = run_over_ssh(board.target(), ["bad.json"], QUICK, program=board.program, pushed=[bad])
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
        (record,) = run_over_ssh(board.target(), [model], QUICK, program=board.program)
        assert record.outcome == "refused"
    assert not trap.exists()


def test_an_unknown_host_key_is_refused(board: Board, tmp_path: Path) -> None:
    other = tmp_path / "known_hosts"
    other.write_text(f"[127.0.0.1]:{board.server.port} {(board.folder / 'stranger.pub').read_text()}")
    with pytest.raises(CouldNotRunError, match="Host key verification failed"):
        run_over_ssh(board.target(known_hosts=other), ["m"], program=board.program)
    other.write_text("")
    with pytest.raises(CouldNotRunError, match="Host key verification failed"):
        run_over_ssh(board.target(known_hosts=other), ["m"], program=board.program)


def test_what_else_goes_wrong_is_one_line(board: Board, tmp_path: Path) -> None:
    with pytest.raises(CouldNotRunError, match="Permission denied"):
        run_over_ssh(board.target("stranger"), ["m"], program=board.program)
    with pytest.raises(RefusedError, match="has no edge-harness"):
        run_over_ssh(board.target(), ["m"], program="edge-nothing")
    with pytest.raises(CouldNotRunError, match="status 2"):
        run_over_ssh(board.target(), ["m"], ["--no-such-option"], program=board.program)
    with pytest.raises(BadDataError, match="no record"):
        run_over_ssh(board.target(), ["m"], program="echo")
    with pytest.raises(CouldNotRunError, match=r"127\.0\.0\.1:1.*refused"):
        run_over_ssh(target_named("ssh://127.0.0.1:1"), ["m"])
