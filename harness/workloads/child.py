"""Run a system in a child process: open its parts, answer each case on the clock, and tell the passes that it took."""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from harness import plugins
from harness.domain.base import Frozen
from harness.domain.scenario import Scenario
from harness.ports import Emit
from harness.workloads.parts import Parts, open_parts
from harness.workloads.passes import StepTime
from harness.workloads.system import Context, System, kind_of, load, read_cases

_TIME_SHARE: Final = 0.9
"""Of the time limit, after which no new case begins: the run ends with what it has."""


class SystemJob(Frozen):
    """What the child is to do: the path of each part, and the file of cases or none.

    It ends once each kind of step was timed ``repetitions`` times; with ``evaluate`` after the last case.
    """

    name: str
    size: dict[str, int]
    parts: dict[str, str] = {}
    cache: str = ""
    cases: str = ""
    repetitions: int = 30
    seed: int = 1
    thread_count: int = 1
    evaluate: bool = False
    wall_s: float = 1800.0


def run(job: SystemJob, emit: Emit) -> None:
    """Entry point of the child; HarnessError where the system cannot run, or an answer is wrong."""
    from harness.measure.memory_watch import memory_mark, reset_peak

    system = load(job.name)
    with tempfile.TemporaryDirectory(prefix="edge-harness-system-") as folder:
        context = Context(Path(folder), Path(job.cache or folder), job.seed, job.thread_count)
        parts = open_parts(job.parts, context_tokens=system.context_tokens, thread_count=job.thread_count)
        if any(Path(path).is_file() for path in job.parts.values()):
            emit("engine", plugins.usable_runtime("llamacpp").identity(Scenario()))
        asked = asked_cases(system, job)
        begin = time.perf_counter()
        state = system.prepare(parts, job.size, context)
        emit("prepared_s", time.perf_counter() - begin)
        parts.meter.drain()
        reset_peak()  # building may take more than running, and this peak is of what is timed
        memory_mark("loaded", emit)
        emit("steps", len(asked))
        _answer(system, state, parts, asked, job, emit)
        memory_mark("end", emit)
        for held in parts.memory():
            emit("part", held)


def asked_cases(system: System, job: SystemJob) -> list[Any]:
    """The cases that a run puts: all of them, or the first ones, up to where each kind was timed often enough.

    Once more, as the first step of a kind fills caches.
    """
    cases = read_cases(Path(job.cases), system) if job.cases else list(system.cases(job.size, job.seed))
    if job.evaluate:
        return cases
    counts: Counter[str] = Counter()
    last = 0
    for at, kind in enumerate(map(kind_of, cases), 1):
        counts[kind] += 1
        if counts[kind] <= job.repetitions + 1:
            last = at
    return cases[:last]


def _answer(
    system: System, state: Any, parts: Parts, cases: Sequence[Any], job: SystemJob, emit: Emit
) -> None:
    """Each case once, timed, while there is time; the first step of a kind only where it is the only one."""
    from harness.measure.validity import Watch, child_probe

    totals = Counter(map(kind_of, cases))
    seen: set[str] = set()
    started = time.perf_counter()
    for at, case in enumerate(cases):
        if at and time.perf_counter() - started > _TIME_SHARE * job.wall_s:
            emit("said", f"the time is up after {at} of {len(cases)} cases")
            break
        kind = kind_of(case)
        with Watch(child_probe()) as watch:
            begin = time.perf_counter()
            answer = system.step(state, case)
            duration_s = time.perf_counter() - begin
        passes = parts.meter.drain()
        if kind in seen or totals[kind] == 1:
            emit("sample", watch.sample("workload", kind, 1, duration_s))
            emit("step", StepTime(step=kind, duration_s=duration_s, passes=passes))
        seen.add(kind)
        emit("answer", {"case": at, "kind": kind, "answer": answer})
