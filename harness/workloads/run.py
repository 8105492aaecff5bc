"""Systems as a user asks for them: run one and predict it, here, on devices, and on a target."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from harness.app.resolve import resolve_device
from harness.app.this_machine import probed
from harness.catalog.gguf import read_weights
from harness.catalog.paths import cache_dir
from harness.domain.base import Frozen
from harness.domain.record import RunRecord, Sample
from harness.domain.result import System as SystemResult
from harness.domain.scenario import Scenario
from harness.measure.pipeline import How, Listener, Pipeline
from harness.measure.runner import identify
from harness.predict.weights import matrix_types
from harness.workloads.cases import size_of
from harness.workloads.child import SystemJob, plan
from harness.workloads.parts import needed
from harness.workloads.predict import (
    Machine,
    StepPrediction,
    language_law,
    machine_here,
    machine_there,
    predict_steps,
)
from harness.workloads.registry import load
from harness.workloads.system import Pass, System

_CONTEXT_TOKENS: Final = 4096


class Given(NamedTuple):
    """The files of the parts, and of the cases; None for none."""

    language: Path | None = None
    encoder: Path | None = None
    nli: Path | None = None
    cases: Path | None = None

    def parts_of(self, system: System) -> dict[str, str]:
        """The parts of a system and their paths, empty for what is fetched; RefusedError where one is missing."""
        named = {"language": self.language, "encoder": self.encoder, "nli": self.nli}
        paths = {name: str(path.absolute()) for name, path in named.items() if path is not None}
        return {name: paths.get(name, "") for name in sorted(needed(system.parts, {"encoder", *paths}))}


class Step(Frozen, frozen=True, kw_only=True):
    """One kind of step, measured beside predicted; ``error_ratio`` is predicted / measured median - 1.

    Attributes:
        limit: What was predicted to take most of it.
    """

    kind: str
    sample_count: int
    doubted_count: int
    p50_s: float
    p95_s: float
    predicted_s: float | None = None
    error_ratio: float | None = None
    limit: str = ""


class SystemRun(Frozen, frozen=True, kw_only=True):
    """A run, what was predicted of it, and what is predicted of other devices."""

    record: RunRecord
    steps: tuple[Step, ...]
    elsewhere: dict[str, tuple[StepPrediction, ...]]


def run(
    name: str,
    given: Given,
    *,
    size: str = "default",
    devices: Sequence[str] = (),
    thread_count: int = 1,
    how: How = How(),
    **of_job: Any,
) -> SystemRun:
    """Predict a system here and for other devices, measure it, compare; the record goes into the history.

    ``of_job`` are further fields of the job.

    Raises:
        UnknownNameError: No such system, size or device.
        RefusedError: A part that it needs was not named.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    system = load(name)
    chosen = size_of(system, size)
    parts = given.parts_of(system)
    profiles = {device: resolve_device(device) for device in devices}
    costs = system.cost(parts, chosen)
    job = SystemJob(
        name=name,
        size=chosen,
        parts=parts,
        thread_count=thread_count,
        cache=str(cache_dir()),
        wall_s=how.limits.wall_s,
        cases=str(given.cases.absolute()) if given.cases else "",
        **of_job,
    )
    scenario = Scenario(thread_count=thread_count, context_tokens=_CONTEXT_TOKENS)
    weights = identity = None
    if "language" in parts and given.language is not None:
        weights = read_weights(given.language)
        identity = identify(given.language, weights)
    heard: dict[str, Machine] = {}
    with Pipeline(how._replace(listener=Listener(how.listener.say))) as pipeline:
        language = None
        if weights is not None:
            language = language_law(weights, probed(matrix_types(weights), scenario, say=how.listener.say), scenario)
        here = machine_here(language)

        def predicted(laws: Mapping[str, Any]) -> Sequence[StepPrediction]:
            heard["here"] = here.with_laws(laws)
            return predict_steps(costs, heard["here"])

        record = pipeline.measure(plan(job, predicted=predicted, model=identity))
    usual = Scenario(context_tokens=_CONTEXT_TOKENS)
    elsewhere = {}
    for device, profile in profiles.items():
        law = language_law(weights, profile, usual) if weights is not None else None
        elsewhere[device] = predict_steps(costs, machine_there(profile, heard.get("here"), law))
    return SystemRun(record=record, steps=compare(record), elsewhere=elsewhere)


