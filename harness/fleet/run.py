"""Run a matrix on the devices of a scheduler; results are saved as they come, and a lost device is told."""

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness.app.run import cells_of, run_cells
from harness.app.this_machine import this_machine
from harness.domain.foreign import json_of, typed
from harness.domain.record import UNKNOWN_MACHINE, Outcome, RunRecord
from harness.errors import HarnessError
from harness.fleet.matrix import Task
from harness.fleet.net import client_of, dask
from harness.measure.child import Limits
from harness.measure.pipeline import How
from harness.measure.protocol import GenerateJob
from harness.measure.runner import new_record
from harness.records.store import decode, encode, load, save

OnResult = Callable[[Task, RunRecord], None]


def run_fleet(
    tasks: Sequence[Task],
    scheduler: str,
    *,
    folder: Path,
    tls: Path | None = None,
    resume: bool = False,
    on_result: OnResult = lambda _task, _record: None,
    say: Callable[[str], None] = lambda _line: None,
) -> list[RunRecord]:
    """Measure every cell on a worker of its device; one record for each task, in their order.

    A cell whose worker is lost goes to another worker of the same device. Where there is none for as long as
    the scheduler waits, or every one that tried it was lost, the cell is recorded as failed with that cause.
    Each record is saved in ``folder`` as it comes, as ``<task.key>.json``; ``resume`` takes what is there
    already.

    Raises:
        CouldNotRunError: No scheduler answers, or a result cannot be saved.
        RefusedError: The address or the key is wrong.
        MissingPackageError: The extra ``fleet`` is not installed.
    """
    records: dict[str, RunRecord] = {}
    if resume:
        records = {task.key: record for task in tasks if (record := _done_before(task, folder)) is not None}
        if records:
            say(f"{len(records)} of {len(tasks)} cells were done before")
    missing = [task for task in tasks if task.key not in records]
    if missing:
        with client_of(scheduler, tls) as client, client.as_current():
            present = client.scheduler_info(n_workers=-1)["workers"].values()
            served = {name.removeprefix("device:") for worker in present for name in worker["resources"]}
            if absent := {task.device for task in missing} - served:
                say(
                    f"no worker yet of {', '.join(sorted(absent))}: waiting for as long as the scheduler does"
                )
            cells = {
                client.submit(
                    measure,
                    msgspec.json.encode(task),
                    pure=False,
                    key=f"{task.key}-{time.time_ns()}",
                    resources={f"device:{task.device}": 1},
                ): task
                for task in missing
            }
            try:
                for future, answer in dask().as_completed(cells, with_results=True, raise_errors=False):
                    task = cells[future]
                    record = records[task.key] = _record(task, answer)
                    save(record, folder / f"{task.key}.json")
                    on_result(task, record)
                    future.release()
            finally:
                with contextlib.suppress(Exception):
                    client.cancel(list(cells), force=True)
    return [records[task.key] for task in tasks]


def _record(task: Task, answer: Any) -> RunRecord:
    """What became of a cell: its record as bytes, or why there is none: an exception with its type and traceback."""
    if isinstance(answer, tuple):
        error = answer[1]
    else:
        error = answer
    match type(error).__name__:
        case "bytes":
            try:
                record = decode(error, f"result of {task.device}")
            except HarnessError as fault:
                return could_not_run(task, str(fault))
            if other := _other_than(task, record):
                return could_not_run(task, f"the worker of {task.device} answered another task: {other}")
            return record
        case "KilledWorker":
            cause = f"every worker of {task.device} that ran this cell was lost (device off, out of memory, killed)"
        case "NoValidWorkerError" | "NoWorkerError":
            cause = f"no worker of {task.device} was there for {error.args[-1]:g} s"
        case "CancelledError" | "FutureCancelledError" | "FuturesCancelledError":
            cause = "the scheduler was lost while the cell ran; run again with --resume"
        case name:
            cause = f"the worker of {task.device} failed: {name}: {error}"
    return could_not_run(task, cause)


def _other_than(task: Task, record: RunRecord) -> str:
    """What a record says that was not asked of the worker, in words.

    Empty where it is an answer to the task.
    """
    pairs = [
        ("device", record.machine.device, task.device),
        ("workload", record.workload, "generate"),
        ("model", str(record.extra.get("model", task.model)), task.model),
    ]
    if task.quant and record.quant:
        pairs.append(("quantisation", record.quant.upper(), task.quant.upper()))
    asked_for = ("context_tokens", "prompt_tokens", "new_tokens", "depth_tokens", "batch_count", "kv_type")
    pairs += [(name, getattr(record.scenario, name), getattr(task.scenario, name)) for name in asked_for]
    words, asked = (
        re.sub(r"[^a-z0-9]", "", each.lower()) for each in (record.name, task.model.removesuffix(".gguf"))
    )
    if record.model and "/" not in task.model and words not in asked and asked not in words:
        pairs.append(("model", record.name, task.model))
    return "; ".join(
        f"{name} is {told!r}, asked was {asked!r}" for name, told, asked in pairs if told != asked
    )


def _done_before(task: Task, folder: Path) -> RunRecord | None:
    """A usable result of that very task; failures of the fleet are tried again."""
    path = folder / f"{task.key}.json"
    with contextlib.suppress(HarnessError):
        record = None
        if path.is_file():
            record = load(path)
        # No system: the record of a cell that never reached its device.
        if record and record.outcome != "interrupted" and record.machine.system:
            return record
        return None
    return None


def measure(task_json: bytes) -> bytes:
    """Measure one cell, a ``Task`` as JSON, on this machine.

    Its record, as JSON, is in the device's own history too.

    Whatever went wrong is its outcome.

    Raises:
        BadDataError: That is no task.
    """
    task = typed(json_of(task_json, "task", "a task of this version of edge-harness"), Task, "task")
    same = {name: getattr(task, name) for name in ("runtime", "repetitions", "cold_loads", "patience_s")}
    how = How(limits=Limits(wall_s=task.timeout_s, memory_bytes=task.memory_limit_bytes))
    try:
        cells = cells_of([task.model], task.quant, task.scenario)
        (record,) = run_cells(cells, GenerateJob(**same), how=how, device=this_machine())
    except HarnessError as error:
        return encode(could_not_run(task, str(error), outcome="refused"))
    machine = record.machine.replace(device=task.device)
    return encode(record.replace(machine=machine))


def could_not_run(task: Task, detail: str, *, outcome: Outcome = "failed") -> RunRecord:
    """The record of a cell that has no result; nothing is known of its machine but the name."""
    return new_record(
        scenario=task.scenario,
        workload="generate",
        outcome=outcome,
        detail=detail,
        machine=UNKNOWN_MACHINE.replace(device=task.device),
        extra={"model": task.model, "quant": task.quant},
    )
