"""Run a matrix on the devices of a scheduler; results are saved as they come, and a lost device is told."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from harness.app.run import Options, cells_of, run_cells
from harness.app.this_machine import this_machine
from harness.domain.record import UNKNOWN_MACHINE, Outcome, RunRecord
from harness.errors import BadDataError, CouldNotRunError, HarnessError
from harness.fleet.matrix import Task
from harness.fleet.net import CONNECT_S, Tls, client_of, dask
from harness.measure.child import Limits
from harness.measure.pipeline import How
from harness.measure.runner import new_record
from harness.records.derive import summarise
from harness.records.store import decode, encode, load, save, write_atomically

_POLL_S: Final = 0.5
_FETCH_S: Final = 2.0
SUMMARY_NAME: Final = "summary.json"

OnResult = Callable[[Task, RunRecord], None]


def run_fleet(
    tasks: Sequence[Task],
    scheduler: str,
    *,
    folder: Path,
    tls: Tls = Tls(),
    resume: bool = False,
    device_wait_s: float = 60.0,
    on_result: OnResult = lambda _task, _record: None,
    say: Callable[[str], None] = lambda _line: None,
) -> list[RunRecord]:
    """Measure every cell on a worker of its device; one record for each task, in their order.

    A cell whose worker is lost goes to another worker of the same device. Where there is none for ``device_wait_s``, or
    every one that tried it was lost, the cell is recorded as failed with that cause. Each record is saved in ``folder``
    as it comes, as ``<task.key>.json``, and the summary too; ``resume`` takes what is there already.

    Raises:
        CouldNotRunError: No scheduler answers, it is lost for good, or a result cannot be saved.
        RefusedError: The address or the TLS files are wrong.
        MissingPackageError: The extra ``fleet`` is not installed.
    """
    found: dict[str, RunRecord] = {}
    if resume:
        found = {task.key: record for task in tasks if (record := _done_before(task, folder)) is not None}
        if found:
            say(f"{len(found)} of {len(tasks)} cells were done before")
    missing = [task for task in tasks if task.key not in found]

    def take(task: Task, record: RunRecord) -> None:
        save(record, folder / f"{task.key}.json")
        found[task.key] = record
        on_result(task, record)

    try:
        if missing:
            with client_of(scheduler, tls) as client:
                _Fleet(client, device_wait_s, take, say).run(missing)
    finally:
        if found:
            write_summary(tasks, found, folder)
    return [found[task.key] for task in tasks]


@dataclass
class _Fleet:
    _client: Any
    _wait_s: float
    _take: OnResult
    _say: Callable[[str], None]
    _absent_since_s: dict[str, float] = field(default_factory=dict)
    _silent_since_s: float | None = None

    def run(self, tasks: Sequence[Task]) -> None:
        pending = {
            self._client.submit(
                measure,
                msgspec.json.encode(task),
                pure=False,
                key=f"{task.key}-{index}-{time.time_ns()}",
                resources={f"device:{task.device}": 1},
            ): task
            for index, task in enumerate(tasks)
        }
        try:
            while pending:
                for future in self._ended(list(pending)):
                    if (record := self._record(pending[future], future)) is not None:
                        self._take(pending.pop(future), record)
                        future.release()
                self._give_up_absent(pending)
        finally:
            with contextlib.suppress(Exception):
                self._client.cancel(list(pending), force=True)

    def _ended(self, futures: list[Any]) -> list[Any]:
        began_s = time.monotonic()
        # A timeout, or one of them was cancelled: its status tells.
        with contextlib.suppress(Exception), self._client.as_current():
            dask().wait(futures, timeout=_POLL_S, return_when="FIRST_COMPLETED")
        # "lost": finished, but the worker that held the result died; the scheduler plans the cell anew by itself.
        ended = [future for future in futures if future.status not in {"pending", "lost"}]
        if not ended:  # never ask faster than this, also where waiting fails at once
            time.sleep(max(0.0, _POLL_S - (time.monotonic() - began_s)))
        return ended

    def _record(self, task: Task, future: Any) -> RunRecord | None:
        """What became of an ended cell; None when it is open again.

        A result lies on the worker that made it. Where that worker dies before the result is fetched, the scheduler
        forgets it and plans the cell anew: the future, finished a moment ago, waits again. So a fetch is tried for
        moments only, and what it could not get stays pending: it comes from another worker, or the device is given up.
        """
        if future.status in {"error", "cancelled"}:
            return could_not_run(task, self._cause(task, future))
        try:
            return decode(future.result(timeout=_FETCH_S), f"result of {task.device}")
        except HarnessError as error:
            return could_not_run(task, str(error))
        except Exception:  # noqa: BLE001  a lost worker shows as any of many errors; the future's status says what is so
            return None

    def _cause(self, task: Task, future: Any) -> str:
        if future.status != "error":
            return "the scheduler was lost while the cell ran; run again with --resume"
        with contextlib.suppress(Exception):
            error = future.exception(timeout=CONNECT_S)
            if type(error).__name__ == "KilledWorker":
                return f"every worker of {task.device} that ran this cell was lost (device off, out of memory, killed)"
            return f"the worker of {task.device} failed: {type(error).__name__}: {error}"
        return f"the worker of {task.device} failed"

    def _give_up_absent(self, pending: dict[Any, Task]) -> None:
        """Cells of devices that have had no worker for too long get their record now."""
        now_s = time.monotonic()
        present = self._present(now_s)
        if present is None:
            return
        for device in {task.device for task in pending.values()}:
            if device in present:
                if self._absent_since_s.pop(device, None) is not None:
                    self._say(f"{device} is there")
                continue
            if device not in self._absent_since_s:
                self._absent_since_s[device] = now_s
                self._say(f"no worker of {device}: waiting for one up to {self._wait_s:g} s")
            if now_s - self._absent_since_s[device] < self._wait_s:
                continue
            for future in [f for f, task in pending.items() if task.device == device]:
                task = pending.pop(future)
                with contextlib.suppress(Exception):
                    future.cancel(force=True)
                self._take(task, could_not_run(task, f"no worker of {device} was there for {self._wait_s:g} s"))

    def _present(self, now_s: float) -> set[str] | None:
        """Devices that have a worker; None when the scheduler does not tell, CouldNotRunError when for too long."""
        running = self._client.status == "running"
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"].values() if running else None
        except Exception as error:  # noqa: BLE001  whatever it is: the scheduler does not tell
            self._say(f"the scheduler does not answer: {error}")
            workers = None
        if workers is None:
            self._silent_since_s = self._silent_since_s or now_s
            if now_s - self._silent_since_s > self._wait_s:
                raise CouldNotRunError("the scheduler was lost; what had come is saved: run again with --resume")
            return None
        self._silent_since_s = None
        return {name.removeprefix("device:") for worker in workers for name in worker.get("resources", {})}


def _done_before(task: Task, folder: Path) -> RunRecord | None:
    """A usable result of that very task; failures of the fleet are tried again."""
    path = folder / f"{task.key}.json"
    with contextlib.suppress(HarnessError):
        record = load(path) if path.is_file() else None
        # No system: the record of a cell that never reached its device.
        return record if record and record.outcome != "interrupted" and record.machine.system else None
    return None


def write_summary(tasks: Sequence[Task], found: dict[str, RunRecord], folder: Path) -> None:
    """One file that says what became of each cell."""
    lines = []
    for task in tasks:
        record = found.get(task.key)
        line: dict[str, Any] = {
            "device": task.device,
            "model": task.model,
            "quant": task.quant,
            "depth_tokens": task.scenario.depth_tokens,
            "file": f"{task.key}.json" if record else None,
            "outcome": record.outcome if record else "not run",
            "detail": record.detail if record else "",
        }
        if record is not None:
            tests = {phase: summarise(record).test(phase) for phase in ("prefill", "decode")}
            line |= {f"{phase}_tokens_per_s": test.value if test else None for phase, test in tests.items()}
        lines.append(line)
    write_atomically(folder / SUMMARY_NAME, msgspec.json.format(msgspec.json.encode(lines), indent=1) + b"\n")


def measure(task_json: bytes) -> bytes:
    """Measure one cell, a ``Task`` as JSON, on this machine; its record, as JSON, is in the device's own history too.

    Whatever went wrong is its outcome.

    Raises:
        BadDataError: That is no task.
    """
    try:
        task = msgspec.json.decode(task_json, type=Task)
    except msgspec.MsgspecError as error:
        raise BadDataError("task", "", str(error), "a task of this version of edge-harness") from error
    options = Options(
        runtime=task.runtime,
        repetitions=task.repetitions,
        cold_loads=task.cold_loads,
        how=How(limits=Limits(wall_s=task.timeout_s, memory_bytes=task.memory_limit_bytes)),
        patience_s=task.patience_s,
    )
    try:
        (record,) = run_cells(cells_of([task.model], task.quant, task.scenario), options, device=this_machine())
    except HarnessError as error:
        return encode(could_not_run(task, str(error), outcome="refused"))
    machine = msgspec.structs.replace(record.machine, device=task.device)
    return encode(msgspec.structs.replace(record, machine=machine))


def could_not_run(task: Task, detail: str, *, outcome: Outcome = "failed") -> RunRecord:
    """The record of a cell that has no result; nothing is known of its machine but the name."""
    return new_record(
        scenario=task.scenario,
        workload="generate",
        outcome=outcome,
        detail=detail,
        machine=msgspec.structs.replace(UNKNOWN_MACHINE, device=task.device),
        extra={"model": task.model, "quant": task.quant},
    )
