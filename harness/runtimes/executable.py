"""llama.cpp's own ``llama-bench``, as a release brings it, without a compiler.

It is looked for in the folder that ``EDGE_HARNESS_LLAMA_BIN`` names, else in the engine that was pulled (a
release has it, npm's package has not) and on the PATH. Source of the options and of what is printed:
llama.cpp, tools/llama-bench/llama-bench.cpp.
"""

import json
import os
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from harness.core.errors import EngineError, RefusedError
from harness.core.outside import output_of
from harness.core.ports import Session
from harness.core.record import EngineIdentity
from harness.core.scenario import Scenario
from harness.hardware.threads import default_thread_count
from harness.memory.kv_cache import padded
from harness.runtimes.llamacpp.builds import engine_folder

FOLDER_VARIABLE: Final = "EDGE_HARNESS_LLAMA_BIN"


class Executable:
    """The runtime that starts llama-bench, which loads the model and takes the times."""

    name = "executable"
    formats = ("gguf",)
    entry = "harness.measure.jobs.bench_program:run_executable"

    def missing(self) -> str | None:
        """Why it cannot be used here; None when it can."""
        return None if self.package() else _absent()

    def package(self) -> str:
        """Path of the program that is started; empty where there is none."""
        return program("llama-bench") or ""

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """Return the name and version that the program gives; the build and the api come with its result rows.

        Raises:
            EngineError: The program does not start.
        """
        return EngineIdentity(
            name="llama-bench",
            version=_output("--version").strip().partition("\n")[0][:200],
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


def command(path: Path, scenario: Scenario, repetitions: int) -> list[str]:
    """The command that times prefill and decode of a scenario.

    Raises:
        RefusedError: The program has no option for what the scenario asks.
        EngineError: There is no such program.
    """
    if scenario.batch_count > 1:
        raise RefusedError(
            "llama-bench runs one sequence here: several decode together in process (--runtime llamacpp)"
        )
    file = program("llama-bench")
    if file is None:
        raise EngineError(_absent())
    return [file, "-m", str(path), *spelled(scenario, repetitions, _output("--help"))]


def as_made(scenario: Scenario) -> Scenario:
    """The scenario with the context that llama-bench makes, of the tokens of its tests alone: its memory is of that."""
    tokens = scenario.depth_tokens + max(scenario.prompt_tokens, scenario.new_tokens)
    return scenario.replace(context_tokens=padded(tokens * scenario.batch_count + 2))


def _absent() -> str:
    where = os.environ.get(FOLDER_VARIABLE)
    if where:
        return f"no llama-bench in {FOLDER_VARIABLE}={where}: name a folder that has it"
    return "no llama-bench on the PATH: a release of llama.cpp has it (edge-harness engines pull)"


def rows(output: str) -> list[dict[str, Any]]:
    """The JSON lines among what a program printed."""
    objects = []
    for line in output.splitlines():
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                objects.append(row)
    return objects


def spelled(scenario: Scenario, repetitions: int, text: str) -> list[str]:
    """Return llama-bench's options for a scenario and its output format, as its help ``text`` spells them.

    Raises:
        RefusedError: The program has no such option.
    """
    s = scenario
    cache = s.kv_type.lower()
    fused = str(int(s.flash_attention))
    if "on|off" in text:
        fused = "on" if s.flash_attention else "off"
    given = ["-t", str(s.thread_count or default_thread_count()), "-ub", str(s.ubatch_tokens)]
    given += ["-ctk", cache, "-ctv", cache, "-fa", fused]
    # With a GPU built in it would still use that for the cache and long prompts.
    if s.api not in {"", "cpu"}:
        given += s.placement.flags(_BLOCKS).replace(",", "/").split()
        if not s.placement.kv_on_gpu:
            given.append("1")  # -nkvo is the last one
    elif "--device" in text:
        given += ["-ngl", "0", "-dev", "none"]
    else:
        given += ["-ngl", "0", "-nopo", "1"]
    if "--load-mode" in text:
        given += ["-lm", "mmap" if s.mmap else "none"]
    else:
        given += ["-mmp", str(int(s.mmap))]
    if not s.repack:
        if "-repack" not in text:
            raise RefusedError("--without repack: this llama-bench has no such option")
        given += ["--repack", "0"]
    given += ["-p", str(s.prompt_tokens), "-n", str(s.new_tokens), "-d", str(s.depth_tokens)]
    return [*given, "-r", str(repetitions), "-o", "jsonl"]


@cache
def _output(option: str) -> str:
    """What llama-bench prints for an option."""
    command = (program("llama-bench") or "llama-bench", option)
    printed = output_of(command, "llama-bench", timeout_s=60, ends=None, fault=EngineError, errors_too=True)
    return printed.decode(errors="replace")


_BLOCKS: Final = 9998
"""More than any model has."""
RUNTIME = Executable()
