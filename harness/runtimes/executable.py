"""llama.cpp's own programs, ``llama-bench`` and those beside it: what a release brings, without a compiler.

They are looked for in the folder that ``EDGE_HARNESS_LLAMA_BIN`` names, else on the PATH. Source of the options and
of what is printed: llama.cpp, tools/llama-bench/llama-bench.cpp, tools/batched-bench/batched-bench.cpp and
tools/perplexity/perplexity.cpp.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from harness.domain.record import EngineIdentity, Phase
from harness.domain.scenario import Scenario
from harness.errors import EngineError, RefusedError
from harness.ports import Session
from harness.predict.kv_cache import padded
from harness.runtimes._threads import default_thread_count

FOLDER_VARIABLE: Final = "EDGE_HARNESS_LLAMA_BIN"


class Executable:
    """The runtime that starts llama.cpp's programs; they load the model and take the times."""

    name = "executable"
    formats = ("gguf",)
    entry = "harness.measure.jobs.executable:run_executable"

    def missing(self) -> str | None:
        """Why it cannot be used here; None when it can."""
        if program("llama-bench"):
            return None
        where = os.environ.get(FOLDER_VARIABLE)
        place = f"in {FOLDER_VARIABLE}={where}" if where else "on the PATH"
        return f"no llama-bench {place}: unpack a release of llama.cpp and set {FOLDER_VARIABLE} to its folder"

    def identity(self, scenario: Scenario) -> EngineIdentity:
        """What the program says of itself before a run (EngineError where it does not start); its rows tell more."""
        return EngineIdentity(
            name=_bench(scenario),
            version=_output(_bench(scenario), "--version").strip().partition("\n")[0][:200],
            build="",
            thread_count=scenario.thread_count or default_thread_count(),
            options={"loads": "not timed by this program"},
        )

    def open(self, path: Path, scenario: Scenario, **options: Any) -> Session:
        """Always refused: a program keeps its model to itself."""
        del path, scenario, options
        raise RefusedError("the runtime executable only times: take --runtime llamacpp for anything else")


def program(name: str) -> str | None:
    """Path of one of the programs; None when it is not there."""
    return shutil.which(name, path=os.environ.get(FOLDER_VARIABLE) or None)


def command(path: Path, scenario: Scenario, phase: Phase, repetitions: int) -> list[str]:
    """The command that times ``prefill`` or ``decode`` of a scenario.

    Several sequences are timed by llama-batched-bench, whose one run gives both.

    Raises:
        RefusedError: The program has no option for what the scenario asks.
        EngineError: There is no such program.
    """
    s = scenario
    if s.batch_count > 1:
        return batched_command(path, s, repetitions)
    given = common("llama-bench", path, s)
    prompt, new = (s.prompt_tokens, 0) if phase == "prefill" else (0, s.new_tokens)
    given += ["-p", str(prompt), "-n", str(new), "-r", str(repetitions), "-o", "jsonl"]
    return given + (["-d", str(s.depth_tokens)] if s.depth_tokens else [])


def as_made(scenario: Scenario) -> Scenario:
    """The scenario with the context that llama-bench makes, of the tokens of its tests alone: its memory is of that."""
    if scenario.batch_count > 1:
        return scenario
    tokens = scenario.depth_tokens + max(scenario.prompt_tokens, scenario.new_tokens) + 2
    return replace(scenario, context_tokens=padded(tokens))


def batched_command(path: Path, scenario: Scenario, repetitions: int) -> list[str]:
    """The command of llama-batched-bench, for one sequence too; errors as :func:`command`."""
    s, count = scenario, scenario.batch_count
    filled = s.depth_tokens or s.prompt_tokens
    needed = count * (filled + s.new_tokens)
    if needed > s.context_tokens:
        raise RefusedError(f"{count} sequences need a context of {needed}: raise --context")
    given = [*common("llama-batched-bench", path, s), "-c", str(s.context_tokens), "-npp", str(filled)]
    # One sequence before them warms up. One after them, since a thread writes the log: the process may end before the
    # last row is out.
    together = ",".join(["1", *[str(count)] * repetitions, "1"])
    return [*given, "-ntg", str(s.new_tokens), "-npl", together, "--output-format", "jsonl"]


