"""llama-bench on a target: pushed, run beside the device's own counters, and its samples made a record.

Durations are llama-bench's own, taken on the device: the way there adds nothing to them. When each repetition began
is told by its ``--progress`` lines as they arrive, late by the way's latency, which is far below a counter's period.
"""

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from harness.catalog._progress import Progress
from harness.domain.base import Frozen
from harness.domain.prediction import Prediction
from harness.domain.record import MemoryUse, ModelIdentity, Outcome, RunRecord, Sample, Validity
from harness.domain.result import Generation, Window
from harness.domain.scenario import Scenario
from harness.errors import BadDataError, CouldNotRunError, HarnessError, RefusedError
from harness.measure.child import Limits
from harness.measure.jobs.soak import SoakJob, limit_reached, summarise
from harness.measure.runner import identify, new_record
from harness.measure.sensors import EnergyMeter
from harness.measure.tiny_model import matrices, tiny_shape, write_tiny
from harness.measure.validity import ValidityProbe, Watch
from harness.onnx.files import model_files
from harness.records.imports.tools import of_llama_bench
from harness.runtimes.executable import placed
from harness.targets.facts import Facts, battery_percent, celsius, doubts, drained_joules, facts, fingerprint, ready
from harness.targets.shell import LOST, CounterFrames, Frame, Running, ShellTarget

PROGRAM: Final = "llama-bench"
_ELF_MACHINES: Final = {"x86_64": 62, "arm64-v8a": 183}
"""``e_machine`` of the ELF specification."""
_BEGUN = re.compile(r"benchmark \d+/\d+: (?:prompt|generation) run \d+/\d+$")
_LITTLE_MEMORY_RATIO: Final = 0.05
_GRACE_S: Final = 10.0
_SOAK_TOKENS: Final = 16
"""Tokens of one repetition: some tenths of a second on a phone."""


class BenchJob(Frozen):
    """What is measured on a target; less charge than ``battery_percent_min`` is refused.

    ``programs`` is a folder here with llama-bench, or with a folder for each ABI that has it; ``limits`` say how long
    it may take, and its CPUs there.
    """

    scenario: Scenario
    programs: Path
    repetitions: int = 5
    battery_percent_min: int = 20
    limits: Limits = Limits()


def program_for(programs: Path, abi: str) -> Path:
    """``programs/ABI/llama-bench`` or ``programs/llama-bench``; BadDataError: there is none, or for another machine."""
    path = next((p for p in (programs / abi / PROGRAM, programs / PROGRAM) if p.is_file()), None)
    if path is None:
        raise BadDataError(
            programs, "", f"no {PROGRAM} and no {abi}/{PROGRAM}", f"an executable of llama.cpp for {abi}"
        )
    head = path.read_bytes()[:20] if path.stat().st_size >= 20 else b""
    found = int.from_bytes(head[18:20], "little") if head[:4] == b"\x7fELF" else None
    if found is None or found != _ELF_MACHINES.get(abi, found):
        raise BadDataError(path, "", "no ELF file" if found is None else f"ELF machine {found}", f"one for {abi}")
    return path


def bench_on(
    target: ShellTarget,
    path: Path,
    job: BenchJob,
    model: ModelIdentity,
    *,
    prediction: Prediction | None = None,
    progress: Progress | None = None,
) -> RunRecord:
    """Measure the model in ``path`` on a target. Whatever happens once it started there is a record.

    Raises:
        CouldNotRunError: The target does not answer, sleeps, has no room, or its battery is below the limit.
        RefusedError: The model is in several files.
        BadDataError: There is no executable for it.
    """
    s = job.scenario
    tests = ["-p", s.prompt_tokens, "-n", s.new_tokens, "-d", s.depth_tokens, "-r", job.repetitions]
    words, known = _prepared(target, path, model, job, tests, progress)
    begun: list[float] = []
    log: list[str] = []
    started_s = time.monotonic()
    with target.counters() as counters:
        counters.around(started_s, started_s)
        running = target.start(words)
        for at, line in running.told(job.limits.wall_s):
            log.append(line)
            if _BEGUN.search(line):
                begun.append(at)
        status, output = running.finish(_GRACE_S)
        outcome, detail, read = _read(target, running, status, output, log, counters)
        samples = read.samples if read else ()
        if len(samples) == len(begun):
            ended_s = time.monotonic()
            epoch_s = time.time() - ended_s  # once: between two readings of clocks any time may pass
            counters.around(ended_s, ended_s)
            samples = tuple(_judged(s, at, epoch_s, running, counters) for s, at in zip(samples, begun, strict=True))
        frames = list(counters.frames)
    if outcome == "ok" and samples and all(s.validity.doubts for s in samples):
        outcome, detail = "inconclusive", samples[-1].validity.doubts[0]
    return new_record(
        scenario=s,
        workload="generate",
        runtime="executable",
        result=Generation(repetitions=job.repetitions),
        outcome=outcome,
        detail=detail,
        machine=fingerprint(known),
        engine=read.engine if read else None,
        model=model,
        samples=samples,
        memory=_memory(frames, running.pid),
        prediction=prediction,
        extra={"target": target.name, "counter_frames": len(frames)},
    )


