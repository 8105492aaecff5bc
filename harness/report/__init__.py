"""Show runs and predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.domain.record import RunRecord


def write_check_report(records: "Sequence[RunRecord]", path: Path) -> None:
    """Write the page of a check: its runs, and what fits on all known devices.

    Raises:
        MissingPackageError: The extra ``report`` is not installed.
        CouldNotRunError: The file cannot be written.
    """
    from harness.records.store import write_atomically
    from harness.report.choices import choices
    from harness.report.document import build
    from harness.report.formats.html import render

    write_atomically(path, render(records, build(records, choices())).encode())
