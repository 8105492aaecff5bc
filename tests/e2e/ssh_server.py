"""A real SSH server on the loopback address: it runs commands as sshd does, in a home of its own."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

NEEDS = bool(shutil.which("ssh") and shutil.which("ssh-keygen"))

_SERVER = """
import asyncio, os, sys
import asyncssh

folder = sys.argv[1]

async def pump(source, sink, close=False):
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except (asyncssh.Error, ConnectionError):
        pass
    finally:
        if close:
            sink.close()

async def serve(process):
    # As sshd does it: the command goes to the user's shell; its input ends when the session does.
    child = await asyncio.create_subprocess_shell(
        process.command, cwd=folder + "/home", stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"HOME": folder + "/home", "EDGE_HARNESS_HOME": folder + "/target-home",
                          "PATH": folder + "/bin:" + os.environ["PATH"]})
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


class Server(NamedTuple):
    """Where it listens; ``folder`` has its keys and ours, ``known_hosts``, ``home`` and ``bin``."""

    port: int
    folder: Path

    @property
    def name(self) -> str:
        """As a target."""
        return f"ssh://me@127.0.0.1:{self.port}"


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """The server while the block runs."""
    for name in ("host", "me", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    for name in ("home", "bin"):
        (folder / name).mkdir()
    process = subprocess.Popen([sys.executable, "-c", _SERVER, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
        yield Server(port, folder)
    finally:
        process.kill()
        process.wait()
