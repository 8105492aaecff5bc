"""llama.cpp's own programs, ``llama-bench`` and those beside it: what a release brings, without a compiler.

They are looked for in the folder that ``EDGE_HARNESS_LLAMA_BIN`` names, else in the engine that was pulled (a
release has them, npm's package has not) and on the PATH. Where there is a llama-server and no llama-bench, it
is started for a run, and asked. Source of the options and of what is printed: llama.cpp,
tools/llama-bench/llama-bench.cpp and tools/perplexity/perplexity.cpp.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from harness.catalog.engines import engine_folder
from harness.domain.record import EngineIdentity, Phase
from harness.domain.scenario import Scenario
from harness.errors import EngineError, RefusedError
from harness.outside import output_of
from harness.ports import Session
from harness.predict.kv_cache import padded
from harness.runtimes._threads import default_thread_count
from harness.runtimes.server.stream import Endpoint, ServerError

FOLDER_VARIABLE: Final = "EDGE_HARNESS_LLAMA_BIN"
_START_S: Final = 600.0
"""Until a server has loaded its model."""
_END_S: Final = 10.0
"""Until a server that was asked to end is killed."""
_PR_SET_PDEATHSIG: Final = 1


class Executable:
    """The runtime that starts llama.cpp's programs; they load the model and take the times."""

    name = "executable"
    formats = ("gguf",)
    entry = "harness.measure.jobs.executable:run_executable"

    def missing(self) -> str | None:
        """Why it cannot be used here; None when it can."""
        if self.package():
            return None
        return _absent("llama-bench and no llama-server")

    def package(self) -> str:
        """Path of the program that is started; empty where there is none."""
        return program("llama-bench") or program("llama-server") or ""

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """What the program says of itself before a run (EngineError where it does not start).

        Its rows tell more.
        """
        return EngineIdentity(
            name="llama-bench",
            version=_output("llama-bench", "--version").strip().partition("\n")[0][:200],
            build="",
            thread_count=scenario.thread_count or default_thread_count(),
            options={"loads": "not timed by this program"},
        )

    def open(self, path: Path, scenario: Scenario) -> Session:
        """Always refused: a program keeps its model to itself."""
        del path, scenario
        raise RefusedError("the runtime executable only times: take --runtime llamacpp for anything else")


