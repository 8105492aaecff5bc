"""Cells of measurements over a lab: each device has one at a time, equal devices share, every cell ends as records.

A cell is the command line of a ``run`` of one model at one depth. Threads of this process start it here, or a
scheduler of Dask hands it to the worker that has the device. Nothing of edge-harness is pickled: what is
submitted is :func:`subprocess.run` and words.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, Protocol

from msgspec import Meta

from harness.core.base import Frozen
from harness.core.errors import (
    BadDataError,
    CouldNotRunError,
    Exit,
    HarnessError,
    MissingPackageError,
    RefusedError,
)
from harness.core.foreign import json_of, toml_in, typed
from harness.core.outside import output_of
from harness.core.record import UNKNOWN_MACHINE, Record
from harness.core.scenario import Scenario
from harness.measure.pipeline import How, Listener, Pipeline
from harness.measure.runner import new_record
from harness.measure.targets import target_named
from harness.records.store import from_document

_LONGEST_S: Final = 7 * 86_400.0
_POLL_S: Final = 1.0
_ASK_AGAIN_S: Final = 3.0
"""Between two questions to a device that does not answer."""
_ENDS: Final = {Exit.OK, Exit.INCONCLUSIVE, Exit.COULD_NOT_RUN}
_CONNECT_S: Final = 20


class LabTarget(Frozen):
    """One device of a lab, as a ``[[target]]`` of its file.

    Attributes:
        on: How it is reached, as ``--on`` has it.
        name: What it is called in the lab; ``on`` where it has none.
        tags: What it is one of: devices of one tag are equal.
        programs: Folder with llama-bench for it, from the file's own folder; empty where edge-harness is there.
    """

    on: Annotated[str, Meta(pattern=r"^(local|ssh://.+|adb://.*)\Z")]
    name: Annotated[str, Meta(pattern=r"^[^,:\s]*\Z", max_length=60)] = ""
    tags: tuple[Annotated[str, Meta(pattern=r"^[^,:\s]+\Z", max_length=60)], ...] = ()
    programs: str = ""

    @property
    def called(self) -> str:
        """Its name in the lab, or how it is reached."""
        return self.name or self.on


class _LabFile(Frozen):
    target: Annotated[tuple[LabTarget, ...], Meta(min_length=1)]


class Place(NamedTuple):
    """Where a cell may run: one device, or any of equal ones; a scheduler knows the devices by the name."""

    name: str
    targets: tuple[LabTarget, ...] = ()


class LabCell(NamedTuple):
    """One command line at one place; ``key`` is that of its result, empty where it is never resumed."""

    place: Place
    words: tuple[str, ...]
    scenario: Scenario
    asked: Mapping[str, str]
    key: str = ""


def places_of(text: str, *, scheduled: bool = False) -> list[Place]:
    """The places that ``text`` names: ``lab.toml``, ``lab.toml:TAG,NAME``, targets with commas, tags of a scheduler.

    Raises:
        BadDataError: The file is no lab.
        RefusedError: It has no such name or tag, or a place is named twice.
    """
    head, ending, names = text.partition(".toml")
    if ending:
        lab = _lab_of(Path(head + ending))
        wanted = [name for name in names.removeprefix(":").split(",") if name]
        if names and not (names.startswith(":") and wanted):
            raise RefusedError(f"--on: found {text!r}, expected lab.toml or lab.toml:TAG")
        places = [_place(name, lab, head + ending) for name in wanted or [one.called for one in lab]]
    elif scheduled:
        places = [Place(name) for name in text.split(",")]
    else:
        places = [Place(on, (LabTarget(on=on),)) for on in text.split(",")]
    if len({place.name for place in places}) < len(places):
        raise RefusedError(f"--on: found {text!r}, expected each target once")
    return places


def _lab_of(path: Path) -> tuple[LabTarget, ...]:
    found = typed(toml_in(path), _LabFile, path).target
    names = [one.called for one in found]
    for number, one in enumerate(found):
        if one.called in names[:number]:
            raise BadDataError(
                path, f"target[{number}].name", f"{one.called!r} once more", "a name of its own"
            )
    return tuple(
        one.replace(programs=str(path.parent / one.programs)) if one.programs else one for one in found
    )


def _place(name: str, lab: Sequence[LabTarget], path: str) -> Place:
    alike = tuple(one for one in lab if one.called == name) or tuple(one for one in lab if name in one.tags)
    if not alike:
        known = sorted({one.called for one in lab} | {tag for one in lab for tag in one.tags})
        raise RefusedError(f"{path}: found no target or tag {name!r}, expected one of {', '.join(known)}")
    return Place(name, alike)


class Crew(Protocol):
    """Who runs the cells."""

    def submit(self, cell: LabCell) -> "Future[Any]":
        """Begin a cell as soon as a device of its place is free."""

    def records(self, cell: LabCell, future: "Future[Any]") -> list[Record]:
        """What came of it; raises HarnessError where nothing did."""

    def lacking(self, names: set[str]) -> dict[str, str]:
        """Why cells of some of the places that are waited for will not begin."""

    def close(self) -> None:
        """Begin nothing more."""


def run_lab(
    cells: Sequence[LabCell], crew: Crew, how: How, *, told: Callable[[str, list[Record]], None]
) -> list[tuple[LabCell, list[Record]]]:
    """Records of each cell, in the order of the cells; each is kept as it comes, and ``told`` hears of it.

    What could not begin is a failed record with its cause.
    """
    pipeline = Pipeline(how._replace(listener=Listener(how.listener.say)))
    found: dict[int, list[Record]] = {}
    waiting: dict[Future[Any], int] = {}

    def ended(number: int, records: list[Record]) -> None:
        key = cells[number].key if len(records) == 1 else ""
        found[number] = [pipeline.keep(record, key=key) for record in records]
        told(cells[number].place.name, records)

    try:
        for number, cell in enumerate(cells):
            done = pipeline.reused(cell.key, f"{cell.asked['model']} on {cell.place.name}")
            if done is None:
                waiting[crew.submit(cell)] = number
            else:
                found[number] = [done]
                told(cell.place.name, [done])
        while waiting:
            for future in wait(waiting, timeout=_POLL_S, return_when="FIRST_COMPLETED").done:
                number = waiting.pop(future)
                ended(number, _records_of(crew, cells[number], future))
            lacking = crew.lacking({cells[number].place.name for number in waiting.values()})
            for future, number in list(waiting.items()):
                if why := lacking.get(cells[number].place.name):
                    future.cancel()
                    del waiting[future]
                    ended(number, [_failed(cells[number], why)])
    finally:
        for future in waiting:
            future.cancel()
        crew.close()
    return [(cell, found[number]) for number, cell in enumerate(cells)]


def _records_of(crew: Crew, cell: LabCell, future: "Future[Any]") -> list[Record]:
    try:
        return crew.records(cell, future)
    except (HarnessError, CancelledError) as error:
        return [_failed(cell, str(error) or "it was taken back")]


def _failed(cell: LabCell, why: str) -> Record:
    machine = UNKNOWN_MACHINE.replace(device=cell.place.name)
    return new_record(
        workload="generate",
        scenario=cell.scenario,
        outcome="failed",
        detail=why,
        machine=machine,
        extra=dict(cell.asked),
    )


def _read(printed: bytes, name: str) -> list[Record]:
    """The records that ``run --json`` printed on the device of that name; raises CouldNotRunError with its error."""
    documents = json_of(printed, name, "the records of a run")
    if isinstance(documents, dict):
        raise CouldNotRunError(str(documents.get("error", {}).get("message", documents)))
    records = [from_document(document, name) for document in documents]
    return [_renamed(record, name) for record in records]


def _renamed(record: Record, name: str) -> Record:
    if record.machine.device != "this machine" or name == "local":
        return record
    return record.replace(machine=record.machine.replace(device=name))


class Devices:
    """The devices of some places, driven from here: a thread each, one measurement at a time on each.

    The cells of a device that does not answer go to an equal one. It is asked again for ``wait_s``; after that
    the cells that only it can run fail.
    """

    def __init__(self, places: Sequence[Place], wait_s: float) -> None:
        self._wait_s = wait_s
        self._pools = {place.name: ThreadPoolExecutor(len(place.targets)) for place in places}
        self._turn = threading.Condition()
        self._busy: set[str] = set()
        self._lost: dict[str, _Silence] = {}
        if any(target.on.startswith("adb:") for place in places for target in place.targets):
            with suppress(
                HarnessError
            ):  # once, before threads would each start a server; a cell says what is wrong
                output_of(("adb", "start-server"), "adb", timeout_s=_CONNECT_S)

    def submit(self, cell: LabCell) -> "Future[Any]":
        """Begin it when one of its devices is free."""
        return self._pools[cell.place.name].submit(self._measured, cell)

    def records(self, cell: LabCell, future: "Future[Any]") -> list[Record]:
        """As the thread found them."""
        del cell
        result: list[Record] = future.result()
        return result

    def lacking(self, names: set[str]) -> dict[str, str]:
        """Nothing: a thread ends by itself."""
        del names
        return {}

    def close(self) -> None:
        """Begin nothing more; what runs is waited for."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)

    def _measured(self, cell: LabCell) -> list[Record]:
        """Records of the first device that can make them, else what the last one left."""
        last: list[Record] | HarnessError | None = None
        while target := self._taken(cell.place.targets):
            try:
                why = _silence(target) if target.called in self._lost else ""
                if not why:
                    last = _tried(cell, target)
                    if isinstance(last, list) and all(record.outcome != "failed" for record in last):
                        return last
                    why = _silence(target)
                    if not why:  # the device is well: the cell is not
                        break
            finally:
                self._given_back(target, why)
        if last is None:
            causes = [f"{one.called}: {self._lost[one.called].why}" for one in cell.place.targets]
            raise CouldNotRunError("; ".join(causes))
        if isinstance(last, HarnessError):
            raise last
        return last

    def _taken(self, targets: Sequence[LabTarget]) -> LabTarget | None:
        """A device that is free, one that answers before the others; None where all were silent for too long."""
        with self._turn:
            while True:
                now_s = time.monotonic()
                here = [one for one in targets if one.called not in self._lost]
                away = [(one, self._lost[one.called]) for one in targets if one.called in self._lost]
                away = [
                    (one, silence)
                    for one, silence in away
                    if silence.asked_s <= silence.since_s + self._wait_s
                ]
                if not here and not away:
                    return None
                due = [one for one, silence in away if now_s - silence.asked_s >= _ASK_AGAIN_S]
                for one in (*here, *due):
                    if one.called not in self._busy:
                        self._busy.add(one.called)
                        return one
                self._turn.wait(_POLL_S)

    def _given_back(self, target: LabTarget, why: str) -> None:
        with self._turn:
            self._busy.discard(target.called)
            if why:
                now_s = time.monotonic()
                before = self._lost.get(target.called)
                self._lost[target.called] = _Silence(before.since_s if before else now_s, now_s, why)
            else:
                self._lost.pop(target.called, None)
            self._turn.notify_all()


