"""Systems as a user asks for them: run one and predict it, here, on devices, and on a target."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from harness.app.resolve import resolve_device
from harness.app.this_machine import probed_at_all
from harness.catalog.gguf import read_weights
from harness.catalog.paths import cache_dir
from harness.domain.base import Frozen
from harness.domain.record import RunRecord
from harness.domain.result import SystemResult
from harness.domain.scenario import Scenario
from harness.measure.child import ChildResult
from harness.measure.machine import fingerprint
from harness.measure.pipeline import How, Measurement, Pipeline, engine_of, key_of
from harness.measure.runner import identify
from harness.predict.weights import matrix_types
from harness.records.derive import tests_of
from harness.workloads.child import SystemJob
from harness.workloads.child import run as child_run
from harness.workloads.parts import needed
from harness.workloads.predict import (
    REFERENCE_TASK_S,
    Law,
    PassLaw,
    StepMachine,
    StepPrediction,
    language_law,
    machine_here,
    machine_there,
    predict_steps,
)
from harness.workloads.system import System, load, size_of

_CONTEXT_TOKENS: Final = 4096
_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Given(NamedTuple):
    """The files of the parts, and of the cases; None for none."""

    language: Path | None = None
    encoder: Path | None = None
    nli: Path | None = None
    cases: Path | None = None

    def parts_of(self, system: System) -> dict[str, str]:
        """The parts of a system and their paths, empty for what is fetched; RefusedError where one is missing."""
        paths = {name: str(path.absolute()) for name, path in self._asdict().items() if path is not None}
        return {name: paths.get(name, "") for name in sorted(needed(system.parts, {"encoder", *paths}))}


class Step(Frozen):
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


class SystemRun(Frozen):
    """A system that was run, what was predicted of it, and what is predicted of other devices.

    Attributes:
        record: Of the system; on a target without Python that of llama-bench, or None where no language model is in it.
        elsewhere: Steps by the device or the target.
    """

    name: str
    record: RunRecord | None
    steps: tuple[Step, ...] = ()
    elsewhere: dict[str, tuple[StepPrediction, ...]] = {}


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
    language = given.language if "language" in parts else None
    weights = read_weights(language) if language else None
    model = identify(language, weights) if language and weights else None
    with Pipeline(how) as pipeline:
        spoken: dict[str, PassLaw] = {}
        if weights is not None:
            device = probed_at_all(matrix_types(weights), scenario, heard=how.listener)
            spoken["language"] = language_law(weights, device, scenario)
        here = machine_here(spoken)

        def timed(units: Mapping[str, Any]) -> StepMachine | None:
            if not (core := units.get("core")):
                return None
            graphs: dict[str, PassLaw] = {part: Law(**law).seconds for part, law in units["laws"].items()}
            slowness = core["best_s"] / REFERENCE_TASK_S
            return here._replace(laws=spoken | graphs, slowness=slowness, flops_per_s=core["flops_per_s"])

        def read(ended: ChildResult) -> SystemResult:
            events = dict(ended.events)
            units = events.get("units", {})
            machine = timed(units)
            predicted = predict_steps(costs, machine) if machine else ()
            return SystemResult(
                size=chosen,
                seed=job.seed,
                prepare_s=events.get("prepared_s"),
                quality=events.get("quality", {}),
                predicted=tuple(msgspec.to_builtins(step) for step in predicted),
                units=units,
                parts={part: Path(path).name or "MiniLM" for part, path in parts.items()},
                answers=tuple(ended.told("answer")),
            )

        measurement = Measurement(
            workload=name,
            entry=f"{child_run.__module__}:{child_run.__name__}",
            job=job,
            scenario=Scenario(thread_count=thread_count),
            read=read,
            runtime="llamacpp" if model else "",
            model=model,
            wanted_count=3,
            environment=dict.fromkeys(_THREAD_VARIABLES, str(thread_count)),
            key=key_of("system", engine_of("llamacpp"), job, model.sha256 if model else "", fingerprint().fingerprint),
        )
        how.listener.begin(name)
        record = pipeline.measure(measurement)
    assert isinstance(record.result, SystemResult)
    usual = Scenario(context_tokens=_CONTEXT_TOKENS)
    elsewhere = {}
    for there, profile in profiles.items():
        laws = {"language": language_law(weights, profile, usual)} if weights is not None else {}
        elsewhere[there] = predict_steps(costs, machine_there(profile, timed(record.result.units), laws))
    return SystemRun(name=name, record=record, steps=compare(record), elsewhere=elsewhere)


def compare(record: RunRecord) -> tuple[Step, ...]:
    """Percentiles of each kind of step, all samples counted, beside the prediction that the record holds."""
    result = record.result
    assert isinstance(result, SystemResult)
    predicted = {p.kind: p for p in msgspec.convert(result.predicted, tuple[StepPrediction, ...])}
    steps = []
    for (_, kind), taken in tests_of(record).items():
        p50_s, p95_s = np.percentile([s.duration_s for s in taken], [50, 95]).tolist()
        expected = predicted.get(kind)
        latency = expected.latency_s if expected else None
        step = Step(
            kind=kind,
            sample_count=len(taken),
            doubted_count=sum(bool(s.validity.doubts) for s in taken),
            p50_s=p50_s,
            p95_s=p95_s,
            predicted_s=latency.mid if latency else None,
            error_ratio=latency.mid / p50_s - 1 if latency else None,
            limit=expected.limit if expected else "",
        )
        steps.append(step)
    return tuple(steps)


def run_on(
    name: str, given: Given, *, size: str, on: str, programs: Path, quant: str = "", how: How = How()
) -> SystemRun:
    """The cost of a system on a target: llama-bench runs the language model's passes there, the glue is scaled.

    Raises:
        UnknownNameError: No such system or size.
        RefusedError: A part that it needs was not named.
        CouldNotRunError: The target cannot be used.
    """
    from harness.app.on_target import probe_on
    from harness.app.on_target import run_on as bench_on
    from harness.app.run import RunCell
    from harness.measure.protocol import GenerateJob

    system = load(name)
    costs = system.cost(given.parts_of(system), size_of(system, size))
    spoken = [one for cost in costs.values() for one in cost.passes if one.part == "language"]
    record, laws = None, {}
    basis = "glue as on the reference core, scaled by single-core speed"
    if spoken and given.language is not None:
        read = [one.rows * one.tokens for one in spoken if one.rows * one.tokens > 1]
        depth = round(median(one.depth_tokens for one in spoken))
        scenario = Scenario(prompt_tokens=max(1, round(median(read or [1]))), new_tokens=16, depth_tokens=depth)
        cell = RunCell(model=str(given.language), quant=quant, scenario=scenario)
        device, (record,) = bench_on(on, [cell], GenerateJob(), how, programs)
        laws = _measured_laws(record)
        basis = f"language passes by llama-bench there; {basis}"
    else:
        device, _ = probe_on(on, programs, None)
    machine = machine_there(device, None, laws)._replace(basis=basis)
    return SystemRun(name=name, record=record, elsewhere={on: predict_steps(costs, machine)})


def _measured_laws(record: RunRecord) -> dict[str, PassLaw]:
    """The law of a language model from the medians of a run; none where it has no samples of both phases."""
    rates: dict[str, list[float]] = {"prefill": [], "decode": []}
    for sample in record.samples:
        rates[sample.phase].append(sample.duration_s / sample.token_count)
    if not all(rates.values()):
        return {}
    read_s, write_s = map(median, rates.values())
    return {
        "language": lambda one: one.count * one.rows * one.tokens * (read_s if one.rows * one.tokens > 1 else write_s)
    }
