"""Measure models in scenarios, one cell after the other; what fails is recorded and the rest goes on."""

import hashlib
import itertools
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from harness import plugins
from harness.app.fit import predict
from harness.app.locate import Located, locate
from harness.app.resolve import THIS_MACHINE, resolve_device, with_kept_costs
from harness.catalog.models import load_model
from harness.catalog.paths import as_path, home_dir
from harness.domain.device import DeviceProfile
from harness.domain.prediction import Prediction
from harness.domain.record import MachineFingerprint, Outcome, RunRecord, Sample
from harness.domain.scenario import Scenario
from harness.errors import Exit, HarnessError, InputError, RefusedError
from harness.measure.child import Limits
from harness.measure.lock import machine_lock
from harness.measure.machine import fingerprint
from harness.measure.runner import check_scenario, new_record, run_model
from harness.onnx.files import onnx_model
from harness.predict.quant_mix import quant_named
from harness.records.history import History
from harness.records.store import save
from harness.runtimes._threads import default_thread_count

HISTORY_FILE: Final = "history.sqlite"
RESUMED_FOR: Final = timedelta(hours=24)
"""A resumed matrix takes results of at most this age as its own."""


class Cell(NamedTuple):
    """One model in one scenario."""

    model: str
    quant: str
    scenario: Scenario


class Options(NamedTuple):
    """How all cells are run.

    Attributes:
        runtime: Runtime module.
        repetitions: Clean samples wanted of each test.
        cold_loads: Loads past the page cache.
        greedy: Choose tokens inside the clock.
        limits: Wall clock and memory of each child.
        wait: Wait for another measured run on this machine.
        resume: Take the results of cells that were done before.
        keep: Append to the history.
        folder: Also write each record there, as a file of its own.
        patience_s: Longest time spent on disturbed samples and the pauses after them.
        notes: Put into each record's ``extra``, such as the device that is emulated.
    """

    runtime: str = "llamacpp"
    repetitions: int = 5
    cold_loads: int = 1
    greedy: bool = False
    limits: Limits = Limits()
    wait: bool = True
    resume: bool = False
    keep: bool = True
    folder: Path | None = None
    patience_s: float = 20.0
    notes: Mapping[str, Any] = {}


class Listener(Protocol):
    """Who is told how it goes."""

    def say(self, line: str) -> None:
        """Something worth a line."""
        ...

    def begin(self, cell: Cell, sample_count: int) -> None:
        """A cell starts that takes about so many samples."""
        ...

    def fetched(self, done_bytes: int, all_bytes: int) -> None:
        """So much of the model's file is here."""
        ...

    def sample(self, sample: Sample) -> None:
        """One sample was taken."""
        ...

    def end(self, record: RunRecord) -> None:
        """The cell is done."""
        ...


class Silent:
    """Tells nobody."""

    def say(self, line: str) -> None:
        """Nothing."""

    def begin(self, cell: Cell, sample_count: int) -> None:
        """Nothing."""

    def fetched(self, done_bytes: int, all_bytes: int) -> None:
        """Nothing."""

    def sample(self, sample: Sample) -> None:
        """Nothing."""

    def end(self, record: RunRecord) -> None:
        """Nothing."""


def cells_of(
    models: Iterable[str],
    quant: str,
    base: Scenario,
    *,
    depths: Sequence[int] = (),
    threads: Sequence[int] = (),
) -> list[Cell]:
    """All combinations of models, depths and thread counts.

    Raises:
        UnknownNameError: No such model or mixture.
        RefusedError: A scenario does not fit its context.
    """
    if quant:
        quant = quant_named(quant)
    cells = []
    for model, depth, count in itertools.product(
        models, depths or (base.depth_tokens,), threads or (base.thread_count,)
    ):
        if as_path(model) is None:
            load_model(model)
        scenario = msgspec.structs.replace(base, depth_tokens=depth, thread_count=count or default_thread_count())
        check_scenario(scenario)
        cells.append(Cell(model, quant, scenario))
    return cells


def run_cells(
    cells: Sequence[Cell],
    options: Options,
    *,
    device: DeviceProfile | None = None,
    listener: Listener | None = None,
) -> list[RunRecord]:
    """Run every cell; a record for each, also for those that could not run. Stops early only when interrupted.

    Args:
        cells: What to run.
        options: How.
        device: Profile of this machine to predict from; None to predict nothing.
        listener: Who is told.

    Raises:
        CouldNotRunError: Another measured run held the machine for too long.
    """
    heard = listener or Silent()
    machine = fingerprint()
    history = open_history()
    records: list[RunRecord] = []
    lock = home_dir() / "run.lock"
    with machine_lock(lock, wait=options.wait, on_wait=lambda who: heard.say(f"waiting for {who} to finish")) as alone:
        if not alone:
            heard.say("another measured run is going on: results will be marked as disturbed")
        for cell in cells:
            key = cell_key(cell, options, machine)
            if options.resume and (done := _done_before(history, key)) is not None:
                heard.say(f"{cell.model}: done before ({done.run_id})")
                records.append(done)
                continue
            record = _run_cell(cell, options, device, machine, alone, heard)
            if options.keep:
                keep(record, history, heard.say, cell=key)
            if options.folder is not None:
                save(record, options.folder / f"{record.run_id}.json")
            records.append(record)
            heard.end(record)
            if record.outcome == "interrupted":
                break
    return records


