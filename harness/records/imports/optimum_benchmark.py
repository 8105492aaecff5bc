"""optimum-benchmark reports: ``benchmark_report.json``, or ``benchmark.json`` that holds the configuration too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness.domain.record import Phase, RunRecord, Sample
from harness.records.imports._make import count, number, record, sample, text

_PHASES: Final[dict[str, Phase]] = {
    "load": "load",
    "load_model": "load",
    "prefill": "prefill",
    "decode": "decode",
    "per_token": "decode",
}


def recognises(document: Any) -> bool:
    """Whether it is a report: parts with a latency in seconds."""
    report = document.get("report", document) if isinstance(document, dict) else None
    return isinstance(report, dict) and any(_latency(part) for part in report.values())


def from_document(document: Mapping[str, Any], source: Path | str) -> list[RunRecord]:
    """One record.

    Raises:
        BadDataError: It holds no time.
    """
    report = document.get("report", document)
    config = document.get("config")
    backend = config.get("backend") if isinstance(config, dict) else None
    backend = backend if isinstance(backend, dict) else {}
    environment = config.get("environment") if isinstance(config, dict) else None
    environment = environment if isinstance(environment, dict) else {}
    samples: list[Sample] = []
    for name, part in report.items():
        latency = _latency(part)
        if latency:
            samples += _samples(text(name, 60), part, latency)
    return [
        record(
            source,
            tool="optimum-benchmark",
            created=text(environment.get("timestamp"), 40) or "1970-01-01T00:00:00+00:00",
            samples=samples,
            name=text(backend.get("model")).rpartition("/")[2],
            cpu=text(environment.get("cpu")).strip(),
            engine_version=text(backend.get("version"), 40),
            engine_build=text(backend.get("name"), 40),
            thread_count=count(backend.get("intra_op_num_threads")),
        )
    ]


def _latency(part: Any) -> Mapping[str, Any] | None:
    latency = part.get("latency") if isinstance(part, dict) else None
    return latency if isinstance(latency, dict) and isinstance(latency.get("values"), list) else None


def _samples(name: str, part: Mapping[str, Any], latency: Mapping[str, Any]) -> list[Sample]:
    """Samples of a part; tokens come from its throughput: tokens/s x mean latency."""
    seconds = [number(v) for v in latency["values"]]
    seconds = [s / 1000 if latency.get("unit") == "ms" else s for s in seconds if s > 0]
    phase = _PHASES.get(name, "workload")
    throughput = part.get("throughput")
    tokens = 1
    if isinstance(throughput, dict) and text(throughput.get("unit")).startswith("tokens") and seconds:
        tokens = max(1, round(number(throughput.get("value")) * sum(seconds) / len(seconds)))
    return [sample(phase, name, 0 if phase == "load" else tokens, s) for s in seconds]
