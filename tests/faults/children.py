"""Faults of the engine's process, of the model file and of the clock; each run is one of this process's own."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Final
from unittest import mock

import psutil

from bench.tiny_gguf import synthesize_tiny
from harness.core.errors import HarnessError
from harness.core.record import Record
from harness.core.scenario import Scenario
from harness.measure import pipeline, runner
from harness.measure.child import Limits
from harness.measure.child import run_child as child_as_ever
from harness.verbs import run as app_run
from harness.verbs.locate import obtain as obtain_as_ever
from tests.faults.place import HOW, JOB, Injected, Place

_ENGINE_SCENARIO: Final = Scenario(context_tokens=128, prompt_tokens=8, new_tokens=2, thread_count=1)
_HANG_WALL_S: Final = 1.5

Inject = Callable[[Place, random.Random], Injected]


ENGINE_JOB = JOB.replace(runtime="llamacpp")
ENGINE_HOW = pipeline.How(limits=Limits(wall_s=40.0))
"""How the real engine is run."""


def told_of(record: Record, outcomes: set[str], words: tuple[str, ...]) -> Injected:
    """Judge a record: its outcome is one of these, and its detail has one of these words."""
    named = record.outcome in outcomes and any(word in record.detail for word in words)
    return Injected(record.outcome, record.detail, named)


def fault_of(fault: str, outcome: str, *words: str, limits: Limits = HOW.limits) -> Inject:
    """The fake engine's own faults: what it does, it does to its process for real."""

    def inject(place: Place, draw: random.Random) -> Injected:
        after = draw.randrange(20)
        record = place.run(
            place.model(fault=fault, fault_after_tokens=after),
            how=pipeline.How(limits=limits),
        )
        return told_of(record, {outcome}, words)

    return inject


def tiny(place: Place) -> Path:
    """A model of the real engine, made once."""
    path = place.root / "tiny.gguf"
    if not path.exists():
        synthesize_tiny(path, "Q4_0", hidden_dim=64, feed_forward_dim=128, head_count=2, kv_head_count=1)
    return path


def engine_killed(place: Place, draw: random.Random) -> Injected:
    """SIGKILL to the child that runs the real engine, at a random moment."""
    stop = threading.Event()
    delay_s = draw.uniform(0.0, 0.5)
    hit: list[int] = []

    def strike() -> None:
        while not stop.is_set():
            for child in psutil.Process().children():
                if "child_process.py" in " ".join(_command_of(child)):
                    time.sleep(delay_s)
                    _kill(child)
                    hit.append(child.pid)
                    return
            time.sleep(0.01)

    striker = threading.Thread(target=strike, daemon=True)
    striker.start()
    # A long decode, and patience with a disturbed machine: it cannot end before the blow.
    scenario = Scenario(context_tokens=8192, prompt_tokens=8, new_tokens=8000, thread_count=1)
    record = place.run(tiny(place), scenario=scenario, job=ENGINE_JOB.replace(patience_s=60.0), how=ENGINE_HOW)
    stop.set()
    striker.join()
    return told_of(record, {"crashed"}, ("SIGKILL",))


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.Error:
        return


def truncated_model(place: Place, draw: random.Random) -> Injected:
    """The real engine's file ends early: in its header, or in its weights."""
    whole = tiny(place).read_bytes()
    path = place.folder() / "cut.gguf"
    path.write_bytes(whole[: draw.randrange(len(whole))])
    record = place.run(path, scenario=_ENGINE_SCENARIO, job=ENGINE_JOB, how=ENGINE_HOW)
    return told_of(record, {"refused", "failed"}, ("cut.gguf",))


def damaged_model(place: Place, draw: random.Random) -> Injected:
    """Magic, version, counts or the first key of the real engine's file are garbage."""
    data = bytearray(tiny(place).read_bytes())
    at = draw.choice((0, 4, 8, 16, 24))
    data[at : at + 4] = bytes(255 - byte for byte in data[at : at + 4])
    path = place.folder() / "damaged.gguf"
    path.write_bytes(data)
    record = place.run(path, scenario=_ENGINE_SCENARIO, job=ENGINE_JOB, how=ENGINE_HOW)
    return told_of(record, {"refused", "failed"}, ("damaged.gguf",))


def unreadable_model(place: Place, draw: random.Random) -> Injected:
    """A disk that gives an input/output error, a folder, a circle of links, nothing at all."""
    path = place.folder() / "bad.json"
    match draw.randrange(4):
        case 0:
            path.symlink_to("/proc/self/mem")  # a regular file whose first byte cannot be read
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to(path)
        case _:
            pass
    record = place.run(path)
    return told_of(record, {"refused", "failed"}, ("bad.json",))


