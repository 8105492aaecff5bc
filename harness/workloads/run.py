"""Systems as a user asks for them: run and predict one, here and elsewhere, and all of them in a table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
from msgspec.structs import replace

from harness.app.resolve import resolve_device
from harness.app.this_machine import probed
from harness.catalog.gguf import read_weights
from harness.catalog.paths import cache_dir
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.record import RunRecord, Sample
from harness.domain.result import System as SystemResult
from harness.domain.scenario import Scenario
from harness.errors import HarnessError
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
from harness.workloads.registry import load, load_all
from harness.workloads.system import Pass

_CONTEXT_TOKENS: Final = 4096


class Given(NamedTuple):
    """The files of the parts, and of the cases; None for none."""

    model: Path | None = None
    encoder: Path | None = None
    nli: Path | None = None
    cases: Path | None = None

    @property
    def parts(self) -> frozenset[str]:
        """Names of the parts that can be opened: the encoder always, since one is fetched."""
        named = {"language": self.model, "nli": self.nli}
        return frozenset({"encoder", *(name for name, path in named.items() if path is not None)})

    def absolute(self) -> dict[str, Any]:
        """The paths that are named, for a job."""
        return {field: str(path.absolute()) for field, path in self._asdict().items() if path is not None}


class StepResult(Frozen, frozen=True, kw_only=True):
    """One kind of step, measured beside predicted; ``error_ratio`` is predicted / measured median - 1."""

    kind: str
    sample_count: int
    doubted_count: int
    p50_s: float
    p95_s: float
    predicted: StepPrediction | None
    error_ratio: float | None


class SystemRun(Frozen, frozen=True, kw_only=True):
    """A run, what was predicted of it, and what is predicted of other devices."""

    record: RunRecord
    steps: tuple[StepResult, ...]
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
    parts = needed(system.parts, given.parts)
    profiles = {device: resolve_device(device) for device in devices}
    costs = system.cost(parts, chosen)
    job = SystemJob(
        name=name,
        size=chosen,
        parts=tuple(sorted(parts)),
        thread_count=thread_count,
        cache=str(cache_dir()),
        wall_s=how.limits.wall_s,
        **given.absolute(),
        **of_job,
    )
    scenario = Scenario(thread_count=thread_count, context_tokens=_CONTEXT_TOKENS)
    weights = read_weights(given.model) if "language" in parts and given.model else None
    heard: dict[str, Machine] = {}
    with Pipeline(how._replace(listener=Listener(how.listener.say))) as pipeline:
        language = None
        if weights is not None:
            device = probed(matrix_types(weights), scenario, say=how.listener.say)
            language = language_law(weights, device, scenario)
        here = machine_here(language)

        def predicted(laws: Mapping[str, Any]) -> Sequence[StepPrediction]:
            heard["here"] = here.with_laws(laws)
            return predict_steps(costs, heard["here"])

        identity = identify(given.model, weights) if weights is not None and given.model else None
        record = pipeline.measure(plan(job, predicted=predicted, model=identity))
    usual = Scenario(context_tokens=_CONTEXT_TOKENS)
    elsewhere = {
        device: predict_steps(costs, machine_there(profile, heard.get("here"), _law_on(weights, profile, usual)))
        for device, profile in profiles.items()
    }
    return SystemRun(record=record, steps=compare(record), elsewhere=elsewhere)


def _law_on(weights: Weights | None, device: DeviceProfile, scenario: Scenario) -> Callable[[Pass], float] | None:
    return language_law(weights, device, scenario) if weights is not None else None


def compare(record: RunRecord) -> tuple[StepResult, ...]:
    """Percentiles of each kind of step, all samples counted, beside the prediction that the record holds."""
    import msgspec

    result = record.result
    assert isinstance(result, SystemResult)
    by_kind = {p.kind: p for p in msgspec.convert(result.predicted, tuple[StepPrediction, ...])}
    samples: dict[str, list[Sample]] = {}
    for sample in record.samples:
        samples.setdefault(sample.label, []).append(sample)
    rows = []
    for kind, taken in samples.items():
        p50_s, p95_s = (float(value) for value in np.percentile([s.duration_s for s in taken], [50, 95]))
        predicted = by_kind.get(kind)
        latency = predicted.latency_s if predicted else None
        rows.append(
            StepResult(
                kind=kind,
                sample_count=len(taken),
                doubted_count=sum(bool(s.validity.doubts) for s in taken),
                p50_s=p50_s,
                p95_s=p95_s,
                predicted=predicted,
                error_ratio=latency.mid / p50_s - 1 if latency else None,
            )
        )
    return tuple(rows)


class Skipped(Frozen, frozen=True, kw_only=True):
    """A system that was not run, and why."""

    name: str
    why: str


class Table(Frozen, frozen=True, kw_only=True):
    """Every system asked for; the median is that of the absolute errors of runs that ended well, None without any."""

    devices: tuple[str, ...]
    runs: tuple[SystemRun, ...]
    skipped: tuple[Skipped, ...]
    median_error_ratio: float | None


def tabulate(
    wanted: Iterable[str],
    given: Given,
    *,
    size: str = "default",
    devices: Sequence[str] = (),
    how: How = How(),
    **more: Any,
) -> Table:
    """Run systems (all, unless named) one after the other, each with those of the parts that it takes.

    One that has no size of that name is run at its default; what cannot run is told and the rest goes on.

    Raises:
        UnknownNameError: No such system or device.
    """
    runs: list[SystemRun] = []
    skipped: list[Skipped] = []
    for system in load_all(wanted, missing=lambda name, why: skipped.append(Skipped(name=name, why=why))):
        how.listener.say(f"running {system.name}")
        chosen = size if size in system.sizes else "default"
        try:
            runs.append(run(system.name, given, size=chosen, devices=devices, how=how, **more))
        except HarnessError as error:
            skipped.append(Skipped(name=system.name, why=str(error)))
    errors = [
        abs(s.error_ratio) for r in runs if r.record.outcome == "ok" for s in r.steps if s.error_ratio is not None
    ]
    return Table(
        devices=tuple(devices),
        runs=tuple(replace(r, record=replace(r.record, samples=())) for r in runs),
        skipped=tuple(skipped),
        median_error_ratio=median(errors) if errors else None,
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
    parts = needed(system.parts, given.parts)
    costs = system.cost(parts, size_of(system, size))
    spoken = [one for cost in costs.values() for one in cost.passes if one.part == "language"]
    record, law = None, None
    if spoken and given.model is not None:
        read = [one.rows * one.tokens for one in spoken if one.rows * one.tokens > 1]
        depth = round(median([one.depth_tokens for one in spoken]))
        scenario = Scenario(prompt_tokens=max(1, round(median(read))) if read else 1, new_tokens=16, depth_tokens=depth)
        cell = Cell(model=str(given.model), quant=quant, scenario=scenario)
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