def compare(record: RunRecord) -> tuple[Step, ...]:
    """Percentiles of each kind of step, all samples counted, beside the prediction that the record holds."""
    result = record.result
    assert isinstance(result, SystemResult)
    predicted = {p.kind: p for p in msgspec.convert(result.predicted, tuple[StepPrediction, ...])}
    samples: dict[str, list[Sample]] = {}
    for sample in record.samples:
        samples.setdefault(sample.label, []).append(sample)
    return tuple(_step(kind, taken, predicted.get(kind)) for kind, taken in samples.items())


def _step(kind: str, taken: Sequence[Sample], predicted: StepPrediction | None) -> Step:
    p50_s, p95_s = (float(value) for value in np.percentile([s.duration_s for s in taken], [50, 95]))
    latency = predicted.latency_s if predicted else None
    return Step(
        kind=kind,
        sample_count=len(taken),
        doubted_count=sum(bool(s.validity.doubts) for s in taken),
        p50_s=p50_s,
        p95_s=p95_s,
        predicted_s=latency.mid if latency else None,
        error_ratio=latency.mid / p50_s - 1 if latency else None,
        limit=predicted.limit if predicted else "",
    )


class OnTarget(Frozen, frozen=True, kw_only=True):
    """A system on a target without Python: its language model's passes run there, the rest is scaled from here.

    Attributes:
        record: Of llama-bench on the target; None where the system has no language model.
        basis: How each part of the numbers came about.
    """

    target: str
    record: RunRecord | None
    steps: tuple[StepPrediction, ...]
    basis: str


def run_on(
    name: str, given: Given, *, size: str, on: str, programs: Path, quant: str = "", how: How = How()
) -> OnTarget:
    """The cost of a system on a target: llama-bench runs the language model's passes there, the glue is scaled.

    Raises:
        UnknownNameError: No such system or size.
        RefusedError: A part that it needs was not named.
        CouldNotRunError: The target cannot be used.
    """
    from harness.app.on_target import probe_on
    from harness.app.on_target import run_on as bench_on
    from harness.app.run import Cell, Options

    system = load(name)
    costs = system.cost(given.parts_of(system), size_of(system, size))
    spoken = [one for cost in costs.values() for one in cost.passes if one.part == "language"]
    record, law = None, None
    if spoken and given.language is not None:
        read = [one.rows * one.tokens for one in spoken if one.rows * one.tokens > 1]
        depth = round(median([one.depth_tokens for one in spoken]))
        scenario = Scenario(prompt_tokens=max(1, round(median(read))) if read else 1, new_tokens=16, depth_tokens=depth)
        cell = Cell(model=str(given.language), quant=quant, scenario=scenario)
        device, records = bench_on(on, [cell], Options(how=how), programs)
        record = records[0]
        law = _measured_law(record)
    else:
        device, _ = probe_on(on, programs, None)
    machine = machine_there(device, None, law)
    graphs = sorted({one.part for cost in costs.values() for one in cost.passes} - {"language"})
    basis = [f"glue measured on the reference core, scaled by single-core speed ({machine.slowness:.2g} times as long)"]
    if law is not None:
        basis.insert(0, "language passes by llama-bench there")
    if graphs:
        basis.append(f"{', '.join(graphs)} passes cannot run there without edge-harness")
    return OnTarget(target=on, record=record, steps=predict_steps(costs, machine), basis="; ".join(basis))


def _measured_law(record: RunRecord) -> Callable[[Pass], float] | None:
    """Seconds of passes from the medians of a run; None where it has no samples of both phases."""
    rates = {}
    for phase in ("prefill", "decode"):
        times = [s.duration_s / s.token_count for s in record.samples if s.phase == phase]
        if not times:
            return None
        rates[phase] = median(times)
    return lambda one: one.count * one.rows * one.tokens * rates["prefill" if one.rows * one.tokens > 1 else "decode"]
