"""A target over SSH: the real ssh program to a real server on the loopback address."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.errors import CouldNotRunError
from harness.targets import target_named

pytest.importorskip("asyncssh")
pytestmark = pytest.mark.skipif(not (shutil.which("ssh") and shutil.which("ssh-keygen")), reason="needs ssh")

SERVER = """
import asyncio, sys
import asyncssh

folder = sys.argv[1]

async def pump(source, sink, close=False):
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except asyncssh.Error:
        pass
    finally:
        if close:
            sink.close()

async def serve(process):
    # As sshd does it: the command goes to the user's shell; its input ends when the session does.
    child = await asyncio.create_subprocess_shell(
        process.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    told = asyncio.create_task(pump(process.stdin, child.stdin, close=True))
    await asyncio.gather(pump(child.stdout, process.stdout), pump(child.stderr, process.stderr))
    process.exit(await child.wait())
    told.cancel()

async def main():
    server = await asyncssh.create_server(
        asyncssh.SSHServer, "127.0.0.1", 0, server_host_keys=[folder + "/host"],
        authorized_client_keys=folder + "/me.pub", process_factory=serve, encoding=None)
    print(server.get_port(), flush=True)
    await server.wait_closed()

asyncio.run(main())
"""


@pytest.fixture
def port(tmp_path, monkeypatch):
    for name in ("host", "me"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    number = int(process.stdout.readline())
    (tmp_path / "known").write_text(f"[127.0.0.1]:{number} {(tmp_path / 'host.pub').read_text()}")
    (tmp_path / "config").write_text(f"IdentityFile {tmp_path}/me\nUserKnownHostsFile {tmp_path}/known\n")
    (tmp_path / "bin").mkdir()
    # OpenSSH takes its configuration from the home in the user database: the real program, told another file.
    (tmp_path / "bin/ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path}/config "$@"\n')
    (tmp_path / "bin/ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    yield number
    process.kill()
    process.wait()


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


def test_a_host_that_is_not_known_and_one_that_is_not_there(tmp_path: Path, port: int):
    (tmp_path / "known").write_text("")
    with pytest.raises(CouldNotRunError, match="Host key verification failed"):
        target_named(f"ssh://root@127.0.0.1:{port}").shell("true")
    with pytest.raises(CouldNotRunError, match="refused"):
        target_named("ssh://root@127.0.0.1:1").shell("true")
