"""optimum-benchmark reports: ``benchmark_report.json``, or ``benchmark.json`` that holds the configuration too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness.domain.record import Phase, RunRecord, Sample
from harness.records.imports._make import count, dated, number, part, record, sample, text

_PHASES: Final[dict[str, Phase]] = {
    "load": "load",
    "load_model": "load",
    "prefill": "prefill",
    "decode": "decode",
    "per_token": "decode",
}


def recognises(document: Any) -> bool:
    """Whether it is a report: parts with a latency in seconds."""
    return isinstance(document, dict) and bool(_timed(document))


def from_document(document: Mapping[str, Any], source: Path | str) -> list[RunRecord]:
    """One record.

    Raises:
        BadDataError: It holds no time.
    """
    backend, environment = part(document, "config", "backend"), part(document, "config", "environment")
    return [
        record(
            source,
            tool="optimum-benchmark",
            created=dated(environment.get("timestamp")),
            samples=[s for name, measured in _timed(document).items() for s in _samples(text(name, 60), measured)],
            name=text(backend.get("model")).rpartition("/")[2],
            cpu=text(environment.get("cpu")).strip(),
            engine_version=text(backend.get("version"), 40),
            engine_build=text(backend.get("name"), 40),
            thread_count=count(backend.get("intra_op_num_threads")),
        )
    ]


def _timed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that hold values of a latency."""
    report = document.get("report", document)
    found = report.items() if isinstance(report, dict) else ()
    return {name: each for name, each in found if isinstance(part(each, "latency").get("values"), list)}


def _samples(name: str, measured: Mapping[str, Any]) -> list[Sample]:
    """Samples of a part; tokens come from its throughput: tokens/s x mean latency."""
    latency, throughput = part(measured, "latency"), part(measured, "throughput")
    unit_s = 1e-3 if latency.get("unit") == "ms" else 1.0
    seconds = [s * unit_s for v in latency["values"] if (s := number(v)) > 0]
    phase = _PHASES.get(name, "workload")
    tokens = 1
    if text(throughput.get("unit")).startswith("tokens") and seconds:
        tokens = max(1, round(number(throughput.get("value")) * sum(seconds) / len(seconds)))
    return [sample(phase, name, 0 if phase == "load" else tokens, s) for s in seconds]
