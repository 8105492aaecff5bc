"""pytest-benchmark's JSON, so that ``pytest-benchmark compare`` and what reads its files read runs of ours."""

import json
from collections.abc import Sequence
from importlib.resources import files
from statistics import fmean, median, stdev
from typing import Any

import numpy as np

from harness.domain.record import RunRecord
from harness.records.derive import tests_of
from harness.records.metrics import UNITS, metric_values
from harness.report.document import Report
from harness.report.figures import labelled


def render(records: Sequence[RunRecord], report: Report) -> str:
    """One document; a benchmark for each test of each run, in seconds for one token (or operation)."""
    by_id = {record.run_id: record for record in records}
    usual = json.loads((files("harness.report") / "schema" / "pytest_benchmark.json").read_text("utf-8"))
    document = usual["document"]
    for label, run in labelled(report.runs):
        record = by_id[run.run_id]
        extra = extra_info(record) | {"run_id": record.run_id}
        for (phase, test), samples in tests_of(record).items():
            single = phase in {"first_token", "load"}
            clean = [s for s in samples if not s.validity.doubts and s.duration_s > 0]
            if seconds := [s.duration_s / (1 if single else max(1, s.token_count)) for s in clean]:
                document["benchmarks"].append(usual["benchmark"] | _benchmark(f"{label}: {test}", seconds, extra))
    if records:
        machine = records[0].machine
        about = {"system": machine.system, "release": machine.kernel, "processor": machine.cpu_model}
        cpu = {"brand_raw": machine.cpu_model, "count": machine.core_count}
        document["datetime"] = records[-1].created
        document["machine_info"] |= about | {"python_version": machine.python, "cpu": cpu}
    return json.dumps(document, indent=1) + "\n"


def extra_info(record: RunRecord) -> dict[str, Any]:
    """Medians of all metrics that a run holds, by the names budgets use."""
    found: dict[str, Any] = {"model": record.model.name if record.model else "", "outcome": record.outcome}
    for metric in UNITS:
        if values := metric_values(record, metric):
            found[metric] = median(values)
    return found


def _benchmark(name: str, seconds: list[float], extra: dict[str, Any]) -> dict[str, Any]:
    q1, middle, q3 = (float(q) for q in np.quantile(seconds, (0.25, 0.5, 0.75)))
    spread, mean = stdev(seconds) if len(seconds) > 1 else 0.0, fmean(seconds)
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    inside = [s for s in seconds if low <= s <= high]
    far = sum(abs(s - mean) > spread for s in seconds)
    out = len(seconds) - len(inside)
    stats = {
        "min": min(seconds),
        "max": max(seconds),
        "mean": mean,
        "stddev": spread,
        "rounds": len(seconds),
        "median": middle,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": out,
        "stddev_outliers": far,
        "outliers": f"{far};{out}",
        "ld15iqr": min(inside),
        "hd15iqr": max(inside),
        "ops": 1 / mean,
        "total": sum(seconds),
        "iterations": 1,
        "data": seconds,
    }
    return {"name": name, "fullname": f"edge-harness::{name}", "extra_info": extra, "stats": stats}
