"""guidellm reports: distributions over requests, of which medians are kept (there are no raw samples in them)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.domain.record import RunRecord, Sample
from harness.records.imports._make import number, part, record, sample, text

_METRICS = ("time_to_first_token_ms", "inter_token_latency_ms", "output_tokens_per_second")


def recognises(document: Any) -> bool:
    """Whether it is a report: benchmarks with metrics."""
    found = document.get("benchmarks") if isinstance(document, dict) else None
    return isinstance(found, list) and bool(found) and all(isinstance(b, dict) and "metrics" in b for b in found)


def from_document(document: Mapping[str, Any], source: Path | str) -> list[RunRecord]:
    """A record for each benchmark.

    Raises:
        BadDataError: One holds none of the three metrics.
    """
    return [_one(b, document, f"{source} benchmarks[{i}]") for i, b in enumerate(document["benchmarks"])]


def _one(benchmark: Mapping[str, Any], document: Mapping[str, Any], place: str) -> RunRecord:
    told = {name: part(benchmark, "metrics", name) for name in _METRICS}
    found = {name: part(each, "successful") if "successful" in each else each for name, each in told.items()}
    samples: list[Sample] = []
    first, between, rate = (number(each.get("median")) or number(each.get("mean")) for each in found.values())
    if first:
        samples.append(sample("first_token", "ttft", 0, first / 1e3))
    if between:
        samples.append(sample("decode", "one token", 1, between / 1e3))
    if rate:
        # The rate of the server over all its requests; 1000 tokens keep four digits of it.
        samples.append(sample("workload", "output token", 1000, 1000 / rate))
    return record(
        place,
        tool="guidellm",
        created=datetime.fromtimestamp(min(number(benchmark.get("start_time")), 4e9), UTC).isoformat(),
        samples=samples,
        name=(_model(benchmark) or _model(document)).rpartition("/")[2],
        extra={"distributions": {name: _plain(each) for name, each in found.items()}},
        detail="summary of many requests: each sample is a median",
    )


def _plain(distribution: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a distribution, percentiles among them."""
    names = ("mean", "median", "std_dev", "min", "max", "count")
    values = {k: distribution[k] for k in names if k in distribution} | part(distribution, "percentiles")
    return {text(k, 20): number(v) for k, v in values.items()}


def _model(document: Any, depth: int = 6) -> str:
    """The first text under a key ``model``, however deep (its place moved between versions)."""
    if depth == 0 or not isinstance(document, dict):
        return ""
    if text(document.get("model")):
        return text(document["model"])
    return next((found for value in document.values() if (found := _model(value, depth - 1))), "")
