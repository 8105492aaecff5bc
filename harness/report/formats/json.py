"""The report as JSON, as the published schema (``harness/report/schema/report.schema.json``) describes it."""

from collections.abc import Sequence

import msgspec

from harness.domain.record import RunRecord
from harness.report.document import Report


def render(_records: Sequence[RunRecord], report: Report) -> str:
    """One JSON document."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"
