"""The report of a check: a page or Markdown, by the ending of its file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.catalog.paths import home_dir
from harness.domain.record import RunRecord
from harness.errors import HarnessError
from harness.records.store import write_atomically
from harness.report.formats import html, md
from harness.report.pages import page_of

REPORT_NAME: Final = "edge-harness-check.md"


def write_check_report(records: Sequence[RunRecord], path: Path | None) -> Path:
    """Write it, and say where: into the current folder, or the user's own where that cannot be written.

    Raises:
        CouldNotRunError: It could not be written.
        MissingPackageError: Jinja2 is not installed, which a page needs.
    """
    target = path or Path.cwd() / REPORT_NAME
    if target.suffix.lower() == ".md":
        text = md.render(records)
    else:
        text = html.render(page_of(records))
    try:
        write_atomically(target, text.encode())
    except HarnessError:
        if path is not None:
            raise
        target = home_dir() / REPORT_NAME
        write_atomically(target, text.encode())
    return target
