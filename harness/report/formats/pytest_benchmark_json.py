"""pytest-benchmark's JSON, so that ``pytest-benchmark compare`` and what reads its files read runs of ours."""

import json
from collections.abc import Sequence
from statistics import fmean, median, stdev
from typing import Any

import numpy as np

from harness.domain.record import RunRecord, Sample
from harness.records.metrics import UNITS, metric_values
from harness.report.document import Report
from harness.report.figures import labelled


def render(records: Sequence[RunRecord], report: Report) -> str:
    """One document; a benchmark for each test of each run, in seconds for one token (or operation)."""
    by_id = {record.run_id: record for record in records}
    benchmarks = []
    runs = labelled(report.runs)
    for label, run in runs:
        record = by_id[run.run_id]
        groups: dict[tuple[str, str], list[Sample]] = {}
        for sample in record.samples:
            if not sample.warm_up and not sample.validity.doubts and sample.duration_s > 0:
                groups.setdefault((sample.phase, sample.label), []).append(sample)
        for (phase, test), samples in groups.items():
            single = phase in {"first_token", "load"}
            seconds = [s.duration_s / (1 if single else max(1, s.token_count)) for s in samples]
            benchmarks.append(_benchmark(f"{label}: {test}", seconds, extra_info(record) | {"run_id": record.run_id}))
    machine = records[0].machine if records else None
    document = {
        "machine_info": {
            "system": machine.system if machine else "",
            "release": machine.kernel if machine else "",
            "machine": "",
            "processor": machine.cpu_model if machine else "",
            "python_version": machine.python if machine else "",
            "cpu": {"brand_raw": machine.cpu_model if machine else "", "count": machine.core_count if machine else 0},
        },
        "commit_info": {"id": "", "time": None, "dirty": False, "branch": ""},
        "benchmarks": benchmarks,
        "datetime": records[-1].created if records else "",
        "version": "5.1.0",
    }
    return json.dumps(document, indent=1) + "\n"


def extra_info(record: RunRecord) -> dict[str, Any]:
    """Medians of all metrics that a run holds, by the names budgets use."""
    found: dict[str, Any] = {"model": record.model.name if record.model else "", "outcome": record.outcome}
    for metric in UNITS:
        values = metric_values(record, metric)
        if values:
            found[metric] = median(values)
    return found


def _benchmark(name: str, seconds: list[float], extra: dict[str, Any]) -> dict[str, Any]:
    q1, middle, q3 = (float(q) for q in np.quantile(seconds, (0.25, 0.5, 0.75)))
    spread, mean = stdev(seconds) if len(seconds) > 1 else 0.0, fmean(seconds)
    low, high = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
    inside = [s for s in seconds if low <= s <= high]
    far = sum(abs(s - mean) > spread for s in seconds)
    out = len(seconds) - len(inside)
    return {
        "group": None,
        "name": name,
        "fullname": f"edge-harness::{name}",
        "params": None,
        "param": None,
        "extra_info": extra,
        "options": {
            "disable_gc": False,
            "timer": "perf_counter",
            "min_rounds": 1,
            "max_time": 0.0,
            "min_time": 0.0,
            "warmup": True,
        },
        "stats": {
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
        },
    }