def open_history() -> History:
    """The history of this user."""
    return History(home_dir() / HISTORY_FILE)


def exit_of(records: Sequence[RunRecord]) -> int:
    """Exit status of a set of runs: the worst thing that happened."""
    outcomes = {record.outcome for record in records}
    if "interrupted" in outcomes:
        return 130
    if outcomes - {"ok", "inconclusive"}:
        return Exit.COULD_NOT_RUN
    return Exit.INCONCLUSIVE if "inconclusive" in outcomes else Exit.OK


def keep(record: RunRecord, history: History, say: Callable[[str], None], *, cell: str = "") -> None:
    """Append to the history; where that fails, into a file of its own, so that no result is lost."""
    try:
        history.append(record, cell=cell)
    except HarnessError as error:
        say(f"warning: {error}")
        _rescue(record, say)


def _rescue(record: RunRecord, say: Callable[[str], None]) -> None:
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        path = folder / f"edge-harness-{record.run_id}.json"
        try:
            save(record, path)
        except HarnessError:
            continue
        say(f"the result is in {path}")
        return
    say("the result could not be stored anywhere; it is printed only")


def cell_key(cell: Cell, options: Options, machine: MachineFingerprint) -> str:
    """Key under which a cell's result is found again: everything that decides it."""
    path = as_path(cell.model)
    state = ""
    if path is not None and path.exists():
        path = onnx_model(path) or path
        found = path.stat()
        state = f"{path.resolve()}|{found.st_size}|{found.st_mtime_ns}"
    parts = [
        cell.model,
        state,
        cell.quant,
        msgspec.json.encode(cell.scenario).decode(),
        f"{options.runtime}|{options.repetitions}|{options.greedy}|{options.limits.memory_bytes}",
        machine.fingerprint,
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _done_before(history: History, key: str) -> RunRecord | None:
    if not history.path.exists():
        return None
    try:
        found = history.of_cell(key)
    except HarnessError:
        return None  # what is kept cannot be read: measure it again
    if found is None:
        return None
    age = datetime.now(UTC) - datetime.fromisoformat(found.created)
    return found if age < RESUMED_FOR else None


def _run_cell(
    cell: Cell,
    options: Options,
    device: DeviceProfile | None,
    machine: MachineFingerprint,
    alone: bool,
    heard: Listener,
) -> RunRecord:
    heard.begin(cell, sample_count_of(cell.scenario, options))
    try:
        located = locate(cell.model, cell.quant, progress=heard.fetched)
        check_format(located, options.runtime)
        prediction = _predict(located, device, cell.scenario, heard.say)
        record = run_model(
            located.path,
            located.weights,
            cell.scenario,
            name=located.name,
            quant=located.quant,
            runtime=options.runtime,
            repetitions=options.repetitions,
            cold_loads=options.cold_loads,
            greedy=options.greedy,
            limits=options.limits,
            prediction=prediction,
            machine=machine,
            sha256=located.sha256,
            hash_cache=home_dir() / "file-hashes.json",
            alone=alone,
            on_sample=heard.sample,
            patience_s=options.patience_s,
        )
        return replace(record, extra={**record.extra, **options.notes}) if options.notes else record
    except KeyboardInterrupt:
        outcome: Outcome = "interrupted"
        detail = "stopped before the run began"
    except HarnessError as error:
        outcome = "refused"
        detail = str(error)
    return new_record(
        scenario=cell.scenario,
        workload="generate",
        outcome=outcome,
        detail=detail,
        machine=machine,
        extra={"model": cell.model, "quant": cell.quant},
    )


def check_format(located: Located, runtime: str) -> None:
    """Refuse a model whose format the runtime does not read, naming a runtime that does.

    Raises:
        RefusedError: It does not.
        UnknownNameError: No such runtime.
    """
    takes = _formats(runtime)
    if not takes or not located.format or located.format in takes:
        return
    others = [n for n in plugins.names("harness.runtimes") if located.format in _formats(n)]
    hint = f": take --runtime {' or '.join(others)}" if others else ""
    runs = " and ".join(takes).upper()
    raise RefusedError(f"{located.name} is {located.format.upper()}, and the runtime {runtime} runs {runs}{hint}")


def _formats(runtime: str) -> tuple[str, ...]:
    """Formats a runtime says it reads; empty when it does not say."""
    return tuple(getattr(plugins.load("harness.runtimes", runtime, "RUNTIME"), "formats", ()))


def _predict(
    located: Located, device: DeviceProfile | None, scenario: Scenario, say: Callable[[str], None]
) -> Prediction | None:
    model = located.resolved()
    if device is None or model is None:
        return None
    try:
        return predict(model, with_kept_costs(device, scenario), scenario)
    except InputError as error:
        say(f"no prediction: {error}")
        return None


def this_machine() -> DeviceProfile | None:
    """The probed profile of this machine; None when it was never probed."""
    try:
        return resolve_device(THIS_MACHINE[0])
    except InputError:
        return None


def sample_count_of(scenario: Scenario, options: Options) -> int:
    """Samples a quiet run takes, warm-ups included: the length of its progress bar."""
    each = options.repetitions + 1
    prefill = 2 * each if scenario.prompt_tokens else 0
    decode = each if scenario.new_tokens else 0
    return 2 * options.cold_loads + 1 + prefill + decode
