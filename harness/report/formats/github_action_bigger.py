"""github-action-benchmark, ``tool: customBiggerIsBetter``: speeds."""

from collections.abc import Sequence

from harness.domain.record import RunRecord
from harness.report.document import Report
from harness.report.formats._github_action import array


def render(records: Sequence[RunRecord], report: Report | None = None) -> str:
    """A JSON array of tokens per second."""
    return array(records, report, bigger=True)
