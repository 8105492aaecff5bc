"""Workloads as a user asks for them: list, run, predict here and elsewhere, compare."""

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from harness import plugins
from harness.app.resolve import resolve_device
from harness.app.this_machine import probed
from harness.catalog.gguf import read_gguf
from harness.catalog.paths import cache_dir
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.record import RunRecord
from harness.domain.scenario import Scenario
from harness.domain.workload import Cost
from harness.errors import RefusedError
from harness.measure.bandwidth import read_bandwidth
from harness.measure.child import Limits
from harness.measure.machine import cpu
from harness.measure.pipeline import How, Pipeline, Saying
from harness.measure.runner import identify
from harness.measure.workload_probe import probe_units
from harness.measure.workload_runner import WorkloadJob, plan
from harness.ports import Workload
from harness.predict.language_cost import language_seconds
from harness.predict.memory import RUNTIME_ANONYMOUS_BYTES, RUNTIME_FILE_BYTES, predict_memory
from harness.predict.weights import matrix_types
from harness.predict.workload_cost import (
    LanguageSeconds,
    OperationPrediction,
    Rates,
    predict_operation,
    predict_workload,
    rates_here,
)

_PACKAGE = "harness.workloads"
_CONTEXT_TOKENS: Final = 4096
"""Context that is assumed of a language model whose workload does not tell its own, and on other devices."""
ENGINE_LIBRARY_BYTES: Final = 30 << 20
"""ONNX Runtime once it has run a model of one addition (measured): 10 MiB of it anonymous, the rest code."""


class Wish(NamedTuple):
    """How workloads are run.

    Attributes:
        devices: Names of devices to predict for as well.
        data: Folder of public sets; the environment variable EDGE_HARNESS_DATA when None.
        model: Model file for those that need one.
    """

    devices: Sequence[str] = ()
    repetitions: int = 30
    thread_count: int = 1
    seed: int = 1
    data: Path | None = None
    model: Path | None = None
    evaluate: bool = False
    limits: Limits = Limits()
    how: How = How()
    say: Callable[[str], None] = lambda _line: None


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
    predicted_peak_bytes: int = 0


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


def run(name: str, *, size: str = "default", wish: Wish = Wish()) -> WorkloadResult:  # noqa: B008  immutable
    """Predict, then measure, then compare; the record goes into the history.

    Raises:
        UnknownNameError: No such workload or device.
        RefusedError: No such size, or a model or data are needed and none was given.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    workload = load(name)
    chosen = size_of(workload, size)
    if workload.needs_model and wish.model is None:
        raise RefusedError(f"{name} runs a language model: name one with --model FILE")
    profiles = {d: resolve_device(d) for d in wish.devices}
    costs = workload.costs(chosen)
    weights = read_gguf(wish.model).weights() if workload.needs_model and wish.model else None
    told = getattr(workload, "context_tokens", None)
    context_tokens = int(told(chosen)) if told else _CONTEXT_TOKENS
    scenario = Scenario(thread_count=wish.thread_count, context_tokens=context_tokens)
    job = WorkloadJob(
        name=name,
        size=chosen,
        repetitions=wish.repetitions,
        seed=wish.seed,
        thread_count=wish.thread_count,
        cache=str(cache_dir()),
        data=str(wish.data or os.environ.get("EDGE_HARNESS_DATA", "")),
        model=str(wish.model.absolute()) if wish.model else "",
        evaluate=wish.evaluate,
    )
    with Pipeline(wish.how, Saying(wish.say)) as pipeline:
        language = _language_here(weights, scenario, wish.say) if weights else None
        rates = measured_rates(wish.thread_count, costs)
        predictions = [predict_operation(c, rates, language) for c in costs]
        identity = identify(wish.model, weights) if weights and wish.model else None
        planned = plan(job, predictions=predictions, units=rates.units, limits=wish.limits, model=identity)
        record = pipeline.measure(planned)
    elsewhere = {d: predict_workload(costs, p, _language(weights, p)) for d, p in profiles.items()}
    return WorkloadResult(
        record=record,
        operations=compare(record, predictions),
        elsewhere=elsewhere,
        predicted_peak_bytes=peak_bytes(costs, weights, scenario, prepared_bytes=_prepared_bytes(workload, chosen)),
    )


def peak_bytes(costs: Sequence[Cost], weights: Weights | None, scenario: Scenario, *, prepared_bytes: int = 0) -> int:
    """Footprint of a process that does all of these.

    Interpreter and libraries, a model, and the larger of the largest operation and what is prepared for all of them.
    """
    own = max([prepared_bytes, *(c.resident_bytes + c.file_bytes for c in costs)])
    own += ENGINE_LIBRARY_BYTES if any(c.kernels for c in costs) else 0
    if weights is None:
        return RUNTIME_ANONYMOUS_BYTES + RUNTIME_FILE_BYTES + own
    return own + round(predict_memory(weights, scenario, api="cpu").peak_bytes.mid)


def _prepared_bytes(workload: Workload, size: Mapping[str, int]) -> int:
    told = getattr(workload, "prepared_bytes", None)
    return int(told(size)) if told else 0


def _language_here(weights: Weights, scenario: Scenario, say: Callable[[str], None]) -> LanguageSeconds:
    return language_seconds(weights, probed(matrix_types(weights), scenario, say=say), scenario)


def _language(weights: Weights | None, device: DeviceProfile) -> LanguageSeconds | None:
    """On another device the model runs on its usual engine with all its cores."""
    return None if weights is None else language_seconds(weights, device, Scenario(context_tokens=_CONTEXT_TOKENS))


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


def measured_rates(thread_count: int, costs: Sequence[Cost]) -> Rates:
    """Rates of this machine, taken now in about four seconds: they decide the prediction made before the run."""
    asked = any(c.kernels or c.session_calls_count for c in costs)
    units = probe_units(engine=asked and find_spec("onnxruntime") is not None and find_spec("onnx") is not None)
    if thread_count == 1:
        bandwidth = units.read_rates[-1][1]
    else:
        bandwidth = read_bandwidth(thread_count, 256 << 20, pass_count=3).bytes_per_s
    return rates_here(units, thread_count=thread_count, core_count=cpu().logical_cpu_count, read_bytes_per_s=bandwidth)
