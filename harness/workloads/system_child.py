"""Run a system in a child process: open its parts, answer each case on the clock, and tell the passes that it took."""

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from harness.core import plugins
from harness.core.base import Frozen
from harness.core.ports import Emit
from harness.core.scenario import Scenario
from harness.workloads.chain import StepTime
from harness.workloads.system import Context, System, kind_of, load
from harness.workloads.system_parts import open_parts


class SystemJob(Frozen):
    """What the child is to do: the path of each part, and the file of cases or none.

    It ends once each kind of step was timed ``repetitions`` times; with ``evaluate`` after the last case.
    """

    name: str
    size: dict[str, int]
    parts: dict[str, str] = {}
    cases: str = ""
    repetitions: int = 30
    thread_count: int = 1
    evaluate: bool = False


def run(job: SystemJob, emit: Emit) -> None:
    """Entry point of the child; HarnessError where the system cannot run, or an answer is wrong."""
    from harness.measure.memory_watch import memory_mark, reset_peak
    from harness.measure.validity import Watch, child_probe

    system = load(job.name)
    with tempfile.TemporaryDirectory(prefix="edge-harness-system-") as folder:
        parts = open_parts(job.parts, system.context_tokens, job.thread_count)
        if any(Path(path).is_file() for path in job.parts.values()):
            emit("engine", plugins.usable_runtime("llamacpp").identity(Scenario()))
        cases = asked_cases(system, job)
        state = system.prepare(Context(parts, job.size, Path(folder), job.thread_count))
        parts.meter.drain()
        reset_peak()  # building may take more than running, and this peak is of what is timed
        memory_mark("loaded", emit)
        emit("steps", len(cases))
        kinds = [kind_of(case) for case in cases]
        for at, (kind, asked) in enumerate(zip(kinds, cases, strict=True)):
            case = system.ready(state, asked)
            parts.meter.drain()  # what was made off the clock, for this case or for the one before
            with Watch(child_probe()) as watch:
                begin = time.perf_counter()
                answer = system.step(state, case)
                duration_s = time.perf_counter() - begin
            passes = parts.meter.drain()
            if kind in kinds[:at] or kinds.count(kind) == 1:  # the first step of a kind fills caches
                emit("sample", watch.sample("workload", kind, 1, duration_s))
                emit("step", StepTime(step=kind, duration_s=duration_s, passes=passes))
            if job.evaluate and (nulls := system.nulls(state, asked)):
                answer = {**answer, "nulls": nulls}
            emit("answer", {"case": at, "kind": kind, "answer": answer})
        memory_mark("end", emit)
        for held in (*parts.memory(), *system.memory(state)):
            emit("part", held)


def asked_cases(system: System, job: SystemJob) -> list[Any]:
    """The cases that a run puts: all of them, or the first ones, up to where each kind was timed often enough."""
    cases = list(system.read(Path(job.cases)) if job.cases else system.cases(job.size))
    counts: Counter[str] = Counter()
    last = 0
    for at, kind in enumerate(map(kind_of, cases), 1):
        counts[kind] += 1
        if job.evaluate or counts[kind] <= job.repetitions + 1:
            last = at
    return cases[:last]
