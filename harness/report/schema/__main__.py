"""Write ``report.schema.json`` from the types."""

import json
from pathlib import Path

from harness.report.formats.json import schema

(Path(__file__).parent / "report.schema.json").write_text(
    json.dumps(schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
)
