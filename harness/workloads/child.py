"""Run a system in a child process: open its parts, declare the passes of its cases, answer each on the clock, score."""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from harness.domain.base import Frozen
from harness.domain.result import Score
from harness.ports import Emit
from harness.workloads.parts import Parts, open_parts
from harness.workloads.passes import Chain, Pass
from harness.workloads.system import Context, System, kind_of, load, read_cases

_MOST_ANSWERS: Final = 2000
"""Answers that a record keeps; the figures are of all."""
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


class Declared(Frozen):
    """The passes of one case, declared before it runs."""

    step: str
    passes: tuple[Pass, ...] = ()


class StepTime(Frozen):
    """Seconds of one step, and of each of its passes."""

    step: str
    duration_s: float
    passes: tuple[Pass, ...] = ()
    seconds: tuple[float, ...] = ()


def run(job: SystemJob, emit: Emit) -> None:
    """Entry point of the child; HarnessError where the system cannot run, or its answers are wrong."""
    from harness.measure.memory_watch import memory_mark, reset_peak

    system = load(job.name)
    memory_mark("baseline", emit)
    with tempfile.TemporaryDirectory(prefix="edge-harness-system-") as folder:
        context = Context(Path(folder), Path(job.cache or folder), job.seed, job.thread_count)
        parts = open_parts(job.parts, context_tokens=system.context_tokens, thread_count=job.thread_count)
        if (engine := parts.engine()) is not None:
            emit("engine", engine)
        asked = asked_cases(system, job)
        for declared in declare(system, asked, job, parts):
            emit("declared", declared)
        begin = time.perf_counter()
        state = system.prepare(parts, job.size, context)
        emit("prepared_s", time.perf_counter() - begin)
        parts.meter.drain()
        reset_peak()  # building may take more than running, and this peak is of what is timed
        memory_mark("loaded", emit)
        emit("steps", len(asked))
        answers = _answer(system, state, parts, asked, job, emit)
        memory_mark("end", emit)
        for held in parts.memory():
            emit("part", held)
    # In a process of its own: statistics are no part of what the system holds.
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        for score in other.submit(scores_of, job.name, asked[: len(answers)], answers).result():
            emit("score", score)


def scores_of(name: str, cases: Sequence[Any], answers: Sequence[Any]) -> Sequence[Score]:
    """Figures of answers; WrongAnswerError where one is wrong whatever the model."""
    return load(name).score(cases, answers)


def asked_cases(system: System, job: SystemJob) -> list[Any]:
    """The cases that a run puts: all of them, or so many that each kind is timed often enough."""
    if job.cases:
        cases = read_cases(Path(job.cases), system)
    else:
        cases = list(system.cases(job.size, job.seed))
    if job.evaluate:
        return cases
    return first_cases(cases, job.repetitions)


def first_cases(cases: Sequence[Any], repetitions: int) -> list[Any]:
    """The first cases, up to where each kind was timed so often: once more, as its first step fills caches."""
    counts: Counter[str] = Counter()
    last = 0
    for at, kind in enumerate(map(kind_of, cases), 1):
        counts[kind] += 1
        if counts[kind] <= repetitions + 1:
            last = at
    return list(cases[:last])


def declare(system: System, cases: Sequence[Any], job: SystemJob, parts: Parts) -> list[Declared]:
    """The chain of each case: one after the other, since a prompt may stay in the cache for the next."""
    chain = Chain(parts.tokenize)
    declared = []
    for case in cases:
        system.chain(case, job.size, chain)
        declared.append(Declared(step=kind_of(case), passes=tuple(chain.take())))
    return declared


def _answer(
    system: System, state: Any, parts: Parts, cases: Sequence[Any], job: SystemJob, emit: Emit
) -> list[Any]:
    """Each case once, timed, while there is time; the first step of a kind only where it is the only one."""
    from harness.measure.validity import Watch, child_probe

    totals = Counter(map(kind_of, cases))
    seen: set[str] = set()
    answers: list[Any] = []
    started = time.perf_counter()
    for case in cases:
        if answers and time.perf_counter() - started > _TIME_SHARE * job.wall_s:
            emit("said", f"the time is up after {len(answers)} of {len(cases)} cases")
            break
        kind = kind_of(case)
        with Watch(child_probe()) as watch:
            begin = time.perf_counter()
            answer = system.step(state, case)
            duration_s = time.perf_counter() - begin
        taken = parts.meter.drain()
        if kind in seen or totals[kind] == 1:
            emit("sample", watch.sample("workload", kind, 1, duration_s))
            passes = tuple(each.one for each in taken)
            seconds = tuple(each.seconds for each in taken)
            emit("step", StepTime(step=kind, duration_s=duration_s, passes=passes, seconds=seconds))
        seen.add(kind)
        if len(answers) < _MOST_ANSWERS:
            emit("answer", {"case": len(answers), "kind": kind, "answer": answer})
        answers.append(answer)
    return answers
