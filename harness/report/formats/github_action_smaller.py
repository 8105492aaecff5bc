"""github-action-benchmark, ``tool: customSmallerIsBetter``: times and memory."""

from collections.abc import Sequence

from harness.domain.record import RunRecord
from harness.report.document import Report
from harness.report.formats.github_action_bigger import array


def render(_records: Sequence[RunRecord], report: Report) -> str:
    """A JSON array of seconds and bytes."""
    return array(report, bigger=False)
