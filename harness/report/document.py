"""The report as data: what the JSON format holds, what the published schema describes, and what every page shows."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PureWindowsPath
from typing import Final, Literal

from msgspec.structs import asdict

from harness import __version__
from harness.domain.base import Frozen
from harness.domain.prediction import MemoryPart, VerdictWord
from harness.domain.record import EngineIdentity, MachineFingerprint, ModelIdentity, Outcome, Phase, RunRecord
from harness.domain.scenario import Scenario
from harness.printable import clean
from harness.records.compare import Comparison, compare
from harness.records.derive import Latency, summarise
from harness.records.metrics import metric_values
from harness.report.choices import Choices
from harness.stats.intervals import quantile_interval

REPORT_VERSION: Final = 1


class Measured(Frozen, frozen=True, kw_only=True):
    """One test of a run: the median of its clean samples, with a 95 % interval where there are enough of them.

    Attributes:
        value: Median; null without a clean sample.
        low: Lower end of the interval of the median; null below six samples.
        sample_count: Clean samples.
        disturbed_count: Samples that were disturbed and do not count.
    """

    phase: Phase
    label: str
    unit: Literal["tokens/s", "s"]
    value: float | None
    low: float | None = None
    high: float | None = None
    sample_count: int = 0
    disturbed_count: int = 0
    higher_is_better: bool = True


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
        roofline_tokens_per_s: Ceiling of decoding on this device.
        active_bytes: Weight bytes read to decode one token, as predicted.
        kv_read_bytes: KV bytes read to decode one token.
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
    roofline_tokens_per_s: float | None
    active_bytes: int | None
    kv_read_bytes: int | None
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
        tests=tuple(_measured(record, t.phase, t.label, t.disturbed_count) for t in summary.tests),
        latency=summary.latency,
        peak_memory_bytes=round(peak[0]) if peak else None,
        comparison=compare(record),
        memory=PredictedMemory(parts=prediction.memory.parts, **asdict(prediction.verdict)) if prediction else None,
        roofline_tokens_per_s=prediction.speed.roofline_tokens_per_s if prediction else None,
        active_bytes=prediction.speed.active_bytes if prediction else None,
        kv_read_bytes=prediction.speed.kv_read_bytes if prediction else None,
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


def _measured(record: RunRecord, phase: Phase, label: str, disturbed_count: int) -> Measured:
    """Rates for what covers tokens, durations for the rest (a first token's time covers its whole prompt)."""
    samples = record.believed(phase, label)
    rated = phase in {"prefill", "decode", "draft", "verify", "stream"} and all(s.token_count for s in samples)
    values = [s.token_count / s.duration_s if rated else s.duration_s for s in samples if s.duration_s > 0]
    if phase == "workload":
        values = [s.duration_s / max(1, s.token_count) for s in samples]
    value, low, high = quantile_interval(values)[:3] if values else (None, None, None)
    return Measured(
        phase=phase,
        label=label,
        unit="tokens/s" if rated else "s",
        value=value,
        low=low,
        high=high,
        sample_count=len(values),
        disturbed_count=disturbed_count,
        higher_is_better=rated,
    )
