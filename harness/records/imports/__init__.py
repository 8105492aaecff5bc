"""Results of other tools as run records: recognised by what is in a file, read leniently, bounded in size."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from harness.domain.foreign import json_of, read_limited
from harness.domain.record import RunRecord
from harness.errors import BadDataError
from harness.records.imports import tools
from harness.records.imports.pasted import from_text
from harness.records.store import from_document


def read_results(path: Path) -> list[RunRecord]:
    """Records of a file: ours (one, or a list of them), what another tool or server wrote, or what a person pasted.

    What the verbs that measure print with ``--json`` is read too.

    Raises:
        BadDataError: There is none, or it is none of these.
    """
    data = read_limited(path)
    if data.startswith(
        (b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")
    ):  # as PowerShell writes what is redirected
        data = data.decode("utf-8-sig" if data[0] == 0xEF else "utf-16", errors="replace").encode()
    text = data.decode("utf-8", errors="replace")
    if not text.lstrip().startswith(("{", "[")):
        return from_text(text, path)
    document = _document(data, text, path)
    if isinstance(document, dict) and "schema_version" in document:
        return [from_document(document, path)]
    if own := _own(document):
        return [from_document(d, f"{path}[{i}]") for i, d in enumerate(own)]
    if tool := tools.tool_of(document):
        return tools.from_document(document, tool, path)
    raise BadDataError(
        path, "", "results of no tool known here", f"a run record, or a file of {', '.join(tools.TOOLS)}"
    )


def _own(document: Any) -> list[Any]:
    """Records in a list, or inside what ``check --json`` and ``workloads run --json`` print; else nothing."""
    if isinstance(document, dict):
        listed = document.get("records", [document.get("record")])
    else:
        listed = document
    if isinstance(listed, list) and all(isinstance(d, dict) and "run_id" in d for d in listed):
        return listed
    return []


def _document(data: bytes, text: str, path: Path) -> Any:
    """The file as one JSON document, or else the list of its JSON lines."""
    try:
        return json_of(data, path, "results of a tool")
    except BadDataError:
        with suppress(msgspec.DecodeError, RecursionError):
            return [msgspec.json.decode(line) for line in text.splitlines() if line.strip()]
        raise
