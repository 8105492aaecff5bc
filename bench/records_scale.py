"""A fleet's year of records: how long import, query, trend and compare take, and how much memory.

    python -m bench records_scale --count 100000          # --keep writes reports/scale/records.json

The records are those of 40 devices with 20 models, made by arithmetic: four phases of five samples each, about 9 kB a
record. Each step is a command of its own. Its memory is the highest sum of the proportional sizes of its processes, or
the peak resident size of the largest one, whichever is more. The floor is the same bytes read and decoded, and no more.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import psutil

from bench._kept import keep
from harness.domain.record import (
    SCHEMA_VERSION,
    EngineIdentity,
    MachineFingerprint,
    MemoryUse,
    ModelIdentity,
    RunRecord,
    Sample,
)
from harness.domain.scenario import Scenario
from harness.records.store import decode, encode
from harness.units import MIB

_DEVICES, _MODELS = 40, 20
_PHASES = (("load", "load", 0, 0.5), ("prefill", "pp512", 512, 1.0), ("decode", "tg128", 128, 4.0),
           ("first_token", "ttft", 1, 0.6))  # fmt: skip


class Step(NamedTuple):
    """What one command took: wall clock, processor time, memory."""

    name: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    status: int


def year(count: int) -> Iterator[RunRecord]:
    """That many records, in the order of time, spread over a year."""
    machines = [
        MachineFingerprint(
            system="Linux", kernel="6.1", cpu_model="Cortex-A76", core_count=4, ram_bytes=8 << 30, isa=("neon",),
            memory_limit_bytes=8 << 30, python="3.11", device=f"board-{n:02}", fingerprint=f"{n:032x}",
        )
        for n in range(_DEVICES)
    ]  # fmt: skip
    for i in range(count):
        at_s = i * 31_536_000 // count
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(1_767_225_600 + at_s))
        samples = (
            Sample(
                phase=phase,  # type: ignore[arg-type]
                label=label,
                token_count=tokens,
                duration_s=duration_s * (1 + ((7 * i + 3 * k) % 11) / 100),
                started_unix_s=1_767_225_600.0 + at_s + k,
                warm_up=k == 0,
            )
            for (phase, label, tokens, duration_s), k in itertools.product(_PHASES, range(5))
        )
        yield RunRecord(
            schema_version=SCHEMA_VERSION,
            run_id=f"{stamp}000Z-{i:08x}",
            created=time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(1_767_225_600 + at_s)),
            harness_version="0.1.0",
            command=("edge-harness", "run"),
            workload="generate",
            machine=machines[i % _DEVICES],
            scenario=Scenario(),
            outcome="ok",
            model=ModelIdentity(name=f"model-{i // _DEVICES % _MODELS:02}", quant="Q4_K_M", size_bytes=10**9,
                                sha256="0" * 64, architecture="llama", parameter_count=10**9),
            engine=EngineIdentity(name="llamacpp", version="0.3.36", build="", thread_count=4),
            samples=tuple(samples),
            memory=MemoryUse(peak_rss_bytes=10**9 + i % 1000),
        )  # fmt: skip


def measure(count: int, folder: Path) -> list[Step]:
    """Import ``count`` records into a history in ``folder``, then ask it."""
    lines, first, last = folder / "year.jsonl", "", ""
    with lines.open("wb") as file:
        for record in year(count):
            file.write(encode(record) + b"\n")
            first, last = first or record.run_id, record.run_id
    table = str(folder / "again.jsonl")
    return [
        _floor(lines),
        _step("import of JSON lines", folder, "history", "--import", str(lines)),
        _step("query: newest of a model", folder, "history", "--model", "model-07", "--limit", "50", "--json"),
        _step("query: failed runs of a device", folder, "history", "--device", "board-03", "--outcome", "crashed"),
        _step("trend of all", folder, "history", "--trend", "decode_tokens_per_s"),
        _step("first and last beside each other", folder, "history", first, last),
        _step("report of first and last", folder, "report", first, last, "-o", str(folder / "report.md")),
        _step("export to JSON lines", folder, "history", "--export", table),
    ]


def _floor(lines: Path) -> Step:
    """Decoding alone, in this process, a record at a time: no import that checks them takes less on one core."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    with lines.open("rb") as file:
        for line in file:
            decode(line, lines)
    return Step("floor: decoding on one core", time.perf_counter() - began_s, time.process_time() - began_cpu_s, 0, 0)


def _step(name: str, folder: Path, *words: str) -> Step:
    began_s = time.perf_counter()
    command = [sys.executable, "-m", "harness", *words]
    process = subprocess.Popen(command, env=os.environ | {"EDGE_HARNESS_HOME": str(folder)}, stdout=subprocess.DEVNULL)
    ended, done, peak = threading.Event(), 0, [0]

    def watch() -> None:
        while not ended.wait(0.1):
            with contextlib.suppress(psutil.Error):
                parent = psutil.Process(process.pid)
                sizes = [p.memory_full_info() for p in (parent, *parent.children(recursive=True))]
                peak[0] = max(peak[0], sum(getattr(s, "pss", s.rss) for s in sizes))

    watching = threading.Thread(target=watch)
    watching.start()
    _, done, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began_s
    ended.set()
    watching.join()
    process.returncode = os.waitstatus_to_exitcode(done)
    most = max(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), peak[0])
    return Step(name, seconds, usage.ru_utime + usage.ru_stime, most, process.returncode)


@click.command()
@click.option("--count", default=100_000, show_default=True, type=click.IntRange(2, 10**6))
@click.option("--json", "as_json", is_flag=True)
@click.option("--keep", "kept", is_flag=True, help="Write the table to reports/scale/records.json too.")
def main(count: int, as_json: bool, kept: bool) -> None:
    """Print what each step takes."""
    with tempfile.TemporaryDirectory() as folder:
        steps = measure(count, Path(folder))
    if as_json:
        click.echo(json.dumps([step._asdict() for step in steps], indent=1))
        return
    for step in steps:
        times = f"{step.seconds:7.2f} s, {step.cpu_seconds:6.2f} s of CPU"
        click.echo(f"{step.name:<32} {times}  {step.peak_bytes / MIB:6.0f} MiB  status {step.status}")
    if kept:
        columns = ("step", "wall clock, s", "CPU of all processes, s", "peak memory, MiB", "exit status")
        rows = [
            (s.name, f"{s.seconds:.2f}", f"{s.cpu_seconds:.2f}", f"{s.peak_bytes / MIB:.0f}" if s.peak_bytes else "-",
             str(s.status))
            for s in steps
        ]  # fmt: skip
        keep("scale/records.json", columns, rows, f"python -m bench records_scale --count {count}")


if __name__ == "__main__":
    main()
