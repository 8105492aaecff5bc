"""Workloads as a user asks for them: list, run, predict here and elsewhere, compare."""

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness import plugins
from harness.app.resolve import resolve_device
from harness.app.this_machine import probed
from harness.catalog.gguf import read_weights
from harness.catalog.paths import cache_dir
from harness.domain.base import Frozen
from harness.domain.model import Weights
from harness.domain.record import RunRecord, Sample
from harness.domain.scenario import Scenario
from harness.domain.workload import Cost
from harness.errors import RefusedError
from harness.measure.bandwidth import read_bandwidth
from harness.measure.machine import cpu
from harness.measure.pipeline import How, Listener, Pipeline
from harness.measure.runner import identify
from harness.measure.workload_probe import probe_units
from harness.measure.workload_runner import WorkloadJob, plan
from harness.ports import Workload
from harness.predict.language_cost import language_seconds
from harness.predict.memory import RUNTIME_ANONYMOUS_BYTES, RUNTIME_FILE_BYTES, predict_memory
from harness.predict.weights import matrix_types
from harness.predict.workload_cost import OperationPrediction, predict_operation, predict_workload, rates_here

_PACKAGE = "harness.workloads"
_CONTEXT_TOKENS: Final = 4096
"""Context that is assumed of a language model whose workload does not tell its own, and on other devices."""
ENGINE_LIBRARY_BYTES: Final = 30 << 20
"""ONNX Runtime once it has run a model of one addition (measured): 10 MiB of it anonymous, the rest code."""


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


def load(name: str) -> Workload:
    """One workload; UnknownNameError where there is none of that name."""
    workload: Workload = plugins.load(_PACKAGE, name, "WORKLOAD")
    return workload


def size_of(workload: Workload, text: str) -> dict[str, int]:
    """A size from its name, or ``name=number`` parts that change the default one; RefusedError for neither."""
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
    model: Path | None = None,
    data: Path | None = None,
    thread_count: int = 1,
    how: How = How(),
    **of_job: Any,
) -> WorkloadResult:
    """Predict, here and for other devices, then measure, then compare; the record goes into the history.

    ``data`` is a folder of public sets, the environment variable EDGE_HARNESS_DATA where None; ``model`` the file of a
    language model for workloads that need one; ``of_job`` other fields of the job.

    Raises:
        UnknownNameError: No such workload or device.
        RefusedError: No such size, or a model or data are needed and none was given.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    workload = load(name)
    chosen = size_of(workload, size)
    if of_job.get("cases") is not None and not (of_job.get("evaluate") and getattr(workload, "samples_cases", False)):
        raise RefusedError(f"--cases needs --evaluate, and a workload that samples its cases; {name} was asked for")
    if workload.needs_model and model is None:
        raise RefusedError(f"{name} runs a language model: name one with --model FILE")
    profiles = {d: resolve_device(d) for d in devices}
    costs = workload.costs(chosen)
    weights = read_weights(model) if workload.needs_model and model else None
    scenario = Scenario(
        thread_count=thread_count, context_tokens=_told(workload, "context_tokens", chosen, _CONTEXT_TOKENS)
    )
    job = WorkloadJob(
        name=name,
        size=chosen,
        thread_count=thread_count,
        cache=str(cache_dir()),
        data=str(data or os.environ.get("EDGE_HARNESS_DATA", "")),
        model=str(model.absolute()) if model else "",
        wall_s=how.limits.wall_s,
        **of_job,
    )
    say = how.listener.say
    with Pipeline(how._replace(listener=Listener(say))) as pipeline:
        language = None
        if weights:
            language = language_seconds(weights, probed(matrix_types(weights), scenario, say=say), scenario)
        # Rates of this machine, taken now in about four seconds: they decide the prediction made before the run.
        asked = any(c.kernels or c.session_calls_count for c in costs)
        units = probe_units(engine=asked and find_spec("onnxruntime") is not None and find_spec("onnx") is not None)
        if thread_count == 1:
            bandwidth = units.read_rates[-1][1]
        else:
            bandwidth = read_bandwidth(thread_count, 256 << 20, pass_count=3).bytes_per_s
        cores = cpu().logical_cpu_count
        rates = rates_here(units, thread_count=thread_count, core_count=cores, read_bytes_per_s=bandwidth)
        predictions = [predict_operation(c, rates, language) for c in costs]
        identity = identify(model, weights or read_weights(model)) if model else None
        record = pipeline.measure(plan(job, predictions=predictions, units=rates.units, model=identity))
    # On another device the model runs on its usual engine with all its cores.
    usual = Scenario(context_tokens=_CONTEXT_TOKENS)
    elsewhere = {
        d: predict_workload(costs, p, language_seconds(weights, p, usual) if weights else None)
        for d, p in profiles.items()
    }
    return WorkloadResult(
        record=record,
        operations=compare(record, predictions),
        elsewhere=elsewhere,
        predicted_peak_bytes=peak_bytes(
            costs, weights, scenario, prepared_bytes=_told(workload, "prepared_bytes", chosen)
        ),
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


def _told(workload: Workload, name: str, size: Mapping[str, int], otherwise: int = 0) -> int:
    """A number that a workload may tell of a size."""
    tell = getattr(workload, name, None)
    return int(tell(size)) if tell else otherwise


def compare(record: RunRecord, predictions: Sequence[OperationPrediction]) -> tuple[OperationResult, ...]:
    """Percentiles of each operation's time for one call, all samples counted, beside the prediction."""
    by_name = {p.operation: p for p in predictions}
    samples: dict[str, list[Sample]] = {}
    for sample in record.samples:
        samples.setdefault(sample.label, []).append(sample)
    found = []
    for name, taken in samples.items():
        p50_s, p95_s = (float(v) for v in np.percentile([s.duration_s / s.token_count for s in taken], [50, 95]))
        predicted = by_name.get(name)
        found.append(
            OperationResult(
                operation=name,
                sample_count=len(taken),
                doubted_count=sum(bool(s.validity.doubts) for s in taken),
                p50_s=p50_s,
                p95_s=p95_s,
                predicted=predicted,
                error_ratio=predicted.latency_s.mid / p50_s - 1 if predicted else None,
            )
        )
    return tuple(found)
