"""llama-bench on a target: pushed, run beside the device's own counters, and its samples made a record.

Durations are llama-bench's own, taken on the device: the way there adds nothing to them. When each repetition
began is told by its ``--progress`` lines as they arrive, late by the way's latency, which is far below a
counter's period.
"""

import re
import shlex
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.core.base import Frozen
from harness.core.errors import BadDataError, CouldNotRunError, EngineError, HarnessError, RefusedError
from harness.core.outside import understood
from harness.core.ports import Emit
from harness.core.progress import Progress
from harness.core.record import Record, Sample, Validity
from harness.core.result import Window
from harness.core.scenario import Scenario
from harness.measure.child import run_helper
from harness.measure.jobs.generate import plan
from harness.measure.jobs.soak import SoakJob, limit_reached
from harness.measure.pipeline import Measurement, key_of
from harness.measure.probe.tiny_model import matrices, tiny_shape, write_tiny
from harness.measure.protocol import GenerateJob
from harness.measure.sensors import EnergyMeter
from harness.measure.targets import target_named
from harness.measure.targets.shell import LOST, CounterFrames, Frame, Running, ShellTarget
from harness.measure.targets.target_facts import (
    Facts,
    battery_percent,
    celsius,
    doubts,
    drained_joules,
    facts,
    fingerprint,
    ready,
)
from harness.measure.validity import ValidityProbe, Watch
from harness.models.file_hash import sha256_of
from harness.onnx.files import model_files
from harness.records.imports.bench_rows import of_llama_bench
from harness.runtimes.executable import rows, spelled

PROGRAM: Final = "llama-bench"
_BEGUN = re.compile(r"benchmark \d+/\d+: (?:prompt|generation) run \d+/\d+$")
_LITTLE_MEMORY_RATIO: Final = 0.05
_GRACE_S: Final = 10.0
_SOAK_REPETITIONS: Final = 1_000_000
"""More than there is time for: a soak is ended."""
_SOAK_TOKENS: Final = 16
"""Tokens of one repetition: some tenths of a second on a phone."""
_BATTERY_PERCENT_MIN: Final = 20
_FIELDS: Final = {"peak_rss_bytes": "VmHWM", "anonymous_bytes": "RssAnon", "file_bytes": "RssFile"}
"""Fields of /proc/PID/status by what they tell. Source: proc_pid_status(5)."""


class There(Frozen):
    """What the child does on the target ``on``: run llama-bench there, by ``words``, for a job of this machine's.

    Pushed files lie in ``folder``; ``battery_joules`` are those of its battery when it is full.
    """

    on: str
    folder: str
    words: tuple[str, ...]
    soak: SoakJob | None = None
    battery_joules: float | None = None

    def target(self) -> ShellTarget:
        """The target, from here."""
        return target_named(self.on, folder=self.folder)


def program_for(programs: Path, abi: str) -> Path:
    """``programs/ABI/llama-bench`` or ``programs/llama-bench``; BadDataError where there is none."""
    path = next((p for p in (programs / abi / PROGRAM, programs / PROGRAM) if p.is_file()), None)
    if path is None:
        raise BadDataError(
            programs, "", f"no {PROGRAM} and no {abi}/{PROGRAM}", f"an executable of llama.cpp for {abi}"
        )
    return path


def key_there(planned: Measurement, known: Facts, programs: Path, cpus: Sequence[int]) -> str:
    """Key of a measurement on a target, known before anything is pushed to it.

    Raises:
        BadDataError: The folder of programs has no executable for the target.
    """
    assert isinstance(planned.job, (GenerateJob, SoakJob)) and planned.model is not None
    program = program_for(programs, known.abi)
    build = [sha256_of(file) for file in (program, *sorted(program.parent.glob("*.so*")))]
    job = planned.job.replace(path="")
    machine = fingerprint(known).fingerprint
    return key_of("on target", planned.model.sha256, job, planned.scenario, cpus, build, machine)


