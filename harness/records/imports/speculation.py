"""What ``edge-harness speculate --json`` prints: speculative beside plain decoding."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from harness.domain.record import RunRecord
from harness.records.imports._make import count, file_time, number, record, sample, text

_SHOWN = ("speedup_ratio", "median_ratio", "expected_ratio", "fixed_ratio", "acceptance_ratio", "unexplained_count")


def recognises(document: Any) -> bool:
    """Whether it is one."""
    return (
        isinstance(document, dict) and {"target", "draft", "plain", "speculative", "speedup_ratio"} <= document.keys()
    )


def from_document(document: Mapping[str, Any], source: Path | str) -> list[RunRecord]:
    """One record, with a sample for each side.

    Raises:
        BadDataError: Neither side has a time.
    """
    sides = {"plain": document["plain"], "speculative": document["speculative"]}
    samples = [
        sample("decode", name, len(side["tokens"]), number(side.get("duration_s")))
        for name, side in sides.items()
        if isinstance(side, dict) and isinstance(side.get("tokens"), list) and number(side.get("duration_s"))
    ]
    told = sides["speculative"] if isinstance(sides["speculative"], dict) else {}
    counts = {k: [count(n) for n in told.get(k, ())] for k in ("tried_by_position", "accepted_by_position")}
    draft = PurePosixPath(text(document["draft"], 4000)).name
    extra: dict[str, Any] = {"speculation": {"draft": draft, **{k: document.get(k) for k in _SHOWN}, **counts}}
    name = PurePosixPath(text(document["target"], 4000)).name.removesuffix(".gguf")
    made = record(source, tool="speculate", created=file_time(source), samples=samples, name=name, extra=extra)
    return [made]
