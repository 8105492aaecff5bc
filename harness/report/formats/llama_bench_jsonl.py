"""llama-bench's ``-o jsonl``: a line a test."""

import json
from collections.abc import Sequence

from harness.domain.record import RunRecord
from harness.report.document import Report
from harness.report.formats._llama_bench import BOOLEANS, rows


def render(records: Sequence[RunRecord], report: Report | None = None) -> str:
    """JSON lines."""
    del report
    lines = [json.dumps({k: bool(v) if k in BOOLEANS else v for k, v in row.items()}) for row in rows(records)]
    return "".join(line + "\n" for line in lines)
