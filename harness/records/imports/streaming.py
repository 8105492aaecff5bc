"""What ``edge-harness stream --json`` prints: decoding a model larger than the memory it may use."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from harness.domain.record import RunRecord
from harness.records.imports._make import file_time, number, record, sample, text

_SHOWN = ("mode", "draft", "budget_bytes", "enforced", "bound_ratio")


def recognises(document: Any) -> bool:
    """Whether it is one."""
    return isinstance(document, dict) and {"model", "mode", "budget_bytes", "generation"} <= document.keys()


def from_document(document: Mapping[str, Any], source: Path | str) -> list[RunRecord]:
    """One record with one sample: all answers together.

    Raises:
        BadDataError: It holds no time.
    """
    told = document["generation"] if isinstance(document["generation"], dict) else {}
    tokens, seconds = told.get("tokens"), number(told.get("duration_s"))
    samples = [sample("decode", text(document["mode"], 40), len(tokens), seconds)] if tokens and seconds else []
    parts = {k: document[k] for k in ("plan", "report") if isinstance(document.get(k), dict)}
    extra: dict[str, Any] = {"streaming": {k: document.get(k) for k in _SHOWN} | parts}
    name = PurePosixPath(text(document["model"], 4000)).name.removesuffix(".gguf")
    made = record(source, tool="stream", created=file_time(source), samples=samples, name=name, extra=extra)
    return [made]
