"""The report of a check: a page or Markdown, by the ending of its file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from harness.catalog.paths import home_dir
from harness.domain.record import RunRecord
from harness.errors import HarnessError
from harness.records.store import write_atomically
from harness.report.choices import beside
from harness.report.document import build
from harness.report.formats import html, md

REPORT_NAME: Final = "edge-harness-check.md"


def write_check_report(records: Sequence[RunRecord], path: Path | None) -> Path:
    """Write it, and say where. A page also tells what else would run on this machine and on a few others.

    Without a path it goes into the current folder, or into the user's own where that cannot be written.

    Raises:
        CouldNotRunError: It could not be written.
        MissingPackageError: Jinja2 or vl-convert is not installed, which a page needs.
    """
    target = path or Path.cwd() / REPORT_NAME
    is_page = target.suffix.lower() != ".md"
    text = html.render(records, build(records, beside(records))) if is_page else md.render(records, build(records))
    try:
        write_atomically(target, text.encode())
    except HarnessError:
        if path is not None:
            raise
        target = home_dir() / REPORT_NAME
        write_atomically(target, text.encode())
    return target
