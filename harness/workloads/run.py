"""Systems as a user asks for them, on this machine: predict from their declared passes, measure, compare."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from harness.app.resolve import resolve_device
from harness.app.this_machine import probed_at_all
from harness.catalog.gguf import read_weights
from harness.catalog.paths import cache_dir
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.prediction import PartKind
from harness.domain.record import RunRecord
from harness.domain.result import PartMemory, PassFigures, Score, SystemResult
from harness.domain.scenario import Scenario
from harness.measure.child import ChildResult
from harness.measure.machine import fingerprint
from harness.measure.pipeline import How, Measurement, Pipeline, engine_of, key_of
from harness.measure.runner import identify
from harness.predict.memory import memory_of
from harness.predict.weights import matrix_types
from harness.workloads.child import Declared, StepTime, SystemJob
from harness.workloads.child import run as child_run
from harness.workloads.minilm import minilm_file
from harness.workloads.parts import ENCODER_TOKENS, needed, scenario_of
from harness.workloads.passes import Law, law_of, total
from harness.workloads.system import System, load, size_of

_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
WHOLE, GLUE = "all", "glue"
"""Rows of a step that are no pass: all of it, and what is none of its passes."""
INTERPRETER_BYTES: Final = 28 << 20
"""Anonymous memory of the interpreter with NumPy and the engine, before anything is opened."""
_NOT_OF_PART: Final = {"language": {PartKind.RUNTIME}, "encoder": {PartKind.RUNTIME, PartKind.KV_CACHE}}
"""What is counted with the process, and what llama.cpp does not make for an encoder."""


class Given(NamedTuple):
    """The files of the parts, and of the cases; None for none."""

    language: Path | None = None
    encoder: Path | None = None
    nli: Path | None = None
    cases: Path | None = None

    def parts_of(self, system: System, size: Mapping[str, int], *, is_beside: bool = False) -> dict[str, str]:
        """The parts of a system and their paths; RefusedError where one is missing that this size needs.

        ``is_beside`` a model that is its language model, that part is left out.
        """
        names = [name for name in system.part_names(size) if not (is_beside and name == "language")]
        paths = {name: str(path.absolute()) for name, path in self._asdict().items() if path is not None}
        if "encoder" in names and "encoder" not in paths:
            paths["encoder"] = str(minilm_file(cache_dir() / "encoders"))
        return system.part_files(needed(system, names, paths), cache_dir())


class Plan(NamedTuple):
    """A system that is to be run, with its parts.

    Attributes:
        weights: Of the parts that llama.cpp runs.
    """

    system: System
    size: dict[str, int]
    parts: dict[str, str]
    weights: dict[str, Weights]
    thread_count: int = 1

    def law(self, device: DeviceProfile) -> Law:
        """Seconds of its passes on a device."""
        return law_of(self.weights, device, Scenario(thread_count=self.thread_count))

    def part_bytes(self, device: DeviceProfile | None) -> dict[str, int | None]:
        """Anonymous memory of each part, predicted, without interpreter and engine.

        None where it has no law.
        """
        predicted: dict[str, int | None] = dict.fromkeys(self.parts)
        for name in self.weights:
            if name == "language":
                tokens = self.system.context_tokens
            else:
                tokens = ENCODER_TOKENS
            predicted[name] = self.bytes_of(name, scenario_of(tokens, self.thread_count), device)
        return predicted

    def bytes_of(self, part: str, scenario: Scenario, device: DeviceProfile | None) -> int:
        """Anonymous memory of one part that is opened so, predicted."""
        memory = memory_of(self.weights[part], scenario, device)
        return sum(p.anonymous_bytes for p in memory.parts if p.kind not in _NOT_OF_PART[part])

    def held_bytes(self, device: DeviceProfile | None) -> int | None:
        """Anonymous memory of the whole process, predicted; None where a part has no law."""
        parts = self.part_bytes(device).values()
        if None in parts:
            return None
        return sum(each for each in parts if each) + self.system.held_bytes(self.size, self.weights)


def plan_of(name: str, given: Given, size: str, thread_count: int = 1, *, is_beside: bool = False) -> Plan:
    """A system with its size and its parts.

    Raises:
        UnknownNameError: No such system or size.
        RefusedError: A part that it needs was not named.
    """
    system = load(name)
    chosen = size_of(system, size)
    parts = given.parts_of(system, chosen, is_beside=is_beside)
    weights = {part: read_weights(Path(path)) for part, path in parts.items() if Path(path).is_file()}
    return Plan(system, chosen, parts, weights, thread_count)


class SystemRun(Frozen):
    """A system that was run, and what is predicted of it on other devices (``elsewhere``, by their names)."""

    name: str
    record: RunRecord
    elsewhere: dict[str, tuple[PassFigures, ...]] = {}


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
    plan = plan_of(name, given, size, thread_count)
    profiles = {device: resolve_device(device) for device in devices}
    job = SystemJob(
        name=name,
        size=plan.size,
        parts=plan.parts,
        thread_count=thread_count,
        cache=str(cache_dir()),
        wall_s=how.limits.wall_s,
        cases=str(given.cases.absolute()) if given.cases else "",
        **of_job,
    )
    types = {kind for weights in plan.weights.values() for kind in matrix_types(weights)}
    language = None
    if "language" in plan.parts:
        language = Path(plan.parts["language"])
    model = None
    if language:
        model = identify(language, plan.weights["language"])
    told: list[ChildResult] = []
    with Pipeline(how) as pipeline:
        device = probed_at_all(types, Scenario(thread_count=thread_count), heard=how.listener)

        def read(ended: ChildResult) -> SystemResult:
            told.append(ended)
            return result_of(plan, job.seed, ended, device)

        measurement = Measurement(
            workload=name,
            entry=f"{child_run.__module__}:{child_run.__name__}",
            job=job,
            scenario=Scenario(thread_count=thread_count),
            read=read,
            runtime="llamacpp" if plan.weights else "",
            model=model,
            wanted_count=3,
            environment=dict.fromkeys(_THREAD_VARIABLES, str(thread_count)),
            key=key_of(
                "system", engine_of("llamacpp"), job, model.sha256 if model else "", fingerprint().fingerprint
            ),
        )
        how.listener.begin(name)
        record = pipeline.measure(measurement)
    if told:
        declared = told[0].told("declared", Declared)
    else:
        declared = []
    elsewhere = {there: predicted(declared, plan.law(profile)) for there, profile in profiles.items()}
    return SystemRun(name=name, record=record, elsewhere=elsewhere)


def result_of(plan: Plan, seed: int, ended: ChildResult, device: DeviceProfile | None) -> SystemResult:
    """What a child told of a system."""
    events = dict(ended.events)
    declared = ended.told("declared", Declared)
    law = None
    if device is not None:
        law = plan.law(device)
    predicted_bytes = plan.part_bytes(device)
    held = [
        part.replace(predicted_bytes=predicted_bytes[part.part]) for part in ended.told("part", PartMemory)
    ]
    return SystemResult(
        size=plan.size,
        seed=seed,
        prepare_s=events.get("prepared_s"),
        parts={part: Path(path).name for part, path in plan.parts.items()},
        scores=tuple(ended.told("score", Score)),
        passes=tuple(measured(declared, ended.told("step", StepTime), law)),
        memory=tuple(held),
        predicted_anonymous_bytes=_with_interpreter(plan.held_bytes(device)),
        answers=tuple(ended.told("answer")),
    )


def _with_interpreter(held_bytes: int | None) -> int | None:
    if held_bytes is None:
        return None
    return held_bytes + INTERPRETER_BYTES


def measured(
    declared: Sequence[Declared], steps: Sequence[StepTime], law: Law | None
) -> Iterator[PassFigures]:
    """Of each kind of step the whole, its passes by part, and what is none of them, measured beside predicted.

    A step is predicted by its passes and the glue as it was measured here, which no law tells.
    """
    if law:
        rows = predicted(declared, law)
    else:
        rows = ()
    known = {(row.step, row.part, row.op): row for row in rows}
    for step in dict.fromkeys(each.step for each in steps):
        own = [each for each in steps if each.step == step]
        glue = [max(0.0, each.duration_s - sum(each.seconds)) for each in own]
        durations = [each.duration_s for each in own]
        yield figures(step, "", WHOLE, durations, known.get((step, "", WHOLE)), extra_s=quantiles(glue)[0])
        for part, op in dict.fromkeys((one.part, one.op) for each in own for one in each.passes):
            sums = []
            tokens = []
            for each in own:
                taken = [
                    (one.tokens, seconds)
                    for one, seconds in zip(each.passes, each.seconds, strict=True)
                    if (one.part, one.op) == (part, op)
                ]
                tokens.append(sum(count for count, _ in taken))
                sums.append(sum(seconds for _, seconds in taken))
            row = figures(step, part, op, sums, known.get((step, part, op)))
            yield row.replace(tokens=float(np.median(tokens)))
        yield figures(step, "", GLUE, glue, None)


def figures(
    step: str, part: str, op: str, seconds: Sequence[float], known: PassFigures | None, extra_s: float = 0.0
) -> PassFigures:
    """One row of measured seconds, beside what was predicted of it."""
    p50_s, p95_s = quantiles(seconds)
    row = PassFigures(step=step, part=part, op=op, p50_s=p50_s, p95_s=p95_s)
    if known is None or known.predicted_p50_s is None or known.predicted_p95_s is None:
        return row
    low = known.predicted_p50_s + extra_s
    high = known.predicted_p95_s + extra_s
    return row.replace(predicted_p50_s=low, predicted_p95_s=high)


def predicted(declared: Sequence[Declared], law: Law) -> tuple[PassFigures, ...]:
    """Of each kind of step the whole and its passes by part, over all cases.

    No figure where a part has no law.
    """
    rows = []
    for step in dict.fromkeys(each.step for each in declared):
        cases = [each.passes for each in declared if each.step == step]
        rows.append(_expected(step, "", WHOLE, cases, law))
        for part, op in dict.fromkeys((one.part, one.op) for case in cases for one in case):
            own = [tuple(one for one in case if (one.part, one.op) == (part, op)) for case in cases]
            rows.append(_expected(step, part, op, own, law))
    return tuple(rows)


def _expected(step: str, part: str, op: str, cases: Sequence[Sequence[Any]], law: Law) -> PassFigures:
    tokens = float(np.median([sum(one.tokens for one in case) for case in cases]))
    row = PassFigures(step=step, part=part, op=op, tokens=tokens)
    seconds = [each for each in (total(law, case) for case in cases) if each is not None]
    if len(seconds) < len(cases) or not any(cases):
        return row
    p50_s, p95_s = quantiles(seconds)
    return row.replace(predicted_p50_s=p50_s, predicted_p95_s=p95_s)


def quantiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile."""
    p50_s, p95_s = np.percentile(seconds, [50, 95]).tolist()
    return p50_s, p95_s
