"""The one way a measurement takes: lock, child, events, judgement, record, history.

Every verb that measures plans its measurements, opens a :class:`Pipeline` and runs them through it. Nothing
else starts a process that is measured. Whatever happens to that process ends as a record: a crash, an abort
and a kill for lack of memory are outcomes, and never exceptions.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec

from harness.core import plugins
from harness.core.errors import EngineError, HarnessError, RefusedError
from harness.core.paths import home_dir
from harness.core.prediction import Prediction
from harness.core.record import EngineIdentity, MachineFingerprint, ModelIdentity, Outcome, Record, Sample
from harness.core.result import Result
from harness.core.scenario import Scenario
from harness.measure.child import ChildResult, Limits, OnEvent, run_child, run_helper
from harness.measure.lock import alone
from harness.measure.machine import fingerprint
from harness.measure.runner import judged, memory_of, new_record
from harness.records.history import History
from harness.records.manifest import noted
from harness.records.store import save

HISTORY_FILE: Final = "history.sqlite"
RESUMED_FOR: Final = timedelta(hours=24)
"""A resumed measurement takes a result of at most this age as its own."""


class Measurement(NamedTuple):
    """One measurement, planned: ``entry`` is the ``package.module:function`` that the child runs.

    Attributes:
        read: Makes the result from the child's end; None when it got nowhere. It may be asked of a child that
            crashed.
        wanted_count: Clean samples wanted of each test, by which the run is judged; 0 where samples are
            judged singly.
        key: All that decides the result, so that it is found again by ``resume``; empty for what is never
            resumed.
        notes: For the record's ``extra``.
        machine: That which it runs on; None for this one.
    """

    workload: str
    entry: str
    job: msgspec.Struct
    scenario: Scenario
    read: Callable[[ChildResult], Result | None]
    runtime: str = ""
    model: ModelIdentity | None = None
    prediction: Prediction | None = None
    wanted_count: int = 0
    environment: Mapping[str, str] = {}
    key: str = ""
    notes: Mapping[str, Any] = {}
    machine: MachineFingerprint | None = None


class Listener:
    """Who is told how it goes; this one passes lines on to a function, where it is given one, and nothing else."""

    def __init__(self, say: Callable[[str], None] = lambda _line: None) -> None:
        self._say = say

    def say(self, line: str) -> None:
        """Something worth a line."""
        self._say(line)

    def plan(self, count: int) -> None:
        """So many parts are still to begin."""

    def begin(self, title: str, step_count: int = 0, within_s: float = 0.0) -> None:
        """A part starts, of so many steps: samples, in a measurement; 0 where nobody knows.

        What has a length of its own (``within_s``), such as a probe before them, is none of the parts.
        """

    def expect(self, step_count: int) -> None:
        """The part that began has so many steps."""

    def step(self, note: str = "", line: str = "") -> None:
        """One step of this part is done; the line is said where no progress is drawn."""

    def fetched(self, done_bytes: int, all_bytes: int) -> None:
        """So much of the model's file is here."""

    def sample(self, sample: Sample) -> None:
        """One sample was taken."""

    def end(self, record: Record) -> None:
        """The measurement is done."""


class How(NamedTuple):
    """How measurements are run and kept, whatever they measure.

    ``resume``: take results of at most a day; ``keep`` records in the history, and as files in ``folder``;
    ``limits`` of each child; ``listener`` is told; ``notes`` are for each record's ``extra``, as the CPUs it
    was bound to.
    """

    resume: bool = False
    keep: bool = True
    folder: Path | None = None
    limits: Limits = Limits()
    listener: Listener = Listener()
    notes: Mapping[str, Any] = {}


