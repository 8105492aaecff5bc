"""One self-contained HTML page."""

from collections.abc import Sequence

from harness.domain.record import RunRecord
from harness.report.document import Report, build
from harness.report.page import render_page


def render(records: Sequence[RunRecord], report: Report | None = None) -> str:
    """The page of some runs, and of the predictions in ``report``."""
    return render_page(report or build(records), records)
