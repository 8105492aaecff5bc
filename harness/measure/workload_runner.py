"""Measure a workload in a child process: prepare, time each operation, check the answers outside the clock."""

import gc
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from harness import plugins
from harness.domain.base import Frozen
from harness.domain.record import ModelIdentity, Sample
from harness.domain.result import System
from harness.domain.scenario import Scenario
from harness.measure.child import ChildResult
from harness.ports import Operation, WorkloadContext
from harness.predict.workload_cost import OperationPrediction

if TYPE_CHECKING:
    from harness.measure.pipeline import Measurement

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_SAMPLE_S: Final = 2e-3
_MAX_CALLS: Final = 1000
_BUDGET_S: Final = 20.0
"""Longest time for one operation's samples; at least three are taken."""
_WARMED_S: Final = 0.05
"""Operations shorter than this are called once more before each sample: reading what the machine does takes some
milliseconds, after which caches hold other things than they do in a program that calls again and again."""


class WorkloadJob(Frozen, frozen=True, kw_only=True):
    """What the child is to do; ``cache``, ``data`` (public sets) and ``model`` are paths, empty for none.

    ``cases`` are those of each part of the evaluation: 0 for all, None for the workload's usual number. The child is
    stopped after ``wall_s``.
    """

    name: str
    size: dict[str, int]
    repetitions: int = 30
    seed: int = 1
    thread_count: int = 1
    cache: str = ""
    data: str = ""
    model: str = ""
    evaluate: bool = False
    cases: int | None = None
    wall_s: float = 1800.0


def run_workload(arguments: Mapping[str, Any], emit: Callable[[str, Any], None]) -> None:
    """Entry point of the child; HarnessError where the workload cannot run, or its answers are wrong."""
    from harness.measure.memory_watch import memory_mark, reset_peak

    job = msgspec.convert(arguments, WorkloadJob)
    workload = plugins.load("harness.workloads", job.name, "WORKLOAD")
    memory_mark("baseline", emit)
    with tempfile.TemporaryDirectory(prefix="edge-harness-workload-") as folder:
        context = WorkloadContext(
            Path(folder),
            Path(job.cache or folder),
            job.seed,
            job.thread_count,
            Path(job.model) if job.model else None,
            plugins.load("harness.runtimes", "llamacpp", "RUNTIME").open if job.model else None,
            Path(job.data) if job.data else None,
            job.cases,
            lambda line: emit("said", line),
            lambda found: emit("evaluation", dict(found)),
            time.perf_counter() + 0.9 * job.wall_s,  # then an evaluation begins no case: it ends with what it has
        )
        started_s = time.perf_counter()
        state = workload.prepare(job.size, context)
        emit("prepared", {"duration_s": time.perf_counter() - started_s})
        # A peak of its own for what is timed, where the system lets it start anew; building may take more.
        reset_peak()
        memory_mark("loaded", emit)
        for operation in workload.operations(state):
            for sample in _time(operation, job):
                emit("sample", sample)
        memory_mark("end", emit)
        try:
            emit("quality", dict(workload.check(state)))
        finally:  # a wrong answer is told afterwards: the evaluation says more of it
            if job.evaluate and hasattr(workload, "evaluate"):
                context.tell(workload.evaluate(context))


def _time(operation: Operation, job: WorkloadJob) -> list[Sample]:
    """Samples of one operation; short calls are put together until a sample lasts two milliseconds.

    They are told afterwards, so that writing them never falls between two samples.
    """
    from harness.measure.validity import Watch, child_probe

    call = operation.call
    call()  # imports what it needs, fills caches
    begin = time.perf_counter()
    call()
    usual_s = time.perf_counter() - begin
    for _ in range(min(20, int(0.2 / max(usual_s, 1e-6)))):
        begin = time.perf_counter()
        call()
        usual_s = min(usual_s, time.perf_counter() - begin)
    calls = max(1, min(_MAX_CALLS, int(_SAMPLE_S / max(usual_s, 1e-9))))
    samples: list[Sample] = []
    end_s = time.perf_counter() + _BUDGET_S
    gc.collect()
    gc.disable()
    try:
        while len(samples) < job.repetitions and (len(samples) < 3 or time.perf_counter() < end_s):
            with Watch(child_probe()) as watch:
                if usual_s < _WARMED_S:
                    call()
                begin = time.perf_counter()
                for _ in range(calls):
                    call()
                duration_s = time.perf_counter() - begin
            count = calls * operation.call_count
            samples.append(watch.sample("workload", operation.name, count, duration_s=duration_s))
    finally:
        gc.enable()
    return samples


def plan(
    job: WorkloadJob,
    *,
    predictions: Sequence[OperationPrediction] = (),
    units: Any = None,
    model: ModelIdentity | None = None,
) -> "Measurement":
    """The measurement of a workload; its result holds what was predicted of each operation, and from which units."""
    from harness.measure.machine import fingerprint
    from harness.measure.pipeline import Measurement, key_of  # not at the top: the child would carry them

    def read(ended: ChildResult) -> System:
        events = dict(ended.events)
        return System(
            size=dict(job.size),
            seed=job.seed,
            prepare_s=events.get("prepared", {}).get("duration_s"),
            quality=events.get("quality", {}),
            evaluation=events.get("evaluation", {}),
            predicted=tuple(msgspec.to_builtins(p) for p in predictions),
            units=msgspec.to_builtins(units or {}),
        )

    return Measurement(
        workload=job.name,
        entry=f"{__name__}:run_workload",
        job=job,
        scenario=Scenario(thread_count=job.thread_count),
        read=read,
        runtime="llamacpp" if job.model else "",
        model=model,
        wanted_count=3,
        environment=dict.fromkeys(THREAD_VARIABLES, str(job.thread_count)),
        key=key_of("workload", job, model.sha256 if model else "", fingerprint().fingerprint),
    )
