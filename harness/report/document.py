"""The report as data: what the JSON format holds, what the published schema describes, and what every page shows."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PureWindowsPath
from typing import Final, Literal

from msgspec.structs import asdict

from harness import __version__
from harness.domain.base import Frozen
from harness.domain.prediction import MemoryPart, VerdictWord
from harness.domain.record import EngineIdentity, MachineFingerprint, ModelIdentity, Outcome, RunRecord
from harness.domain.scenario import Scenario
from harness.printable import clean
from harness.records.compare import Comparison, compare
from harness.records.derive import Latency, Measured, summarise
from harness.records.metrics import metric_values
from harness.report.choices import Choices

REPORT_VERSION: Final = 2


class PredictedMemory(Frozen, frozen=True, kw_only=True):
    """What was predicted of memory: its parts and the verdict on it."""

    parts: tuple[MemoryPart, ...]
    word: VerdictWord
    binding_limit: str
    needed_bytes: int
    available_bytes: int
    reasons: tuple[str, ...]


class RunView(Frozen, frozen=True, kw_only=True):
    """One run, as reports show it; the raw samples stay in its record.

    Attributes:
        created: RFC 3339, UTC.
        name: Model or workload.
        quant: Mixture; empty for none.
        workload: ``generate`` or a workload's name.
        detail: Why it ended so, for any outcome but ``ok``.
        peak_memory_bytes: Peak of the child process.
        comparison: Predicted and measured; null when nothing was predicted.
        memory: Predicted memory.
        command: The command line, without the folders of its paths.
        harness_version: Version that made the record.
    """

    run_id: str
    created: str
    name: str
    quant: str
    device: str
    workload: str
    outcome: Outcome
    detail: str
    tests: tuple[Measured, ...]
    latency: tuple[Latency, ...]
    peak_memory_bytes: int | None
    comparison: Comparison | None
    memory: PredictedMemory | None
    machine: MachineFingerprint
    engine: EngineIdentity | None
    model: ModelIdentity | None
    scenario: Scenario
    command: tuple[str, ...]
    harness_version: str


class Report(Frozen, frozen=True, kw_only=True):
    """A whole report.

    Attributes:
        report_version: Version of this format.
        created: RFC 3339, UTC.
        runs: First those that were predicted, then the others; of each the oldest first.
        choices: Predictions for many devices and models; null when none were asked for.
    """

    format: Literal["edge-harness report"] = "edge-harness report"
    report_version: int = REPORT_VERSION
    created: str
    harness_version: str = __version__
    command: tuple[str, ...] = ()
    runs: tuple[RunView, ...] = ()
    choices: Choices | None = None


def build(
    records: Sequence[RunRecord],
    choices: Choices | None = None,
    *,
    command: Sequence[str] = (),
    created: str = "",
) -> Report:
    """Make the report of some runs and predictions: first the runs that were predicted, then the others, as they came.

    ``command`` is the command line, for the section on how it was made; ``created`` the time to state, else now.
    """
    return Report(
        created=created or datetime.now(UTC).isoformat(timespec="seconds"),
        command=without_folders(command),
        runs=tuple(view(r) for r in sorted(records, key=lambda r: (r.prediction is None, r.created, r.run_id))),
        choices=choices,
    )


def view(record: RunRecord) -> RunView:
    """One run, derived from its raw samples."""
    summary, prediction, peak = summarise(record), record.prediction, metric_values(record, "peak_memory_bytes")
    same = ("run_id", "created", "workload", "outcome", "detail", "machine", "engine", "scenario", "harness_version")
    return RunView(
        **{name: getattr(record, name) for name in same},
        name=clean(record.name),
        quant=clean(record.quant),
        device=clean(record.machine.device),
        tests=summary.tests,
        latency=summary.latency,
        peak_memory_bytes=round(peak[0]) if peak else None,
        comparison=compare(record),
        memory=PredictedMemory(parts=prediction.memory.parts, **asdict(prediction.verdict)) if prediction else None,
        model=record.model,
        command=without_folders(record.command),
    )


def without_folders(words: Sequence[str]) -> tuple[str, ...]:
    """A command line as it may be published: of a path from the root only its last part (folders name people)."""
    shown = []
    for word in words:
        head, sign, path = word.partition("=") if word.startswith("--") and "=" in word else ("", "", word)
        bare = PureWindowsPath(path)
        rooted = path.startswith(("/", "~", "\\\\")) or bool(bare.drive)
        shown.append(f"{head}{sign}{bare.name}" if rooted and bare.name else word)
    return tuple(shown)
