"""The report as JSON, as the published schema (``harness/report/schema/report.schema.json``) describes it."""

import inspect
from collections.abc import Sequence
from typing import Any

import msgspec

from harness.domain.record import RunRecord
from harness.report.document import Report


def render(records: Sequence[RunRecord], report: Report) -> str:
    """One JSON document."""
    del records
    return msgspec.json.format(msgspec.json.encode(report), indent=1).decode() + "\n"


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
