"""MLLOG lines, as MLPerf's tools read them: ``:::MLLOG {...}``.

Source: mlcommons/logging, mlperf_logging/mllog/mllog.py.
"""

import json
from collections.abc import Sequence
from datetime import datetime

from harness.domain.record import RunRecord
from harness.report.document import Report


def render(records: Sequence[RunRecord], _report: Report) -> str:
    """A line for the beginning of a run, each of its samples, and its end."""
    lines = []
    for record in records:
        begun = datetime.fromisoformat(record.created).timestamp()
        model = record.model.name if record.model else ""
        about: dict[str, object] = {"run_id": record.run_id, "workload": record.workload, "model": model}
        lines.append(_line("INTERVAL_START", "run_start", None, begun, about))
        for key, value in (
            ("submission_platform", record.machine.cpu_model),
            ("submission_benchmark", model or record.workload),
        ):
            lines.append(_line("POINT_IN_TIME", key, value, begun, about))
        end = begun
        for sample in record.samples:
            at = sample.started_unix_s + sample.duration_s
            end = max(end, at)
            more = {"label": sample.label, "warm_up": sample.warm_up, "doubts": list(sample.validity.doubts)}
            rated = sample.token_count and sample.duration_s > 0 and sample.phase in {"prefill", "decode"}
            name = f"{sample.phase}_tokens_per_s" if rated else f"{sample.phase}_s"
            number = sample.token_count / sample.duration_s if rated else sample.duration_s
            lines.append(_line("POINT_IN_TIME", name, number, at, about | more))
        status = {"status": "success" if record.outcome == "ok" else "aborted", "outcome": record.outcome}
        lines.append(_line("INTERVAL_END", "run_stop", None, end, about | status))
    return "".join(lines)


def _line(event: str, key: str, value: object, at_unix_s: float, metadata: dict[str, object]) -> str:
    body = {
        "namespace": "",
        "time_ms": round(at_unix_s * 1000),
        "event_type": event,
        "key": key,
        "value": value,
        "metadata": {"file": "edge-harness", "lineno": 0} | metadata,
    }
    return f":::MLLOG {json.dumps(body)}\n"