def soak_on(
    target: ShellTarget,
    job: SoakJob,
    programs: Path,
    model: ModelIdentity,
    *,
    hear: Callable[[Window], None],
    limits: Limits = Limits(wall_s=86_400.0),  # noqa: B008  an immutable tuple
) -> RunRecord:
    """Decode on a target for ``job.minutes``: repetitions of llama-bench, each begun by a line of ``--progress``.

    A window is as many repetitions as fill ``job.window_s``, timed by the arrival of those lines.

    Raises:
        CouldNotRunError: The target does not answer, sleeps or has no room; or llama-bench did not start.
        BadDataError: There is no executable for it.
    """
    battery = round(job.battery_percent_min)
    bench = BenchJob(scenario=job.scenario, programs=programs, battery_percent_min=battery, limits=limits)
    tests = ["-p", 0, "-n", _SOAK_TOKENS, "-r", 1_000_000]
    words, known = _prepared(target, Path(job.path), model, bench, tests, None)
    windows: list[Window] = []
    first = start = started_unix_s = 0.0
    count, stopped, last = 0, "", ""
    outcome: Outcome = "ok"
    with target.counters() as counters:
        running = target.start(words)
        for at, last in running.told(limits.wall_s):
            if not _BEGUN.search(last):
                continue
            if not first:
                first, start, started_unix_s = at, at, time.time()
                continue
            count += 1
            if at - start < job.window_s:
                continue
            frames = counters.around(start, at, patience_s=1)
            windows.append(_window(frames, running, start - first, at - start, count))
            hear(windows[-1])
            start, count, stopped = at, 0, limit_reached(windows[-1], job)
            if stopped or at - first >= 60 * job.minutes:
                break
        else:
            outcome, stopped, _ = _read(target, running, running.finish(_GRACE_S)[0] or LOST, "", [last], counters)
        running.kill()
        scope = ""
        if counters.frames:
            with tempfile.TemporaryDirectory() as folder:
                counters.frames[-1].write(Path(folder))
                scope = EnergyMeter(root=Path(folder)).source.replace("not available", "battery charge counter")
    found = summarise(
        windows,
        job,
        energy_scope=scope,
        battery_joules=known.battery_joules,
        started_unix_s=started_unix_s,
        stopped=stopped,
    )
    return new_record(
        scenario=job.scenario,
        workload="soak",
        outcome=outcome,
        detail=stopped if outcome != "ok" else "",
        machine=fingerprint(known),
        model=model,
        runtime="executable",
        result=found,
        extra={"target": target.name},
    )


def _window(frames: Sequence[Frame], running: Running, since_s: float, duration_s: float, count: int) -> Window:
    window = Window(since_start_s=since_s, duration_s=duration_s, token_count=count * _SOAK_TOKENS)
    if len(frames) < 2:
        return window
    validity, joules = between(frames, running.pid, running.shell_pid)
    joules = drained_joules(frames[0], frames[-1]) if joules is None else joules
    scale = duration_s / (frames[-1].at_s - frames[0].at_s)
    memory = _memory(frames[-1:], running.pid)
    return window.replace(
        celsius=validity.temperature_celsius_max,
        frequency_hz=validity.frequency_hz,
        joules=joules * scale if joules is not None else None,
        battery_percent=battery_percent(frames[-1]),
        resident_bytes=memory.peak_rss_bytes if memory else None,
    )