class _Silence(NamedTuple):
    """Since when a device does not answer, when it was asked last, by the monotonic clock, and why it does not."""

    since_s: float
    asked_s: float
    why: str


def _silence(target: LabTarget) -> str:
    """Why a device does not answer; empty where it does."""
    try:
        target_named(target.on).shell("true", timeout_s=_CONNECT_S)
    except CouldNotRunError as error:
        return str(error)
    except HarnessError:  # no target at all: waiting does not help
        return ""
    return ""


def _tried(cell: LabCell, target: LabTarget) -> list[Record] | HarnessError:
    """Records of a cell on a device, or why there are none."""
    words = list(cell.words)
    if target.programs or target.on == "local":
        words = [word for word in words if not word.startswith("--programs=")]
    if target.programs:
        words = [f"--programs={target.programs}", *words]
    command = [sys.executable, "-m", "harness", "run", "--json", f"--on={target.on}", *words]
    try:
        printed = output_of(command, target.called, timeout_s=_LONGEST_S, ends=_ENDS)
        return _read(printed, target.called)
    except HarnessError as error:
        return error


class Scheduler:
    """A scheduler of Dask: the workers that it knows have the devices, each with the resource of its tag or name.

    A worker is the host that holds the cable; ``EDGE_HARNESS_RUN_TARGET`` and ``EDGE_HARNESS_RUN_PROGRAMS`` of
    its environment say how it reaches its device. Dask itself gives the cells of a worker that died to its equal.
    Source: distributed.dask.org, "Worker Resources".

    Raises:
        MissingPackageError: The extra ``lab`` is not installed.
        CouldNotRunError: No scheduler answers at that address.
    """

    def __init__(self, address: str, wait_s: float) -> None:
        try:
            library: Any = import_module("distributed")
        except ImportError as error:
            raise MissingPackageError("distributed", "lab") from error
        try:
            self._client = library.Client(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise CouldNotRunError(f"--scheduler {address}: no scheduler of Dask answers: {error}") from error
        self._wait_s = wait_s
        self._since_s: dict[str, float] = {}
        self._executors: dict[str, Executor] = {}

    def submit(self, cell: LabCell) -> "Future[Any]":
        """Give the command line to the scheduler."""
        name = cell.place.name
        if name not in self._executors:
            self._executors[name] = self._client.get_executor(pure=False, resources={name: 1})
        command = ["edge-harness", "run", "--json", *cell.words]
        return self._executors[name].submit(
            subprocess.run, command, capture_output=True, stdin=subprocess.DEVNULL, check=False
        )

    def records(self, cell: LabCell, future: "Future[Any]") -> list[Record]:
        """What the command printed on the worker."""
        name = cell.place.name
        try:
            done: subprocess.CompletedProcess[bytes] = future.result()
        except CancelledError:
            raise
        except Exception as error:  # whatever Dask raises of a worker
            raise CouldNotRunError(f"{name}: {type(error).__name__}: {error}") from error
        if done.returncode not in _ENDS:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["no word"]
            raise CouldNotRunError(f"{name}: exit status {done.returncode}: {said[-1]}")
        return _read(done.stdout, name)

    def lacking(self, names: set[str]) -> dict[str, str]:
        """Which of these tags no worker has had for longer than the lab waits."""
        workers = self._client.scheduler_info()["workers"].values()
        there = {name for worker in workers for name in worker["resources"]}
        now_s = time.monotonic()
        self._since_s = {name: self._since_s.get(name, now_s) for name in names - there}
        return {
            name: f"no worker of the scheduler has {name!r} after {self._wait_s:g} s: start one with --resources {name}=1"
            for name, since_s in self._since_s.items()
            if now_s - since_s >= self._wait_s
        }

    def close(self) -> None:
        """Leave the scheduler; what it has not begun is taken back."""
        self._client.close()
