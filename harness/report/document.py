"""What pages show: runs with the figures that are derived from their raw samples, and predictions."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PureWindowsPath
from typing import Any, NamedTuple

from harness.domain.figure import metric_values
from harness.domain.record import RunRecord
from harness.printable import clean
from harness.records.compare import Comparison, compare
from harness.records.derive import Measured, summarise
from harness.report.choices import Choices


class RunView(NamedTuple):
    """One run, as reports show it.

    Attributes:
        tests: Medians of its clean samples.
        peak_memory_bytes: Peak of the child process.
        comparison: Predicted and measured; None when nothing was predicted.
    """

    record: RunRecord
    tests: tuple[Measured, ...]
    peak_memory_bytes: int | None
    comparison: Comparison | None

    @property
    def name(self) -> str:
        """Model or workload."""
        return clean(self.record.name)

    @property
    def quant(self) -> str:
        """Mixture; empty for none."""
        return clean(self.record.quant)

    @property
    def device(self) -> str:
        """What it ran on."""
        return clean(self.record.machine.device)

    @property
    def command(self) -> tuple[str, ...]:
        """The command line, without the folders of its paths."""
        return without_folders(self.record.command)


class RunReport(NamedTuple):
    """A whole report.

    Attributes:
        created: RFC 3339, UTC.
        runs: First those that were predicted, then the others; of each the oldest first.
        choices: Predictions for many devices and models; None when none were asked for.
        command: The command line that made it.
        budgets: What each budget came to, as ``harness.gates.formats.chart_rows`` gives it.
    """

    created: str
    runs: tuple[RunView, ...]
    choices: Choices | None
    command: tuple[str, ...]
    budgets: tuple[dict[str, Any], ...] = ()


def build(
    records: Sequence[RunRecord],
    choices: Choices | None = None,
    *,
    command: Sequence[str] = (),
    created: str = "",
    budgets: Sequence[dict[str, Any]] = (),
) -> RunReport:
    """Make the report of some runs and predictions: first the runs that were predicted, then the others, as they came.

    ``command`` is the command line, for the section on how it was made; ``created`` the time to state, else now.
    """
    return RunReport(
        created=created or datetime.now(UTC).isoformat(timespec="seconds"),
        command=without_folders(command),
        runs=tuple(view(r) for r in sorted(records, key=lambda r: (r.prediction is None, r.created, r.run_id))),
        choices=choices,
        budgets=tuple(budgets),
    )


def view(record: RunRecord) -> RunView:
    """One run, derived from its raw samples."""
    peak = metric_values(record, "peak_memory_bytes")
    return RunView(record, summarise(record), round(peak[0]) if peak else None, compare(record))


def without_folders(words: Sequence[str]) -> tuple[str, ...]:
    """A command line as it may be published: of a path from the root only its last part (folders name people)."""
    shown = []
    for word in words:
        head, sign, path = word.partition("=") if word.startswith("--") and "=" in word else ("", "", word)
        bare = PureWindowsPath(path)
        rooted = path.startswith(("/", "~", "\\\\")) or bool(bare.drive)
        shown.append(f"{head}{sign}{bare.name}" if rooted and bare.name else word)
    return tuple(shown)
