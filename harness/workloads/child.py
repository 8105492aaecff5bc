"""Measure a system in a child process: open its parts, prepare, answer each case on the clock, score the answers."""

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from harness.domain.base import Frozen
from harness.ports import Emit
from harness.workloads.parts import open_parts
from harness.workloads.system import Case, Cases, Context, System, kind_of, load, read_cases

_MOST_ANSWERS: Final = 2000
"""Answers that a record keeps; the figures are of all."""
_TIME_SHARE: Final = 0.9
"""Of the time limit, after which no new case begins: the run ends with what it has."""


class SystemJob(Frozen):
    """What the child is to do: the path of each part (empty: the one that is fetched), the file of cases or none.

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
    """Entry point of the child; HarnessError where the system cannot run, or its answers are wrong."""
    from harness.measure.memory_watch import memory_mark, reset_peak
    from harness.workloads.predict import core_here, laws_of

    system = load(job.name)
    memory_mark("baseline", emit)
    with tempfile.TemporaryDirectory(prefix="edge-harness-system-") as folder:
        context = Context(Path(folder), Path(job.cache or folder), job.seed, job.thread_count)
        parts = open_parts(job.parts, context)
        cases = read_cases(Path(job.cases), system) if job.cases else list(system.cases(job.size, job.seed))
        laws = {name: law._asdict() for name, law in laws_of(parts).items()}
        begin = time.perf_counter()
        state = system.prepare(parts, job.size, context)
        emit("prepared_s", time.perf_counter() - begin)
        emit("units", {"laws": laws, "core": core_here()})
        reset_peak()  # building may take more than running, and this peak is of what is timed
        memory_mark("loaded", emit)
        asked = cases if job.evaluate else first_cases(cases, job.repetitions)
        emit("steps", len(asked))
        answers = _answer(system, state, asked, job, emit)
        memory_mark("end", emit)
        asked = asked[: len(answers)]
        emit("quality", {"case_count": len(asked), **system.score(asked, answers)})


def first_cases(cases: Cases, repetitions: int) -> list[Case]:
    """The first cases, up to where each kind was timed so often: once more, as its first step fills caches."""
    counts: Counter[str] = Counter()
    last = 0
    for at, kind in enumerate(map(kind_of, cases), 1):
        counts[kind] += 1
        if counts[kind] <= repetitions + 1:
            last = at
    return list(cases[:last])


def _answer(system: System, state: Any, cases: Cases, job: SystemJob, emit: Emit) -> list[Any]:
    """Each case once, timed, while there is time; the first step of a kind only where it is the only one."""
    from harness.measure.validity import Watch, child_probe

    totals = Counter(map(kind_of, cases))
    seen: set[str] = set()
    answers: list[Any] = []
    started = time.perf_counter()
    for case in cases:
        now = time.perf_counter()
        if answers and now - started > _TIME_SHARE * job.wall_s:
            emit("said", f"the time is up after {len(answers)} of {len(cases)} cases")
            break
        kind = kind_of(case)
        with Watch(child_probe()) as watch:
            begin = time.perf_counter()
            answer = system.step(state, case)
            duration_s = time.perf_counter() - begin
        if kind in seen or totals[kind] == 1:
            emit("sample", watch.sample("workload", kind, 1, duration_s=duration_s))
        seen.add(kind)
        if len(answers) < _MOST_ANSWERS:
            emit("answer", {"case": len(answers), "kind": kind, "answer": answer})
        answers.append(answer)
    return answers