def program(name: str) -> str | None:
    """Path of one of the programs; None when it is not there."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return shutil.which(name, path=named)
    return shutil.which(name, path=str(engine_folder())) or shutil.which(name)


def command(path: Path, scenario: Scenario, phase: Phase, repetitions: int) -> list[str]:
    """The command that times ``prefill`` or ``decode`` of a scenario.

    Raises:
        RefusedError: The program has no option for what the scenario asks.
        EngineError: There is no such program.
    """
    s = scenario
    _check_single("llama-bench", s)
    given = common("llama-bench", path, s)
    prompt, new = (s.prompt_tokens, 0) if phase == "prefill" else (0, s.new_tokens)
    given += ["-p", str(prompt), "-n", str(new), "-r", str(repetitions), "-o", "jsonl"]
    return given + (["-d", str(s.depth_tokens)] if s.depth_tokens else [])


def as_made(scenario: Scenario) -> Scenario:
    """The scenario with the context that llama-bench makes, of the tokens of its tests alone: its memory is of that."""
    tokens = scenario.depth_tokens + max(scenario.prompt_tokens, scenario.new_tokens)
    return scenario.replace(context_tokens=padded(tokens * scenario.batch_count + 2))


@contextmanager
def serving(path: Path, scenario: Scenario, wall_s: float = _START_S) -> Iterator[str]:
    """A llama-server of the folder with the model in ``path``, for as long as it is asked; its address.

    It has ``wall_s`` to start, ten minutes at most. On Linux it ends with the thread that started it,
    whatever ends that one.

    Raises:
        RefusedError: It has no option for what the scenario asks, or that asks for several sequences.
        EngineError: There is none, it ended, or it does not answer.
    """
    _check_single("llama-server", scenario)
    port = free_port()
    given = [*common("llama-server", path, scenario), "-c", str(scenario.context_tokens), "--port", str(port)]
    given += ["-np", "1", *(["-fit", "off"] if "-fit" in _output("llama-server", "--help") else [])]
    bound = None
    if sys.platform == "linux":
        bound = _end_with_parent
    url = f"http://127.0.0.1:{port}"
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(given, stdout=log, stderr=log, preexec_fn=bound) as process,  # noqa: PLW1509 - one system call
    ):
        try:
            until_s = time.monotonic() + min(wall_s, _START_S)
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > until_s:
                    log.seek(0)
                    last = " ".join(log.read().decode(errors="replace").split())[-300:]
                    raise EngineError(f"llama-server did not start (status {process.poll()}): {last}")
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _check_single(name: str, scenario: Scenario) -> None:
    if scenario.batch_count > 1:
        raise RefusedError(
            f"{name} runs one sequence here: several decode together in process (--runtime llamacpp)"
        )


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _absent(names: str) -> str:
    where = os.environ.get(FOLDER_VARIABLE)
    if where:
        return f"no {names} in {FOLDER_VARIABLE}={where}: name a folder that has them"
    return f"no {names} on the PATH: a release of llama.cpp has them (edge-harness engines pull)"


def _answers(url: str) -> bool:
    with suppress(ServerError):
        return Endpoint(url).json("/health") is not None
    return False


def rows(output: str) -> list[dict[str, Any]]:
    """The JSON lines among what a program printed."""
    objects = []
    for line in output.splitlines():
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                objects += [row]
    return objects


def common(name: str, path: Path, scenario: Scenario) -> list[str]:
    """A program with what all of them take of a scenario; llama-bench spells some of it in its own way.

    Raises:
        RefusedError: It has no such option.
        EngineError: There is no such program.
    """
    file = program(name)
    if file is None:
        raise EngineError(_absent(name))
    return [file, "-m", str(path), *spelled(scenario, _output(name, "--help"), name)]


def spelled(scenario: Scenario, text: str, name: str = "llama-bench") -> list[str]:
    """What a program takes of a scenario, as its help ``text`` spells it.

    RefusedError where it has no such option.
    """
    s = scenario
    single = name == "llama-bench"
    fused = ("on" if "on|off" in text else "1") if s.flash_attention else ("off" if "on|off" in text else "0")
    given = ["-t", str(s.thread_count or default_thread_count()), "-ub", str(s.ubatch_tokens)]
    given += [
        "-ctk",
        s.kv_type.lower(),
        "-ctv",
        s.kv_type.lower(),
        "-fa",
        fused,
        *placed(s, text, single=single),
    ]
    if "--load-mode" in text:
        mapped = ["-lm", "mmap" if s.mmap else "none"]
    elif single:
        mapped = ["-mmp", str(int(s.mmap))]
    else:
        mapped = ["--no-mmap"]
    if single or not s.mmap:
        given += mapped
    if not s.repack and "-repack" not in text:
        raise RefusedError(f"--without repack: this {name} has no such option")
    if s.repack:
        return given
    return [*given, *(["--repack", "0"] if single else ["--no-repack"])]


def placed(scenario: Scenario, text: str = "", *, single: bool = True) -> list[str]:
    """Where the model lies, as llama-bench (``single``) or the others spell it.

    ``text`` is the program's help.
    """
    s = scenario
    p = scenario.placement
    if s.api in {
        "",
        "cpu",
    }:  # a program with a GPU built in would still use it for the cache and long prompts
        if "--device" in text:
            return ["-ngl", "0", "-dev", "none"]
        return [
            "-ngl",
            "0",
            *((["-nopo", "1"] if single else ["--no-op-offload"]) if "-op-offload" in text else []),
        ]
    flags = p.flags(_BLOCKS).split()  # -nkvo is the last one
    if not single:
        return flags
    return [flag.replace(",", "/") for flag in flags] + ([] if p.kv_on_gpu else ["1"])


@cache
def _output(name: str, option: str) -> str:
    command = (program(name) or name, option)
    printed = output_of(command, name, timeout_s=60, ends=None, fault=EngineError, errors_too=True)
    return printed.decode(errors="replace")


_BLOCKS: Final = 9998
"""More than any model has."""
RUNTIME = Executable()
