"""``python -m bench report_schema``: write the published JSON Schema of reports anew from their types."""

import inspect
import json
from pathlib import Path
from typing import Any

import msgspec

from harness.report.document import Report

PUBLISHED = Path(__file__).resolve().parents[1] / "harness" / "report" / "schema" / "report.schema.json"


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the document, made from its types."""
    made = msgspec.json.schema(Report)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edge-harness report",
        "description": "Runs derived from raw samples, and predictions; unknown keys are an error.",
    }
    for described in made["$defs"].values():  # Python 3.13 takes the indentation off docstrings, older ones do not
        if "description" in described:
            described["description"] = inspect.cleandoc(described["description"])
    return head | made


if __name__ == "__main__":
    PUBLISHED.write_text(json.dumps(schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
