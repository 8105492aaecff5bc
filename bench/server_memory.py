"""Servers of llama.cpp on this machine beside what is predicted for them, buffer by buffer of their own logs.

    python -m bench.server_memory [--kind lfm2] [--out reports/memory/servers.json]

For each kind of architecture a tiny model with random weights is written, and each program is started on it with 4k,
32k and 128k cells and with 1 and 4 slots; it answers nothing. llama-server is that of the folder that
EDGE_HARNESS_LLAMA_BIN names. Exit status 1 where a cache or a compute buffer differs by more than 1 % (and by more than
half of the last digit of each line of the log).
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from bench.made_models import synthesize
from bench.memory_conformance import ALLOWED_RATIO, KINDS, buffers_of, judged
from bench.running_servers import PROGRAMS, command_of, free_port
from harness.domain.model import ModelShape
from harness.domain.scenario import Scenario
from harness.predict.compute_buffer import HOST, scratch_bytes, whole_layout
from harness.predict.kv_cache import block_cache_bytes, cells_of
from harness.predict.weights import weights_of

_KINDS: Final = ("full: llama", "hybrid: qwen35", "hybrid: lfm2", "sliding: gemma3", "latent and experts: deepseek2")
_CASES: Final = tuple((cells, slots) for cells in (4096, 32768, 131072) for slots in (1, 4))
_READY: Final = ("listening", "Uvicorn running", "all slots are idle")
_PATIENCE_S: Final = 60.0


def logged(command: list[str], log: Path) -> list[str]:
    """What a server writes until it listens, or until it ends; it is stopped then."""
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        until_s = time.monotonic() + _PATIENCE_S
        while process.poll() is None and time.monotonic() < until_s:
            if any(word in log.read_text(errors="replace") for word in _READY):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    return log.read_text(errors="replace").splitlines()


def rows(program: str, name: str, shape: ModelShape, folder: Path) -> Iterator[dict[str, Any]]:
    """Each case of one program and kind: its cache and its compute buffer."""
    path = folder / f"{name.replace(': ', '-').replace(' ', '-')}.gguf"
    if not path.exists():
        synthesize(weights_of(shape, "Q4_0"), path)
    for context, slots in _CASES:
        if slots > 1 and program == "llama-cpp-python":
            continue  # it has one sequence
        command = command_of(program, path, free_port(), 2, slots, context)
        command += ["-lv", "4"] * (program == "llama-server")  # which tells of its buffers there alone
        found = buffers_of(logged(command, folder / "log"))
        written = f"{program} -np {slots}" if program != "llama-cpp-python" else program
        asked = Scenario(
            context_tokens=context, program=written.replace("xllamacpp", "llama-server"),
            flash_attention=program != "llama-cpp-python",
        )  # fmt: skip
        parts = {
            "cache": (found.get("KV", []) + found.get("RS", []), sum(block_cache_bytes(shape, cells_of(asked)))),
            "compute buffer": (
                found.get("compute", []),
                scratch_bytes(shape, asked, whole_layout(shape, "cpu"))[HOST],
            ),
        }
        for part, (lines, predicted) in parts.items():
            row = {"program": program, "kind": name, "cells": context, "slots": slots, "part": part}
            yield judged(
                row | {"logged_mib": round(sum(lines), 2), "log_lines": len(lines), "predicted_bytes": predicted}
            )


@click.command()
@click.option("--kind", "wanted", multiple=True, help="Part of a kind's name; five kinds unless given.")
@click.option("--program", "programs", multiple=True, type=click.Choice(PROGRAMS), default=PROGRAMS)
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON record goes.")
def main(wanted: tuple[str, ...], programs: tuple[str, ...], out: Path | None) -> None:
    """Compare servers' allocations with predictions; see the module's docstring."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in [n for n in KINDS if (any(w in n for w in wanted) if wanted else n in _KINDS)]:
            for program in programs:
                for row in rows(program, name, KINDS[name], Path(folder)):
                    found.append(row)
                    mib = row["predicted_bytes"] / 2**20
                    click.echo(
                        f"{program:17}{name:31}{row['cells']:7}{row['slots']:3} {row['part']:15}"
                        f"{row['logged_mib']:9.2f}{mib:9.2f} {row['error_ratio']:8.2%}"
                    )
    if out:
        out.write_text(json.dumps(found, indent=1) + "\n")
    off = [row for row in found if row["error_ratio"] > ALLOWED_RATIO or not row["log_lines"]]
    click.echo(f"{len(found) - len(off)} of {len(found)} within {ALLOWED_RATIO:.0%}")
    sys.exit(1 if off else 0)


if __name__ == "__main__":
    main()
