"""A table of the bench as a document in ``reports/``, which ``renderers.json_table`` shows in the pages."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness.measure.machine import cpu

REPORTS = Path(__file__).resolve().parents[1] / "reports"


def keep(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], command: str) -> None:
    """Print a table and write it as ``reports/NAME``."""
    widths = [max(len(str(row[at])) for row in (columns, *rows)) for at in range(len(columns))]
    for row in (columns, *rows):
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    told = {
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "command": command,
        "machine": f"{cpu().model}, {cpu().logical_cpu_count} cores",
        "date": datetime.now(UTC).date().isoformat(),
    }
    (REPORTS / name).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
