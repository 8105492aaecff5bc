"""Documents of the bench, kept in ``reports/`` beside the command, the machine and the date that they come from."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.measure.machine import cpu

REPORTS = Path(__file__).resolve().parents[1] / "reports"


def write(path: Path, command: str, told: Mapping[str, Any], machine: str = "") -> str:
    """Write a document and return its text; without a ``machine`` it names this one's CPU."""
    head = {"command": command, "machine": machine or cpu().model, "date": datetime.now(UTC).date().isoformat()}
    text = json.dumps({**head, **told}, indent=1) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return text


def keep(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], command: str) -> None:
    """Print a table and write it as ``reports/NAME``, which ``renderers.json_table`` shows in the pages."""
    widths = [max(len(str(row[at])) for row in (columns, *rows)) for at in range(len(columns))]
    for row in (columns, *rows):
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    told = {"columns": list(columns), "rows": [list(row) for row in rows]}
    write(REPORTS / name, command, told, f"{cpu().model}, {cpu().logical_cpu_count} cores")