def on_target(
    planned: Measurement,
    target: ShellTarget,
    known: Facts,
    programs: Path,
    *,
    cpus: Sequence[int] = (),
    progress: Progress | None = None,
) -> Measurement:
    """The same measurement (the protocol, or a soak) by llama-bench on a target, to which what is not there is pushed.

    ``programs`` is a folder here with llama-bench, or with a folder for each ABI that has it; ``cpus`` are
    those there.

    Raises:
        CouldNotRunError: The target does not answer, sleeps, has no room, or its battery is low.
        RefusedError: The model is in several files.
        BadDataError: There is no executable for it.
    """
    job = planned.job
    scenario = planned.scenario
    assert isinstance(job, (GenerateJob, SoakJob)) and planned.model is not None
    path = Path(job.path)
    if len(model_files(path)) > 1:
        raise RefusedError(
            f"{path.name} is one of several files: llama-bench on a target takes a model in one"
        )
    if isinstance(job, SoakJob):
        soak, repetitions = job, _SOAK_REPETITIONS
        scenario = scenario.replace(prompt_tokens=0, new_tokens=_SOAK_TOKENS, depth_tokens=0)
    else:
        soak, repetitions = None, job.repetitions
    ready(target, known, soak.battery_percent_min if soak else _BATTERY_PERCENT_MIN)
    target.stop()
    there = target.put_program(program_for(programs, known.abi))
    file = target.put(path, planned.model.sha256, progress=progress)
    text = target.shell(f"{shlex.join(there)} --help 2>&1", check=False)
    threads = scenario.thread_count or len(cpus) or known.cpu.thread_count
    bound = ("taskset", f"{sum(1 << cpu for cpu in cpus):x}") if cpus else ()
    options = spelled(scenario.replace(thread_count=threads), repetitions, text)
    job_there = There(
        on=target.name,
        folder=target.folder,
        words=(*bound, *there, "-m", file, *options, "--progress"),
        soak=soak,
        battery_joules=known.battery_joules,
    )
    return planned._replace(
        entry=f"{__name__}:{'run_soak' if soak else 'run_bench'}",
        job=job_there,
        runtime="executable",
        key=key_there(planned, known, programs, cpus),
        notes={"target": target.name},
        machine=fingerprint(known),
    )


@understood("the target")
def run_bench(job: There, emit: Emit) -> None:
    """Child's entry; its samples are told once all are there, each with what the device's counters say of it.

    Raises:
        EngineError: It failed there, or the connection broke; its ``outcome`` says how.
    """
    target = job.target()
    begun: list[float] = []
    log: list[str] = []
    emit("memory", {"mark": "loaded", "elsewhere": True})  # so it stays where the run breaks off
    with target.counters() as counters:
        running = target.start(job.words)
        for at, line in running.told():
            log.append(line)
            if _BEGUN.search(line):
                begun.append(at)
        record = _read(target, running, log, counters)
        samples = record.samples
        ended_s = time.monotonic()
        epoch_s = time.time() - ended_s  # once: between two readings of clocks any time may pass
        if len(samples) == len(begun):
            counters.around(ended_s, ended_s)
            samples = tuple(
                _judged(s, at, epoch_s, running, counters) for s, at in zip(samples, begun, strict=True)
            )
        memory = {name: _most(counters.frames, running.pid, field) for name, field in _FIELDS.items()}
    emit("engine", record.engine)
    for sample in samples:
        emit("sample", sample)
    for mark in ("loaded", "end"):
        emit("memory", {"mark": mark, "elsewhere": not memory["peak_rss_bytes"], **memory})


@understood("the target")
def run_soak(job: There, emit: Emit) -> None:
    """Child's entry: repetitions of llama-bench, each begun by a line of ``--progress``.

    A window is as many of them as fill the soak's ``window_s``, timed by the arrival of those lines.

    Raises:
        EngineError: llama-bench failed there, or the connection broke.
    """
    target = job.target()
    soak = job.soak
    count = -1
    assert soak is not None
    emit("memory", {"mark": "end", "elsewhere": True})
    with target.counters() as counters:
        running = target.start(job.words)
        for at, line in running.told():
            if not _BEGUN.search(line):
                continue
            count += 1
            if not count:
                with (counters.frames or [Frame(0.0, {})])[-1].laid() as root:
                    scope = EnergyMeter(root=root).source.replace("not available", "battery charge counter")
                told = {"battery_joules": job.battery_joules, "started_unix_s": time.time()}
                emit("energy", {"scope": scope, **told})
                first = start = at
            if at - start < soak.window_s:
                continue
            window = Window(
                since_start_s=start - first, duration_s=at - start, token_count=count * _SOAK_TOKENS
            )
            window = _with_counters(window, counters.around(start, at, patience_s=1), running)
            emit("window", window)
            start = at
            count = 0
            if limit := limit_reached(window, soak):
                emit("stopped", limit)
            if limit or at - first >= 60 * soak.minutes:
                break
        else:
            _read(target, running, [line], counters)
        running.kill()


