"""Results of tools and servers that tell their own timings, by the table ``harness/data/imports.toml``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.domain.record import RunRecord, Sample
from harness.errors import BadDataError
from harness.records.imports._make import TOOLS, at, count, number, record, sample, text

_OPTIMUM = "optimum-benchmark"


def tool_of(document: Any) -> str:
    """Whose results a JSON document holds; empty for nobody's known here."""
    for tool, table in TOOLS.items():
        parts = _parts(document, table)
        if "needs" in table and parts and all(at(part, path) is not None for part in parts for path in table["needs"]):
            return tool
    return _OPTIMUM if isinstance(document, dict) and _timed(document) else ""


def from_document(document: Any, tool: str, source: Path | str) -> list[RunRecord]:
    """One record for each part of it.

    Raises:
        BadDataError: A part took no time, or names no model where it must.
    """
    if tool == _OPTIMUM:
        samples = [s for name, part in _timed(document).items() for s in _latencies(text(name, 60), part)]
        return [record(source, tool, samples, document)]
    table = TOOLS[tool]
    records = []
    for index, part in enumerate(_parts(document, table)):
        place = f"{source}[{index}]"
        if table.get("named") and not text(at(part, table["model"]["name"])):
            raise BadDataError(place, "model", "nothing", "the name of the model that answered")
        records.append(record(place, tool, _samples(part, table), part, document))
    return records


def _parts(document: Any, table: Mapping[str, Any]) -> list[Any]:
    listed = at(document, table["parts"]) if "parts" in table else document
    return listed if isinstance(listed, list) else [listed]


def _samples(part: Any, table: Mapping[str, Any]) -> list[Sample]:
    samples: list[Sample] = []
    for test in table["tests"]:
        tokens = test["tokens"] if isinstance(test["tokens"], int) else count(at(part, test["tokens"]))
        if "rate" in test:
            rate = number(at(part, test["rate"]))
            seconds = tokens / rate if rate else 0.0
        else:
            seconds = number(at(part, test["time"])) * test["unit_s"]
        label = test.get("label") or f"{'pp' if test['phase'] == 'prefill' else 'tg'}{tokens}"
        prompt = next((s.token_count for s in samples if s.phase == "prefill"), 0)
        if seconds and (tokens or "label" in test):
            samples.append(sample(test["phase"], label + (f" @ d{prompt}" if prompt else ""), tokens, seconds))
    return samples


def _timed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of an optimum-benchmark report that hold values of a latency."""
    report = document.get("report", document)
    parts = report.items() if isinstance(report, dict) else ()
    return {name: part for name, part in parts if isinstance(at(part, "latency.values"), list)}


def _latencies(name: str, part: Mapping[str, Any]) -> list[Sample]:
    """Samples of one of them; tokens come from its throughput: tokens/s x mean latency."""
    unit_s = 1e-3 if at(part, "latency.unit") == "ms" else 1.0
    seconds = [s * unit_s for value in at(part, "latency.values") if (s := number(value)) > 0]
    phase = TOOLS[_OPTIMUM]["phases"].get(name, "workload")
    tokens = 0 if phase == "load" else 1
    if text(at(part, "throughput.unit")).startswith("tokens") and seconds and tokens:
        tokens = max(1, round(number(at(part, "throughput.value")) * sum(seconds) / len(seconds)))
    return [sample(phase, name, tokens, s) for s in seconds]