def vanishing_model(place: Place, draw: random.Random) -> Injected:
    """The model is deleted between its naming and its loading: before it is hashed, or after."""
    path = place.model("gone")
    late = draw.random() < 0.5

    def obtain(*args: Any, **more: Any) -> Any:
        found = obtain_as_ever(*args, **more)
        if not late:
            path.unlink()
        return found

    def run_child(*args: Any, **more: Any) -> Any:
        path.unlink(missing_ok=True)
        return child_as_ever(*args, **more)

    with mock.patch.object(app_run, "obtain", obtain), mock.patch.object(pipeline, "run_child", run_child):
        record = place.run(path)
    return told_of(record, {"refused", "failed"}, ("gone.json",))


def clock_step(place: Place, draw: random.Random) -> Injected:
    """The wall clock is set back between two runs of one cell: both stay, and the later one is what resume takes."""
    path = place.model()
    first = place.run(path)
    hours = draw.choice((draw.uniform(0.1, 23), draw.uniform(25, 20000)))
    with clock_set_back(hours=hours):
        second = place.run(path)
    (again,) = app_run.run_cells(place.cells([path]), JOB, how=HOW._replace(resume=True))
    # Resume takes results of a day: the later run, or, when that says it is older, a new one.
    resumed = again.run_id == second.run_id if hours < 24 else again.run_id not in {first.run_id, second.run_id}
    ok = first.run_id != second.run_id and resumed
    kept = {entry.run_id for entry in place.history().entries(limit=10**6)}
    lost = len({first.run_id, second.run_id} - kept)
    return Injected(second.outcome, "both runs kept", ok and second.outcome == "ok", lost=lost)


@contextmanager
def clock_set_back(hours: float) -> Iterator[None]:
    """New records are dated so many hours ago."""

    class Earlier(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Earlier":
            then = datetime.now(tz) - timedelta(hours=hours)
            return cls(
                then.year, then.month, then.day, then.hour, then.minute, then.second, then.microsecond, then.tzinfo
            )

    with mock.patch.object(runner, "datetime", Earlier):
        yield


def stored_garbage(place: Place, draw: random.Random) -> Injected:
    """The stored record of a cell is garbage: it is named, and a resumed run measures the cell again."""
    import sqlite3

    path = place.model()
    record = place.run(path)
    place.done.discard(record.run_id)  # destroyed on purpose, below
    garbage = draw.choice((b"", b"{", b"\xff" * 40, b'{"schema_version": 99}', draw.randbytes(200)))
    with sqlite3.connect(place.history().path) as connection:
        connection.execute("UPDATE runs SET record = ? WHERE run_id = ?", (garbage, record.run_id))
    connection.close()
    try:
        place.history().get(record.run_id)
        message = ""
    except HarnessError as error:
        message = str(error)
    (again,) = app_run.run_cells(place.cells([path]), JOB, how=HOW._replace(resume=True))
    place.done.add(again.run_id)
    with sqlite3.connect(place.history().path) as connection:
        connection.execute("DELETE FROM runs WHERE run_id = ?", (record.run_id,))
    connection.close()
    named = record.run_id in message and again.run_id != record.run_id and again.outcome == "ok"
    return Injected(again.outcome, message, named)


KINDS: Final[dict[str, Inject]] = {
    "child killed": fault_of("killed", "crashed", "SIGKILL"),
    "segmentation fault": fault_of("segfault", "crashed", "SIGSEGV"),
    "engine's assertion": fault_of("abort", "aborted", "GGML_ASSERT"),
    "memory limit": fault_of("hog", "out of memory", "allowed", "held more", limits=Limits(30.0, 192 << 20)),
    "memory limit, no cgroup": fault_of(
        "hog", "out of memory", "allowed", "held more", limits=Limits(30.0, 192 << 20, use_group=False)
    ),
    "hang": fault_of("hang", "timed out", "raise --timeout", limits=Limits(wall_s=_HANG_WALL_S)),
    "silent exit": fault_of("exit", "failed", "status 7"),
    "engine refuses": fault_of("refuse", "refused", "would not load"),
    "unreadable model": unreadable_model,
    "vanishing model": vanishing_model,
    "clock set back": clock_step,
    "garbage in the history": stored_garbage,
}
ENGINE_KINDS: Final[dict[str, Inject]] = {
    "real engine killed": engine_killed,
    "truncated model": truncated_model,
    "damaged model": damaged_model,
}