def _with_counters(window: Window, frames: Sequence[Frame], running: Running) -> Window:
    """The window with what the device's counters say of it."""
    if len(frames) < 2:
        return window
    validity, joules = between(frames, running.pid, running.shell_pid)
    if joules is None:
        joules = drained_joules(frames[0], frames[-1])
    if joules is not None:
        joules *= window.duration_s / (frames[-1].at_s - frames[0].at_s)
    return window.replace(
        celsius=validity.temperature_celsius_max,
        frequency_hz=validity.frequency_hz,
        joules=joules,
        battery_percent=battery_percent(frames[-1]),
    )


def _read(target: ShellTarget, running: Running, log: Sequence[str], counters: CounterFrames) -> Record:
    """What llama-bench printed; EngineError where it did not end well."""
    status, output = running.finish(_GRACE_S)
    last = " / ".join(log[-2:])
    if status == 0:
        try:
            return of_llama_bench(rows(output), target.name)[0]
        except (HarnessError, IndexError) as error:
            raise EngineError(f"llama-bench's output is no JSON of it ({error})") from error
    if status == LOST:
        raise EngineError(f"{target.name}: the connection broke at: {last}")
    if status <= 128:
        raise EngineError(f"llama-bench ended with status {status}: {last}", "refused")
    if status == 128 + 9 and counters.frames:
        memory = counters.frames[-1].files.get("/proc/meminfo", "")
        kib = {name: int(amount) for name, amount in re.findall(r"(?m)^(\w+):\s+(\d+)", memory)}
        free = kib.get("MemAvailable", 0)
        if free < _LITTLE_MEMORY_RATIO * kib.get("MemTotal", 0):
            raise EngineError(f"killed with {free} KiB left at: {last}", "out of memory")
    raise EngineError(f"llama-bench ended with signal {status - 128}: {last}", "crashed")


def _judged(
    sample: Sample, begun_s: float, epoch_s: float, running: Running, counters: CounterFrames
) -> Sample:
    """The sample with what the device's counters say of it, and the energy where it tells."""
    frames = counters.around(begun_s, begun_s + sample.duration_s, patience_s=0)
    sample = sample.replace(started_unix_s=epoch_s + begun_s)
    if len(frames) < 2:
        stopped = "the device's counters stopped: nothing is known of its state"
        return sample.replace(validity=Validity(doubts=(stopped,)))
    validity, joules = between(frames, running.pid, running.shell_pid)
    if joules is not None:
        joules *= min(sample.duration_s / (frames[-1].at_s - frames[0].at_s), 1.0)
    return sample.replace(validity=validity, energy_joules=joules)


def between(frames: Sequence[Frame], pid: int, shell_pid: int) -> tuple[Validity, float | None]:
    """Validity and joules between the first and the last frame, by the readers that serve this machine.

    ``shell_pid`` is the shell that waits for ``pid``: once that has ended, its CPU time counts there.
    """
    at = [frames[0].at_s]
    with frames[0].laid() as root:
        probe = ValidityProbe(pid, own_pids=(shell_pid,), root=root, clock=lambda: at[0])
        with Watch(probe, EnergyMeter(root=root, clock=lambda: at[0])) as watch:
            frames[-1].write(root)
            at[0] = frames[-1].at_s
    hottest = watch.validity.temperature_celsius_max or celsius(frames[-1])
    told = watch.validity.replace(temperature_celsius_max=hottest)
    return told.doubted(*doubts(frames)), watch.joules


def _most(frames: Sequence[Frame], pid: int, field: str) -> int:
    """Most bytes that a field of the process's status told; 0 where nothing tells."""
    texts = [f.files.get(f"/proc/{pid}/status", "") for f in frames]
    hits = (re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE) for text in texts)
    return max((int(hit[1]) * 1024 for hit in hits if hit), default=0)


def read_bandwidth(target: ShellTarget, programs: Path) -> float:
    """Bytes/s that llama-bench reads from the target's memory: weight bytes x tokens/s of a small F16 model.

    Raises:
        CouldNotRunError: The target does not answer, or llama-bench failed there.
        BadDataError: There is no executable for it.
    """
    shape = tiny_shape(4, 1024, 4096, 16, 16, vocab_count=512)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bandwidth-f16.gguf"
        write_tiny(path, shape, "F16")
        scenario = Scenario(context_tokens=64, prompt_tokens=0, new_tokens=32)
        planned = plan(GenerateJob(path=str(path), scenario=scenario, repetitions=3), None)
        there = on_target(planned, target, facts(target), programs)
        ended = run_helper(there.entry, there.job)
    if ended.outcome != "ok":
        raise CouldNotRunError(f"{target.name}: {ended.detail}")
    best: float = max(s.token_count / s.duration_s for s in ended.told("sample", Sample))
    return best * sum(tensor.size_bytes for tensor in matrices(shape, "F16"))