def rows(output: str) -> list[dict[str, Any]]:
    """The JSON lines among what a program printed."""
    found = []
    for line in output.splitlines():
        with suppress(ValueError):
            row = json.loads(line)
            found += [row] if isinstance(row, dict) else []
    return found


def batched_times(row: Mapping[str, Any]) -> Sequence[tuple[Phase, str, int, float]]:
    """Phase, label, tokens and seconds of both tests in a row of llama-batched-bench (EngineError: field missing)."""
    try:
        pp, tg, count = (int(row[k]) for k in ("pp", "tg", "pl"))
        prompts = pp if row.get("is_pp_shared") else pp * count
        return (
            ("prefill", f"pp{pp} b{count}", prompts, float(row["t_pp"])),
            ("decode", f"tg{tg} @ d{pp} b{count}", tg * count, float(row["t_tg"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"a row of llama-batched-bench without {error}") from error


def _bench(scenario: Scenario) -> str:
    return "llama-batched-bench" if scenario.batch_count > 1 else "llama-bench"


def common(name: str, path: Path, scenario: Scenario) -> list[str]:
    """A program with what all of them take of a scenario; llama-bench spells some of it in its own way.

    Raises:
        RefusedError: It has no such option.
        EngineError: There is no such program.
    """
    found = program(name)
    if found is None:
        raise EngineError(f"no {name} beside llama-bench")
    text, s, single = _output(name, "--help"), scenario, name == "llama-bench"
    fused = ("on" if "on|off" in text else "1") if s.flash_attention else ("off" if "on|off" in text else "0")
    given = [found, "-m", str(path), "-t", str(s.thread_count or default_thread_count()), "-ub", str(s.ubatch_tokens)]
    given += ["-ctk", s.kv_type.lower(), "-ctv", s.kv_type.lower(), "-fa", fused, *placed(s, text, single=single)]
    if "--load-mode" in text:
        mapped = ["-lm", "mmap" if s.mmap else "none"]
    else:
        mapped = ["-mmp", str(int(s.mmap))] if single else ["--no-mmap"]
    given += mapped if single or not s.mmap else []
    if not s.repack and "-repack" not in text:
        raise RefusedError(f"--without repack: this {name} has no such option")
    return given if s.repack else [*given, *(["--repack", "0"] if single else ["--no-repack"])]


def placed(scenario: Scenario, text: str = "", *, single: bool = True) -> list[str]:
    """Where the model lies, as llama-bench (``single``) or the others spell it; ``text`` is the program's help."""
    s, p = scenario, scenario.placement
    if s.api in {"", "cpu"}:  # a program with a GPU built in would still use it for the cache and long prompts
        if "--device" in text:
            return ["-ngl", "0", "-dev", "none"]
        return ["-ngl", "0", *((["-nopo", "1"] if single else ["--no-op-offload"]) if "-op-offload" in text else [])]
    given = ["-ngl", _ALL if isinstance(p.gpu_layers, str) else str(p.gpu_layers), "-sm", p.split_mode]
    given += ["-mg", str(p.main_gpu)] + (["-ncmoe", str(p.cpu_moe)] if p.cpu_moe else [])
    shares = [f"{share:g}" for share in p.tensor_split]
    given += ["-ts", ("/" if single else ",").join(shares)] if shares else []
    return given if p.kv_on_gpu else [*given, "-nkvo", *(["1"] if single else [])]


@cache
def _output(name: str, option: str) -> str:
    try:
        done = subprocess.run([program(name) or name, option], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{name} does not start: {error}") from error
    return done.stdout + done.stderr


_ALL: Final = "9999"
"""More layers than any model has."""
RUNTIME = Executable()
