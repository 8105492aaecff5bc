"""llama-bench's ``-o sql``: pipe it into ``sqlite3 llama-bench.sqlite``."""

from collections.abc import Sequence

from harness.domain.record import RunRecord
from harness.report.document import Report
from harness.report.formats.llama_bench_jsonl import FIELDS, rows


def render(records: Sequence[RunRecord], _report: Report) -> str:
    """The table, and an INSERT a test; quotes in names are doubled."""
    columns = ",\n".join(f"  {name} {kind}" for name, (kind, _) in FIELDS.items())
    lines = [f"CREATE TABLE IF NOT EXISTS llama_bench (\n{columns}\n);\n"]
    names = ", ".join(FIELDS)
    for row in rows(records):
        values = ", ".join(_quoted(row[name]) for name in FIELDS)
        lines.append(f"INSERT INTO llama_bench ({names}) VALUES ({values});")  # noqa: S608 - text, quoted, not run here
    return "\n".join(lines) + "\n"


def _quoted(value: object) -> str:
    text = f"{value:.6f}" if isinstance(value, float) else str(value)
    return "'" + text.replace("\x00", "").replace("'", "''") + "'"
