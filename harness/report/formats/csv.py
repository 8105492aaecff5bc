"""One line for each test of each run: what spreadsheets read."""

import csv
import io
from collections.abc import Sequence

from harness.domain.record import RunRecord
from harness.report.document import RunReport

COLUMNS = (
    "run_id", "created", "device", "name", "quant", "workload", "outcome", "phase", "label", "unit", "median", "low",
    "high", "samples", "disturbed", "predicted", "predicted_low", "predicted_high", "peak_memory_bytes",
)  # fmt: skip


def render(_records: Sequence[RunRecord], report: RunReport) -> str:
    """Comma-separated text; a cell that a spreadsheet would take for a formula is kept as text."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in report.runs:
        rows = {row.name: row for row in run.comparison.rows} if run.comparison else {}
        head = (
            run.record.run_id,
            run.record.created,
            run.device,
            run.name,
            run.quant,
            run.record.workload,
            run.record.outcome,
        )
        for test in run.tests:
            row = rows.get(test.phase) if test.phase in {"decode", "prefill"} else None
            said = (row.predicted, row.low, row.high) if row else (None, None, None)
            figures = (test.value, test.low, test.high, test.sample_count, test.disturbed_count, *said)
            line = (*head, test.phase, test.label, test.unit, *figures, run.peak_memory_bytes)
            writer.writerow([_cell(v) for v in line])
        if not run.tests:
            writer.writerow([_cell(v) for v in (*head, *[None] * (len(COLUMNS) - len(head)))])
    return stream.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.9g}"
    text = str(value)
    return "'" + text if isinstance(value, str) and text[:1] in {"=", "+", "-", "@", "\t"} else text
