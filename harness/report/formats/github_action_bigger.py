"""github-action-benchmark, ``tool: customBiggerIsBetter``: speeds."""

import json
from collections.abc import Sequence

from harness.domain.record import RunRecord
from harness.report.document import Report
from harness.report.figures import labelled
from harness.report.text import digits


def render(_records: Sequence[RunRecord], report: Report) -> str:
    """A JSON array of tokens per second."""
    return array(report, bigger=True)


def array(report: Report, *, bigger: bool) -> str:
    """Medians in one direction, with their interval as the range and the run as the extra text."""
    entries = []
    for label, run in labelled(report.runs):
        for test in run.tests:
            if test.value is None or test.higher_is_better != bigger:
                continue
            entry = {"name": f"{label}: {test.label}", "unit": test.unit, "value": test.value}
            if test.low is not None and test.high is not None:
                entry["range"] = f"{digits(test.low)} to {digits(test.high)}"
            entry["extra"] = f"run {run.run_id}\n{test.sample_count} samples on {run.device}"
            entries.append(entry)
        if not bigger and run.peak_memory_bytes:
            entries.append({"name": f"{label}: peak memory", "unit": "bytes", "value": run.peak_memory_bytes})
    return json.dumps(entries, indent=1) + "\n"
