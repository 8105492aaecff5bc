"""Where a campaign plays: its folders, what must still be there, and how the command line is called."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import psutil

from harness.core.errors import HarnessError
from harness.core.record import Record
from harness.core.scenario import Scenario
from harness.measure.child import Limits
from harness.measure.pipeline import How, Listener
from harness.measure.protocol import GenerateJob
from harness.records.history import History
from harness.records.store import load
from harness.verbs.run import RunCell, cells_of, run_cells
from tests import fake

HANG_S: Final = 60.0
"""A command that takes longer hangs: the longest one here needs a few seconds."""
SCENARIO: Final = Scenario(context_tokens=256, prompt_tokens=16, new_tokens=4, thread_count=1)
JOB: Final = GenerateJob(runtime="fake", repetitions=1, cold_loads=0, patience_s=0.0)
HOW: Final = How(limits=Limits(wall_s=30.0))


class Injected(NamedTuple):
    """What came of one fault.

    Attributes:
        outcome: The recorded outcome, or the exit status of the command.
        message: What the user is told.
        named: Whether that names the cause.
        lost: Results told as done that are nowhere.
        torn: Records that cannot be read, and faults of the history file.
        hung: Whether something went on that should have ended.
    """

    outcome: str
    message: str
    named: bool
    lost: int = 0
    torn: int = 0
    hung: bool = False


class Told(Listener):
    """Keeps every line it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keep it."""
        self.lines.append(line)


class Command(NamedTuple):
    """How a command of the product ended."""

    status: int
    out: str
    err: str
    hung: bool

    def records(self) -> list[dict[str, Any]]:
        """Records it printed; none when its output is not whole."""
        try:
            document = msgspec.json.decode(self.out.encode())
            found = document.get("items", document)
        except msgspec.DecodeError:
            return []
        return found if isinstance(found, list) else []


class Place:
    """Folders of a campaign and the results it must not lose.

    Args:
        root: An empty folder.
        engine: Whether the real engine is there.
    """

    def __init__(self, root: Path, *, engine: bool) -> None:
        self.root = root
        self.engine = engine
        self.home = root / "home"
        self.home.mkdir()
        self.done: set[str] = set()
        self._number = 0
        fake.register()
        os.environ["EDGE_HARNESS_HOME"] = str(self.home)
        os.environ["EDGE_HARNESS_CACHE"] = str(root / "cache")
        os.environ["COLUMNS"] = "1000"

    def folder(self) -> Path:
        """A new folder."""
        self._number += 1
        made = self.root / f"case-{self._number}"
        made.mkdir()
        return made

    def model(self, name: str = "m", **fields: object) -> Path:
        """A new fake model."""
        path = self.folder() / f"{name}.json"
        path.write_bytes(msgspec.json.encode(fields))
        return path

    def history(self) -> History:
        """The history that the whole campaign shares."""
        return History(self.home / "history.sqlite")

    def run(
        self,
        model: Path,
        *,
        told: Told | None = None,
        scenario: Scenario = SCENARIO,
        job: GenerateJob = JOB,
        how: How = HOW,
    ) -> Record:
        """One run through the product; its result is one that must stay."""
        if told is not None:
            how = how._replace(listener=told)
        (record,) = run_cells(cells_of([str(model)], "", scenario), job, how=how)
        if told is None or not any("warning" in line for line in told.lines):
            self.done.add(record.run_id)
        return record

    def cells(self, models: Sequence[Path]) -> list[RunCell]:
        """Cells of several models."""
        return cells_of([str(m) for m in models], "", SCENARIO)

    def audit(self) -> tuple[int, int]:
        """(results lost, records torn) in the shared history."""
        return audit(self.history(), self.done)


def audit(history: History, done: set[str]) -> tuple[int, int]:
    """(results lost, records torn) of a history."""
    if not history.path.exists():
        return len(done), 0
    try:
        torn = len(history.faults())
        kept = {entry.run_id for entry in history.entries(limit=10**6)}
    except HarnessError:
        return len(done), 1
    for run_id in kept:
        try:
            history.get(run_id)
        except HarnessError:
            torn += 1
    return len(done - kept), torn


def torn_files(folder: Path, *, killed: bool = False) -> int:
    """Record files in a folder that do not load, and halves of files left behind.

    A process that is killed with -9 in the middle of writing cannot remove its half; it has another name than a record.
    """
    torn = 0 if killed else len(list(folder.glob(".*.part")))
    for path in folder.glob("*Z-*.json"):  # a run's identifier is in the name
        try:
            load(path)
        except HarnessError:
            torn += 1
    return torn


def arguments(*models: Path, more: Sequence[str] = ()) -> list[str]:
    """Arguments of a quick ``run`` on the fake runtime."""
    return [
        *("run", *(str(m) for m in models), "--runtime", "fake", "-c", "256", "-p", "16", "-n", "4", "-t", "1"),
        *("--cold-loads", "0", "--json", *(() if "-r" in more else ("-r", "1")), *more),
    ]


def start(args: Sequence[str], *, cwd: Path, environment: dict[str, str] | None = None, **more: Any) -> Any:
    """Start the command line."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *args],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def finish(process: "subprocess.Popen[str]") -> Command:
    """Wait for a command; one that takes too long is killed and told as hung."""
    try:
        out, err = process.communicate(timeout=HANG_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        return Command(process.returncode, out, err, True)
    return Command(process.returncode, out, err, False)


def children_of(pid: int) -> list[psutil.Process]:
    """Processes below ``pid``, as of now."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def outlived(processes: Sequence[psutil.Process], *, patience_s: float = 5.0) -> bool:
    """Whether any of them is still alive after a while; kills what is."""
    _, alive = psutil.wait_procs(processes, timeout=patience_s)
    for process in alive:
        process.kill()
    return bool(alive)


def wait_for(ready: Callable[[], bool], *, patience_s: float = HANG_S) -> bool:
    """Wait until something is so; False when it never was."""
    until_s = time.monotonic() + patience_s
    while not ready():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.01)
    return True
