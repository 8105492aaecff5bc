"""Systems as a user asks for them, on this machine: measure, predict the passes that ran, compare."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.app.this_machine import probed
from harness.catalog.gguf import read_weights
from harness.catalog.paths import cache_dir
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.prediction import PartKind
from harness.domain.record import ModelIdentity, RunRecord
from harness.domain.result import PartMemory, Score, SystemResult
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.measure.child import ChildResult
from harness.measure.pipeline import How, Measurement, Pipeline
from harness.measure.runner import identify
from harness.predict.memory import memory_of
from harness.predict.weights import matrix_types
from harness.workloads.child import SystemJob, asked_cases
from harness.workloads.child import run as child_run
from harness.workloads.minilm import minilm_file
from harness.workloads.parts import ENCODER_TOKENS, OPTIONS, scenario_of
from harness.workloads.passes import StepTime, law_of, rows_of, unknown
from harness.workloads.system import System, load

CHILD = f"{child_run.__module__}:{child_run.__name__}"
INTERPRETER_BYTES = 28 << 20
"""Anonymous memory of the interpreter with NumPy and the engine, before anything is opened."""
_MOST_ANSWERS = 2000
"""Answers that a record keeps; the figures are of all."""


class Plan(NamedTuple):
    """A system that is to be run, with the weights of the parts that llama.cpp runs."""

    system: System
    job: SystemJob
    weights: dict[str, Weights]

    def held_bytes(self, device: DeviceProfile | None = None) -> dict[str, int | None]:
        """Anonymous memory of each part, predicted, and of the system's own (``""``); None where there is no law."""
        held: dict[str, int | None] = dict.fromkeys(self.job.parts)
        for part in self.weights:
            tokens = self.system.context_tokens if part == "language" else ENCODER_TOKENS
            held[part] = self.bytes_of(part, scenario_of(tokens, self.job.thread_count), device)
        held[""] = self.system.held_bytes(self.job.size, self.weights)
        return held

    def bytes_of(self, part: str, scenario: Scenario, device: DeviceProfile | None) -> int:
        """Anonymous memory of one part that is opened so, predicted; llama.cpp makes no cache for an encoder."""
        held = 0
        for one in memory_of(self.weights[part], scenario, device).parts:
            is_cache = one.kind is PartKind.KV_CACHE and part == "encoder"
            if one.kind is not PartKind.RUNTIME and not is_cache:
                held += one.anonymous_bytes
        return held

    def model(self) -> ModelIdentity | None:
        """The language model; None without one."""
        weights = self.weights.get("language")
        return identify(Path(self.job.parts["language"]), weights) if weights else None


def total(held: dict[str, int | None]) -> int | None:
    """The sum; None where one is not known."""
    if None in held.values():
        return None
    return sum(filter(None, held.values()))


def plan_of(job: SystemJob, *, is_beside: bool = False) -> Plan:
    """A system with the parts that its cases need, of those that the job names.

    ``is_beside`` a model that is its language model, that part is left out.

    Raises:
        UnknownNameError: No such system.
        RefusedError: A part that it needs was not named, or one that it does not need was.
    """
    system = load(job.name)
    paths = dict(job.parts)
    needed = {part for case in asked_cases(system, job) for part in case.needs}
    if is_beside:
        needed.discard("language")
    if "encoder" in needed - paths.keys():
        paths["encoder"] = str(minilm_file(cache_dir() / "encoders"))
    for part in sorted(needed - paths.keys()):
        raise RefusedError(f"{job.name} needs {part}: name one with {OPTIONS[part]}")
    for part in sorted(paths.keys() - needed.union(system.options)):
        raise RefusedError(f"{job.name}: no case that is run needs {part}: leave out {OPTIONS[part]}")
    parts = system.part_files(paths, cache_dir())
    weights = {part: read_weights(Path(path)) for part, path in parts.items() if Path(path).is_file()}
    return Plan(system, job.replace(parts=parts), weights)


def run(job: SystemJob, how: How = How()) -> RunRecord:
    """Measure a system here and compare it with what is predicted of it; the record goes into the history.

    Raises:
        UnknownNameError: No such system.
        RefusedError: A part that it needs was not named.
        WrongAnswerError: An answer is wrong whatever the model.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    plan = plan_of(job)
    scenario = Scenario(thread_count=job.thread_count)
    types = {kind for weights in plan.weights.values() for kind in matrix_types(weights)}
    with Pipeline(how) as pipeline:
        device = probed(types, scenario, heard=how.listener)
        how.listener.begin(job.name)
        return pipeline.measure(
            Measurement(
                workload=job.name,
                entry=CHILD,
                job=plan.job,
                scenario=scenario,
                read=lambda ended: result_of(plan, ended, device),
                runtime="llamacpp" if plan.weights else "",
                model=plan.model(),
                wanted_count=3,
                environment=dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(job.thread_count)),
            )
        )


def result_of(plan: Plan, ended: ChildResult, device: DeviceProfile | None) -> SystemResult:
    """What a child told of a system; its answers are scored here, since statistics are no part of what it holds."""
    law = law_of(plan.weights, device, Scenario(thread_count=plan.job.thread_count)) if device else unknown
    answers = ended.told("answer")
    scores: Sequence[Score] = ()
    if answers:
        cases = asked_cases(plan.system, plan.job)[: len(answers)]
        scores = plan.system.score(cases, [each["answer"] for each in answers])
    held = plan.held_bytes(device)
    memory = [part.replace(predicted_bytes=held[part.part]) for part in ended.told("part", PartMemory)]
    return SystemResult(
        size=plan.job.size,
        prepare_s=dict(ended.events).get("prepared_s"),
        parts={part: Path(path).name for part, path in plan.job.parts.items()},
        scores=tuple(scores),
        passes=tuple(rows_of(ended.told("step", StepTime), law)),
        memory=tuple(memory),
        predicted_anonymous_bytes=total(held | {"interpreter": INTERPRETER_BYTES}),
        answers=tuple(answers[:_MOST_ANSWERS]),
    )
