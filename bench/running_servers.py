"""Servers of models that are started for a measurement, and stopped after it.

python -m bench.running_servers MODEL.gguf PORT    (serves by xllamacpp until stopped)
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Final

from harness.core.errors import CouldNotRunError, HarnessError
from harness.hardware.threads import default_thread_count
from harness.runtimes.executable import program
from harness.runtimes.server.stream import Endpoint

PROGRAMS: Final = ("llama-server", "xllamacpp", "llama-cpp-python")
CONTEXT_TOKENS: Final = 2048


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def command_of(
    name: str, model: Path, port: int, threads: int = 0, slots: int = 1, context_tokens: int = 0
) -> list[str]:
    """The command of a server with so many threads (0: physical cores), and requests at once where it can.

    Without ``context_tokens`` each request has ``CONTEXT_TOKENS``.

    Raises:
        CouldNotRunError: There is no such program.
    """
    count, at = str(threads or default_thread_count()), [str(model), str(port)]
    room = str(context_tokens or CONTEXT_TOKENS * slots)
    if name == "llama-server":
        found = program("llama-server")
        if found is None:
            raise CouldNotRunError("no llama-server: set EDGE_HARNESS_LLAMA_BIN to the folder of a release")
        return [
            found,
            "-m",
            at[0],
            "--port",
            at[1],
            "-t",
            count,
            "-c",
            room,
            "-np",
            str(slots),
            "-ngl",
            "0",
            "-dev",
            "none",
        ]
    if name == "llama-cpp-python":
        return [sys.executable, "-m", "llama_cpp.server", "--model", at[0], "--port", at[1], "--n_ctx", room,
                "--n_threads", count, "--n_threads_batch", count]  # fmt: skip
    return [sys.executable, "-m", "bench.running_servers", *at, count, str(slots), room]


@contextmanager
def running(name: str, model: Path, *, threads: int = 0, slots: int = 1) -> Iterator[str]:
    """Address of a server of ``model``.

    Raises:
        CouldNotRunError: It ended, or did not answer within two minutes.
    """
    port = free_port()
    line = command_of(name, model, port, threads, slots)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that whoever stops us stops the server too
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield _answering(f"http://127.0.0.1:{port}", process, name)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        signal.signal(signal.SIGTERM, before)


def _answering(url: str, process: "subprocess.Popen[bytes]", name: str) -> str:
    for _ in range(480):
        if process.poll() is not None:
            raise CouldNotRunError(f"{name} ended with status {process.returncode}")
        with suppress(HarnessError):
            if Endpoint(url).json("/v1/models"):
                return url
        time.sleep(0.25)
    raise CouldNotRunError(f"{name} did not answer within two minutes")


def main() -> None:
    """Serve by xllamacpp: MODEL PORT THREADS SLOTS CONTEXT."""
    xllamacpp = import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path, params.port = sys.argv[1], int(sys.argv[2])
    params.cpuparams.n_threads, params.n_parallel = int(sys.argv[3]), int(sys.argv[4])
    params.n_ctx, params.verbosity = int(sys.argv[5]), 4  # the buffers of the engine are told from 4 on
    server = xllamacpp.Server(params)
    while server:
        time.sleep(60)


if __name__ == "__main__":
    main()