def _prepared(
    target: ShellTarget,
    path: Path,
    model: ModelIdentity,
    job: BenchJob,
    tests: Sequence[object],
    progress: Progress | None,
) -> tuple[list[str], Facts]:
    """Look at the target, push what is not there, end what an earlier session left; the command, and what was seen."""
    if len(model_files(path)) > 1:
        raise RefusedError(f"{path.name} is one of several files: llama-bench on a target takes a model in one")
    known = facts(target)
    ready(target, known, job.battery_percent_min)
    program = program_for(job.programs, known.abi)
    target.stop()
    there = target.put_program(program)
    file = target.put(path, model.sha256, progress=progress)
    s, kv, cpus = job.scenario, job.scenario.kv_type.lower(), job.limits.cpus
    words: list[object] = ["taskset", f"{sum(1 << cpu for cpu in cpus):x}"] if cpus else []
    words += [*there, "-m", file, *tests, "-ub", s.ubatch_tokens, "-fa", int(s.flash_attention)]
    words += ([] if s.mmap else ["--load-mode", "none"]) + ([] if s.repack else ["--repack", 0])
    words += ["-ctk", kv, "-ctv", kv, *placed(s), "-o", "json", "--progress"]
    words += ["-t", s.thread_count or len(cpus) or known.cpu.thread_count]
    return [str(word) for word in words], known


def _read(
    target: ShellTarget, running: Running, status: int, output: str, log: Sequence[str], counters: CounterFrames
) -> tuple[Outcome, str, RunRecord | None]:
    last = " / ".join(log[-2:])
    if status == 0:
        try:
            return "ok", "", of_llama_bench(msgspec.json.decode(output), target.name)[0]
        except (msgspec.DecodeError, HarnessError, IndexError) as error:
            return "failed", f"llama-bench's output is no JSON of it ({error})", None
    if running.late_s:
        return "timed out", f"not done within {running.late_s:g} s", None
    if status == LOST:
        return "failed", f"{target.name}: the connection broke at: {last}", None
    if status == 128 + 9:
        memory = counters.frames[-1].files.get("/proc/meminfo", "") if counters.frames else ""
        kib = {m[1]: int(m[2]) for m in re.finditer(r"^(\w+):\s+(\d+)", memory, re.MULTILINE)}
        if kib and kib.get("MemAvailable", 0) < _LITTLE_MEMORY_RATIO * kib.get("MemTotal", 1):
            return "out of memory", f"killed with {kib.get('MemAvailable', 0)} KiB left at: {last}", None
    signal = f"signal {status - 128}" if status > 128 else f"status {status}"
    return ("crashed" if status > 128 else "refused"), f"llama-bench ended with {signal}: {last}", None


def _judged(sample: Sample, begun_s: float, epoch_s: float, running: Running, counters: CounterFrames) -> Sample:
    """The sample with what the device's counters say of it, and the energy where it tells."""
    frames = counters.around(begun_s, begun_s + sample.duration_s, patience_s=0)
    validity, energy = Validity(doubts=("the device's counters stopped: nothing is known of its state",)), None
    if len(frames) >= 2:
        validity, joules = between(frames, running.pid, running.shell_pid)
        share = sample.duration_s / (frames[-1].at_s - frames[0].at_s)
        energy = joules * min(share, 1.0) if joules is not None else None
    return sample.replace(validity=validity, started_unix_s=epoch_s + begun_s, energy_joules=energy)


def between(frames: Sequence[Frame], pid: int, shell_pid: int) -> tuple[Validity, float | None]:
    """Validity and joules between the first and the last frame, by the readers that serve this machine.

    ``shell_pid`` is the shell that waits for ``pid``: once that has ended, its CPU time counts there.
    """
    with tempfile.TemporaryDirectory() as folder:
        root, at = Path(folder), [frames[0].at_s]
        frames[0].write(root)
        probe = ValidityProbe(pid, own_pids=(shell_pid,), root=root, clock=lambda: at[0])
        with Watch(probe, EnergyMeter(root=root, clock=lambda: at[0])) as watch:
            frames[-1].write(root)
            at[0] = frames[-1].at_s
    hottest = watch.validity.temperature_celsius_max or celsius(frames[-1])
    told = watch.validity.replace(temperature_celsius_max=hottest)
    return told.doubted(*doubts(frames)), watch.joules


def _memory(frames: Sequence[Frame], pid: int) -> MemoryUse | None:
    texts = [f.files.get(f"/proc/{pid}/status", "") for f in frames]
    peaks = [int(m[1]) * 1024 for t in texts if (m := re.search(r"^VmHWM:\s+(\d+) kB", t, re.MULTILINE))]
    return MemoryUse(peak_rss_bytes=max(peaks)) if peaks else None


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
        job = BenchJob(scenario=scenario, programs=programs, repetitions=3)
        record = bench_on(target, path, job, identify(path, None))
    if not record.samples:
        raise CouldNotRunError(f"{target.name}: {record.detail}")
    best = max(s.token_count / s.duration_s for s in record.samples)
    return best * sum(tensor.size_bytes for tensor in matrices(shape, "F16"))