class Pipeline(contextlib.ExitStack):
    """Holds this machine, or the target ``place``, for a set of measurements and runs them one after the other.

    Raises:
        CouldNotRunError: On entering: another measured run held the machine for too long.
    """

    def __init__(self, how: How = How(), place: str = "") -> None:
        super().__init__()
        self._place = place
        self.how = how
        self.heard = how.listener
        self.history = open_history()
        self.machine = fingerprint()

    def __enter__(self) -> Self:
        self.enter_context(alone(self.heard.say, self._place))
        return self

    def measure(self, plan: Measurement, *, on_event: OnEvent | None = None) -> Record:
        """Run one measurement, judge it and keep its record; a failure of the child is the record's outcome.

        ``on_event`` is called with each event of the child soon after it was told.
        """
        done = self.reused(plan.key, plan.model.name if plan.model else plan.workload)
        if done is not None:
            return done

        def hear(event: str, data: Any) -> None:
            if event == "sample":
                self.heard.sample(msgspec.convert(data, Sample))
            elif event == "steps":
                self.heard.expect(data)
            if on_event:
                on_event(event, data)

        # The CPUs are those of the machine that is measured: a child that drives another one is not bound to
        # them.
        limits = self.how.limits
        if plan.machine:
            limits = limits._replace(cpus=())
        result = run_child(plan.entry, plan.job, limits=limits, on_event=hear, environment=plan.environment)
        notes = {"wall_s": round(result.duration_s, 3), **plan.notes}
        if limits.memory_bytes is not None:
            notes["memory_limit_bytes"] = limits.memory_bytes
        record = new_record(
            scenario=plan.scenario,
            workload=plan.workload,
            machine=plan.machine or self.machine,
            outcome=result.outcome,
            detail=result.detail,
            model=plan.model,
            engine=next(iter(result.told("engine", EngineIdentity)), None),
            samples=tuple(result.told("sample", Sample)),
            memory=memory_of(result),
            prediction=plan.prediction,
            runtime=plan.runtime,
            result=plan.read(result),
            extra=notes,
        )
        return self.keep(judged(record, plan.wanted_count) if plan.wanted_count else record, key=plan.key)

    def reused(self, key: str, name: str = "") -> Record | None:
        """The result of the same measurement within the last day, where those are resumed.

        What broke off is none. With a name it is told, and put into the folder.
        """
        record = None
        if self.how.resume and key and self.history.path.exists():
            with contextlib.suppress(HarnessError):  # what is kept cannot be read: measure it again
                record = self.history.of_cell(self._cell(key))
        if record is None or record.outcome not in {"ok", "inconclusive"}:
            return None
        if datetime.now(UTC) - datetime.fromisoformat(record.created) >= RESUMED_FOR:
            return None
        if name:
            self.heard.say(f"{name}: done before, reused ({record.run_id})")
            self._save(record)
        return record

    def keep(self, record: Record, *, key: str = "") -> Record:
        """Append a record to the history and to the folder, and tell the listener.

        Where the history cannot be written, the record goes into a file beside it.
        """
        if self.how.notes:
            record = record.replace(extra={**record.extra, **self.how.notes})
        if self.how.keep:
            try:
                self.history.extend([record], cell=self._cell(key))
            except HarnessError as error:
                self.heard.say(f"warning: {error}")
                _rescue(record, self.heard.say)
        self._save(record)
        self.heard.end(record)
        return record

    def _save(self, record: Record) -> None:
        if self.how.folder is not None:
            noted(record)
            save(record, self.how.folder / f"{record.run_id}.json")

    def not_run(
        self, workload: str, scenario: Scenario, outcome: Outcome, detail: str, asked: Mapping[str, str]
    ) -> Record:
        """The kept record of a measurement that could not start; ``asked`` says of what."""
        record = new_record(
            scenario=scenario,
            workload=workload,
            outcome=outcome,
            detail=detail,
            machine=self.machine,
            extra=asked,
        )
        return self.keep(record)

    def _cell(self, key: str) -> str:
        """A key, with what holds all runs here to less than the machine."""
        limit_bytes = self.how.limits.memory_bytes
        if key and (self.how.notes or limit_bytes):
            return key_of(key, self.how.notes, limit_bytes)
        return key

    def trial(self, entry: str, job: msgspec.Struct) -> ChildResult:
        """Run a child beside a measurement, without the limit of memory that the measurement has.

        Raises:
            KeyboardInterrupt: The child was interrupted.
        """
        return run_helper(entry, job, limits=self.how.limits._replace(memory_bytes=None))


def make(entry: str, job: Mapping[str, Any], path: Path, *, limits: Limits = Limits()) -> Path:  # noqa: B008
    """A file that a measurement needs (a quantisation, an importance matrix), written by a child.

    Its ``target`` is another name first: what bears its name is whole.

    Raises:
        RefusedError: It refused its input.
        EngineError: It failed.
        KeyboardInterrupt: It was interrupted.
    """
    part = path.with_name(f"part.{path.name}")
    try:
        result = run_helper(entry, {**job, "target": str(part)}, limits=limits)
        if result.outcome == "refused":
            raise RefusedError(result.detail)
        if result.outcome != "ok":
            raise EngineError(f"{result.outcome}: {result.detail}")
        return part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def open_history() -> History:
    """The history of this user."""
    return History(home_dir() / HISTORY_FILE)


def key_of(*parts: object) -> str:
    """Key of a measurement from everything that decides its result."""
    texts = [p if isinstance(p, str) else msgspec.json.encode(p).decode() for p in parts]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]


def engine_of(runtime: str) -> str:
    """What of a runtime decides a result: its package with the version, or the state of its program's file.

    Empty where nothing of it is told, as of a server, or where it cannot be used.
    """
    with contextlib.suppress(HarnessError):
        package = getattr(plugins.usable_runtime(runtime), "package", str)()
        return package and f"{package} {state_of(Path(package))}"
    return ""


def state_of(path: Path) -> str:
    """Path, size and time of the last change of a file, by which another one in its place is noticed.

    It is empty where there is no file at ``path``.
    """
    if not path.exists():
        return ""
    about = path.stat()
    return f"{path.resolve()}|{about.st_size}|{about.st_mtime_ns}"


def _rescue(record: Record, say: Callable[[str], None]) -> None:
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        path = folder / f"edge-harness-{record.run_id}.json"
        with contextlib.suppress(HarnessError):
            save(record, path)
            say(f"the result is in {path}")
            return
    say("the result could not be stored anywhere; it is printed only")
