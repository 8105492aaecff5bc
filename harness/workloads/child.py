"""Measure a system in a child process: open its parts, prepare, answer each case on the clock, score the answers."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Final

import msgspec

from harness.domain.base import Frozen
from harness.domain.record import ModelIdentity
from harness.domain.result import System as SystemResult
from harness.domain.scenario import Scenario
from harness.measure.child import ChildResult
from harness.workloads.cases import read_cases
from harness.workloads.parts import Parts, open_parts
from harness.workloads.registry import load
from harness.workloads.system import Case, Context, System, kind_of

if TYPE_CHECKING:
    from harness.measure.pipeline import Measurement

_MOST_ANSWERS: Final = 2000
"""Answers that a record keeps; the figures are of all."""
_SAY_EACH_S: Final = 15.0
_TIME_SHARE: Final = 0.9
"""Of the time limit, after which no new case begins: the run ends with what it has."""
THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class SystemJob(Frozen, frozen=True, kw_only=True):
    """What the child is to do; ``model``, ``encoder``, ``nli`` and ``cases`` are paths, empty for none.

    It ends once each kind of step was timed ``repetitions`` times; with ``evaluate`` after the last case.
    """

    name: str
    size: dict[str, int]
    parts: tuple[str, ...] = ()
    cache: str = ""
    model: str = ""
    encoder: str = ""
    nli: str = ""
    cases: str = ""
    repetitions: int = 30
    seed: int = 1
    thread_count: int = 1
    evaluate: bool = False
    wall_s: float = 1800.0


def run(arguments: Mapping[str, Any], emit: Callable[[str, Any], None]) -> None:
    """Entry point of the child; HarnessError where the system cannot run, or its answers are wrong."""
    from harness.measure.memory_watch import memory_mark, reset_peak
    from harness.workloads.predict import laws_of

    job = msgspec.convert(arguments, SystemJob)
    system = load(job.name)
    memory_mark("baseline", emit)
    with tempfile.TemporaryDirectory(prefix="edge-harness-system-") as folder:
        context = Context(Path(folder), Path(job.cache or folder), job.seed, job.thread_count)
        paths = {name: Path(value) if value else None for name, value in _paths(job)}
        parts = open_parts(job.parts, context, **paths)
        cases = read_cases(Path(job.cases), system) if job.cases else list(system.cases(job.size, job.seed))
        emit("laws", msgspec.to_builtins(laws_of(parts)))
        begin = time.perf_counter()
        state = system.prepare(parts, job.size, context)
        emit("prepared", {"duration_s": time.perf_counter() - begin})
        for meter in parts.meters:
            meter.take()
        reset_peak()  # building may take more than running, and this peak is of what is timed
        memory_mark("loaded", emit)
        asked, answers = _answer(system, state, cases, parts, job, emit)
        memory_mark("end", emit)
        emit("quality", {"case_count": len(asked), **system.score(asked, answers)})


def _paths(job: SystemJob) -> list[tuple[str, str]]:
    return [("model", job.model), ("encoder", job.encoder), ("nli", job.nli)]


def _answer(
    system: System,
    state: Any,
    cases: Sequence[Case],
    parts: Parts,
    job: SystemJob,
    emit: Callable[[str, Any], None],
) -> tuple[list[Case], list[Any]]:
    """Each case once, timed; the first step of a kind fills caches and is timed only where it is the only one."""
    from harness.measure.validity import Watch, child_probe

    left = {kind: sum(kind_of(case) == kind for case in cases) for kind in map(kind_of, cases)}
    timed = dict.fromkeys(left, 0)
    wanted = {kind: min(job.repetitions, max(1, count - 1)) for kind, count in left.items()}
    seen: set[str] = set()
    glue: dict[str, list[float]] = {kind: [] for kind in left}
    passes: dict[str, list[dict[str, float]]] = {kind: [] for kind in left}
    answers: list[Any] = []
    started = said = time.perf_counter()
    for case in cases:
        if not job.evaluate and all(timed[kind] >= count for kind, count in wanted.items()):
            break
        now = time.perf_counter()
        if answers and now - started > _TIME_SHARE * job.wall_s:
            emit("said", f"the time is up after {len(answers)} of {len(cases)} cases")
            break
        if now - said > _SAY_EACH_S:
            emit("said", f"{len(answers)} of {len(cases)} cases")
            said = now
        kind = kind_of(case)
        with Watch(child_probe()) as watch:
            begin = time.perf_counter()
            answer = system.step(state, case)
            duration_s = time.perf_counter() - begin
        taken = {meter.name: meter.take() for meter in parts.meters}
        if kind in seen or left[kind] == 1:
            emit("sample", watch.sample("workload", kind, 1, duration_s=duration_s))
            timed[kind] += 1
            glue[kind].append(duration_s - sum(seconds for _, seconds in taken.values()))
            passes[kind].append(_counted(taken))
        seen.add(kind)
        if len(answers) < _MOST_ANSWERS:
            emit("answer", {"case": len(answers), "kind": kind, "answer": answer})
        answers.append(answer)
    for kind in left:
        if glue[kind]:
            keys = sorted({key for row in passes[kind] for key in row})
            means = {key: fmean(row.get(key, 0.0) for row in passes[kind]) for key in keys}
            emit("step", {"kind": kind, "glue_s": median(glue[kind]), **means})
    return list(cases[: len(answers)]), answers


def _counted(taken: Mapping[str, tuple[Sequence[Any], float]]) -> dict[str, float]:
    """Passes, tokens read (passes of several tokens) and written (of one), and seconds of each part in one step."""
    row: dict[str, float] = {}
    for name, (passes, seconds) in taken.items():
        if passes:
            row[f"{name}_passes"] = float(len(passes))
            row[f"{name}_read_tokens"] = float(sum(p.rows * p.tokens for p in passes if p.tokens > 1))
            row[f"{name}_written_tokens"] = float(sum(p.rows for p in passes if p.tokens == 1))
            row[f"{name}_s"] = seconds
    return row


def plan(
    job: SystemJob, *, predicted: Callable[[Mapping[str, Any]], Sequence[Any]], model: ModelIdentity | None
) -> "Measurement":
    """The measurement of a system; ``predicted`` makes predictions of its laws, which come before the first step."""
    from harness.measure.machine import fingerprint
    from harness.measure.pipeline import Measurement, events_named, key_of  # not at the top: the child would carry them

    def read(ended: ChildResult) -> SystemResult:
        events = dict(ended.events)
        return SystemResult(
            size=dict(job.size),
            seed=job.seed,
            prepare_s=events.get("prepared", {}).get("duration_s"),
            quality=events.get("quality", {}),
            predicted=tuple(msgspec.to_builtins(p) for p in predicted(events["laws"])) if "laws" in events else (),
            units={"laws": events.get("laws", {}), "steps": events_named(ended, "step")},
            parts={name: Path(getattr(job, _FIELDS[name])).name or "MiniLM" for name in job.parts},
            answers=tuple(events_named(ended, "answer")),
        )

    return Measurement(
        workload=job.name,
        entry=f"{__name__}:run",
        job=job,
        scenario=Scenario(thread_count=job.thread_count),
        read=read,
        runtime="llamacpp" if "language" in job.parts else "",
        model=model,
        wanted_count=3,
        environment=dict.fromkeys(THREAD_VARIABLES, str(job.thread_count)),
        key=key_of("system", job, model.sha256 if model else "", fingerprint().fingerprint),
    )


_FIELDS: Final = {"language": "model", "encoder": "encoder", "nli": "nli"}
