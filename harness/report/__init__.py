"""Show runs and predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.domain.record import RunRecord


def write_check_report(records: "Sequence[RunRecord] | RunRecord", path: Path) -> None:
    """Write the page of a check: its runs, and what fits on all known devices.

    Args:
        records: One run or several.
        path: The HTML file; a ``.md`` ending gives Markdown instead.

    Raises:
        MissingPackageError: The extra ``report`` is not installed.
        CouldNotRunError: The file cannot be written.
    """
    from importlib import import_module

    from harness.domain.record import RunRecord
    from harness.records.store import write_atomically
    from harness.report.choices import choices
    from harness.report.document import build

    runs = [records] if isinstance(records, RunRecord) else list(records)
    name = "md" if path.suffix.lower() == ".md" else "html"
    report = build(runs, choices() if name == "html" else None)
    write_atomically(path, import_module(f"harness.report.formats.{name}").render(runs, report).encode())
