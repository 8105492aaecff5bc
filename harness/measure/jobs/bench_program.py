"""The protocol as llama.cpp's own programs run it: their raw samples, with the machine's state around each process."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from harness.core.errors import EngineError
from harness.core.outside import StreamReader
from harness.core.ports import Emit
from harness.core.record import Outcome, Validity
from harness.measure.memory_watch import MemoryReading, MemoryWatch
from harness.measure.protocol import GenerateJob
from harness.measure.validity import Watch, child_probe
from harness.records.imports.bench_rows import samples_of
from harness.runtimes.executable import RUNTIME, command, rows

_NAMED: Final = ("build_commit", "backends", "cpu_info", "gpu_info")
"""What a row of llama-bench says of the engine."""


def run_executable(job: GenerateJob, emit: Emit) -> None:
    """Entry point of the child: time one model by llama-bench.

    All samples of a process share what the machine did meanwhile. llama-bench warms up by itself.

    Raises:
        EngineError: The program is missing, refused the model, or crashed.
    """
    # Where the process breaks off nobody knows what it held: it is not what this one does.
    emit("memory", {"mark": "loaded", "elsewhere": True})
    output, validity, peak = _run(command(Path(job.path), job.scenario, job.repetitions))
    printed = rows(output)
    if not printed:
        raise EngineError(f"the program printed no result: {output[-200:]!r}")
    named = {name: printed[0][name] for name in _NAMED if name in printed[0]}
    identity = RUNTIME.identity(job.scenario)
    emit("engine", identity.replace(options={**identity.options, **named}))
    for row in printed:
        for sample in samples_of(row, "llama-bench"):
            emit("sample", sample.replace(validity=validity))
    for mark in ("loaded", "end"):
        emit("memory", {"mark": mark, "elsewhere": False, **peak._asdict()})


def _run(given: list[str]) -> tuple[str, Validity, MemoryReading]:
    """Output of one process, what the machine did meanwhile, and the most memory that the process held."""
    with Watch(child_probe()) as watch:
        process = subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
        memory = MemoryWatch(process.pid)
        memory.start()
        readers = [
            StreamReader(stream, process.kill)
            for stream in (process.stdout, process.stderr)
            if stream is not None
        ]
        process.wait()
        for reader in readers:
            reader.join()
    use = memory.stop()
    output, errors = (reader.taken().decode(errors="replace") for reader in readers)
    log = errors.splitlines(keepends=True)
    sys.stderr.write("".join(log[-50:]))
    if status := process.returncode:
        outcome: Outcome = "refused"
        if status == -signal.SIGABRT:
            outcome = "aborted"
        elif status < 0:
            outcome = "crashed"
        last = " ".join("".join(log[-3:]).split())[-300:]
        raise EngineError(f"{Path(given[0]).name} ended with status {status}: {last}", outcome)
    peak = MemoryReading(
        use.peak_rss_bytes, use.peak_rss_bytes, use.peak_anonymous_bytes, use.peak_file_bytes
    )
    return output, watch.validity, peak
