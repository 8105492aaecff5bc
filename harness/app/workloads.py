"""Workloads as a user asks for them: list, run, predict here and elsewhere, compare."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harness import plugins
from harness.app.resolve import resolve_device
from harness.catalog.paths import cache_dir
from harness.domain.base import Frozen
from harness.domain.record import RunRecord
from harness.errors import RefusedError
from harness.feasibility.workload_cost import OperationPrediction, Rates, predict_operation, predict_workload
from harness.measure.child import Limits
from harness.measure.workload_runner import WorkloadJob, measure_workload
from harness.ports import Workload

_PACKAGE = "harness.workloads"
_BANDWIDTH_BYTES = 256 << 20


class Listed(Frozen, frozen=True, kw_only=True):
    """One workload as a list shows it."""

    name: str
    title: str
    extra: str
    needs_model: bool
    sizes: dict[str, dict[str, int]]


class OperationResult(Frozen, frozen=True, kw_only=True):
    """One operation, measured beside predicted. ``error_ratio`` is predicted / measured median - 1."""

    operation: str
    sample_count: int
    doubted_count: int
    p50_s: float
    p95_s: float
    predicted: OperationPrediction | None
    error_ratio: float | None


class WorkloadResult(Frozen, frozen=True, kw_only=True):
    """A run and what was predicted, here and on other devices."""

    record: RunRecord
    operations: tuple[OperationResult, ...]
    elsewhere: dict[str, tuple[OperationPrediction, ...]]


def list_workloads() -> list[Listed]:
    """Every workload there is."""
    found = []
    for name in plugins.names(_PACKAGE):
        workload = load(name)
        found.append(
            Listed(
                name=workload.name,
                title=workload.title,
                extra=workload.extra,
                needs_model=workload.needs_model,
                sizes={key: dict(size) for key, size in workload.sizes.items()},
            )
        )
    return found


def load(name: str) -> Workload:
    """One workload.

    Raises:
        UnknownNameError: There is none of that name.
    """
    workload: Workload = plugins.load(_PACKAGE, name, "WORKLOAD")
    return workload


def size_of(workload: Workload, text: str) -> dict[str, int]:
    """A size from its name, or from ``name=number`` parts that change the default one.

    Raises:
        RefusedError: Neither.
    """
    if text in workload.sizes:
        return dict(workload.sizes[text])
    size = dict(workload.sizes["default"])
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in size or not value.isdigit() or int(value) < 1:
            known = ", ".join(workload.sizes)
            raise RefusedError(f"size is one of {known}, or parts such as {next(iter(size))}=1000; not {part!r}")
        size[key] = int(value)
    return size


def run(
    name: str,
    *,
    size: str = "default",
    devices: Sequence[str] = (),
    repetitions: int = 30,
    thread_count: int = 1,
    seed: int = 1,
    data: Path | None = None,
    model: Path | None = None,
    evaluate: bool = False,
    limits: Limits = Limits(),  # noqa: B008  an immutable tuple
) -> WorkloadResult:
    """Predict, then measure, then compare.

    Raises:
        UnknownNameError: No such workload or device.
        RefusedError: No such size, or a model or data are needed and none was given.
    """
    workload = load(name)
    chosen = size_of(workload, size)
    if workload.needs_model and model is None:
        raise RefusedError(f"{name} runs a language model: name one with --model FILE")
    profiles = {d: resolve_device(d) for d in devices}
    costs = workload.costs(chosen)
    rates = measured_rates(thread_count)
    predictions = [predict_operation(c, rates) for c in costs]
    job = WorkloadJob(
        name=name,
        size=chosen,
        repetitions=repetitions,
        seed=seed,
        thread_count=thread_count,
        cache=str(cache_dir()),
        data=str(data or os.environ.get("EDGE_HARNESS_DATA", "")),
        model=str(model.absolute()) if model else "",
        evaluate=evaluate,
    )
    record = measure_workload(job, predictions=predictions, limits=limits)
    elsewhere = {d: predict_workload(costs, profile) for d, profile in profiles.items()}
    return WorkloadResult(record=record, operations=compare(record, predictions), elsewhere=elsewhere)


def compare(record: RunRecord, predictions: Sequence[OperationPrediction]) -> tuple[OperationResult, ...]:
    """Percentiles of each operation's time for one call, all samples counted, beside the prediction."""
    by_name = {p.operation: p for p in predictions}
    times: dict[str, list[float]] = {}
    doubted: dict[str, int] = {}
    for sample in record.samples:
        times.setdefault(sample.label, []).append(sample.duration_s / sample.token_count)
        doubted[sample.label] = doubted.get(sample.label, 0) + bool(sample.validity.doubts)
    return tuple(_result(name, values, doubted[name], by_name) for name, values in times.items())


def _result(
    name: str, values: list[float], doubted_count: int, predictions: Mapping[str, OperationPrediction]
) -> OperationResult:
    p50_s, p95_s = (float(v) for v in np.percentile(values, [50, 95]))
    predicted = predictions.get(name)
    return OperationResult(
        operation=name,
        sample_count=len(values),
        doubted_count=doubted_count,
        p50_s=p50_s,
        p95_s=p95_s,
        predicted=predicted,
        error_ratio=predicted.latency_s.mid / p50_s - 1 if predicted else None,
    )


def measured_rates(thread_count: int) -> Rates:
    """Rates of this machine, taken now in about a second: they decide the prediction made before the run."""
    from harness.measure.bandwidth import read_bandwidth
    from harness.measure.gemm import fp32_peak

    one = read_bandwidth(1, _BANDWIDTH_BYTES, pass_count=3).bytes_per_s
    many = one if thread_count == 1 else read_bandwidth(thread_count, _BANDWIDTH_BYTES, pass_count=3).bytes_per_s
    core_count = os.cpu_count() or 1
    peak = fp32_peak(size_dim=1024, pass_count=3).flops_per_s / core_count
    return Rates(
        flops_per_s=peak * thread_count,
        read_bytes_per_s=many,
        serial_flops_per_s=peak,
        serial_read_bytes_per_s=one,
        storage_bytes_per_s=1e9,
    )
