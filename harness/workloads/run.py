"""Systems as a user asks for them, on this machine: measure, predict the passes that ran, compare."""

from pathlib import Path
from typing import Any, Final, NamedTuple

from harness.app.this_machine import probed
from harness.catalog.gguf import read_weights
from harness.catalog.paths import cache_dir
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.prediction import PartKind
from harness.domain.record import ModelIdentity, RunRecord
from harness.domain.result import PartMemory, SystemResult
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.measure.child import ChildResult
from harness.measure.machine import fingerprint
from harness.measure.pipeline import How, Measurement, Pipeline, engine_of, key_of
from harness.measure.runner import identify
from harness.predict.memory import memory_of
from harness.predict.weights import matrix_types
from harness.workloads.child import SystemJob, asked_cases
from harness.workloads.child import run as child_run
from harness.workloads.minilm import minilm_file
from harness.workloads.parts import ENCODER_TOKENS, OPTIONS, scenario_of
from harness.workloads.passes import StepTime, law_of, rows_of
from harness.workloads.system import System, load

CHILD: Final = f"{child_run.__module__}:{child_run.__name__}"
_THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
INTERPRETER_BYTES: Final = 28 << 20
"""Anonymous memory of the interpreter with NumPy and the engine, before anything is opened."""
_MOST_ANSWERS: Final = 2000
"""Answers that a record keeps; the figures are of all."""
_NOT_OF_PART: Final = {"language": {PartKind.RUNTIME}, "encoder": {PartKind.RUNTIME, PartKind.KV_CACHE}}
"""What is counted with the process, and what llama.cpp does not make for an encoder."""


class Plan(NamedTuple):
    """A system that is to be run, with the weights of the parts that llama.cpp runs."""

    system: System
    job: SystemJob
    weights: dict[str, Weights]

    def part_bytes(self, device: DeviceProfile | None) -> dict[str, int | None]:
        """Anonymous memory of each part, predicted, without interpreter and engine.

        None where it has no law.
        """
        predicted: dict[str, int | None] = dict.fromkeys(self.job.parts)
        for name in self.weights:
            tokens = ENCODER_TOKENS
            if name == "language":
                tokens = self.system.context_tokens
            predicted[name] = self.bytes_of(name, scenario_of(tokens, self.job.thread_count), device)
        return predicted

    def bytes_of(self, part: str, scenario: Scenario, device: DeviceProfile | None) -> int:
        """Anonymous memory of one part that is opened so, predicted."""
        memory = memory_of(self.weights[part], scenario, device)
        return sum(p.anonymous_bytes for p in memory.parts if p.kind not in _NOT_OF_PART[part])

    def held_bytes(self, device: DeviceProfile | None) -> int | None:
        """Anonymous memory of the whole process without the interpreter; None where a part has no law."""
        held = self.system.held_bytes(self.job.size, self.weights)
        for part_bytes in self.part_bytes(device).values():
            if part_bytes is None:
                return None
            held += part_bytes
        return held

    def model(self) -> ModelIdentity | None:
        """The language model; None without one."""
        if "language" not in self.weights:
            return None
        return identify(Path(self.job.parts["language"]), self.weights["language"])


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
    return Plan(system, job.replace(parts=parts, cache=str(cache_dir())), weights)


def run(job: SystemJob, how: How = How()) -> RunRecord:
    """Measure a system here and compare it with what is predicted of it; the record goes into the history.

    Raises:
        UnknownNameError: No such system.
        RefusedError: A part that it needs was not named.
        WrongAnswerError: An answer is wrong whatever the model.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    plan = plan_of(job.replace(wall_s=how.limits.wall_s))
    scenario = Scenario(thread_count=plan.job.thread_count)
    types = {kind for weights in plan.weights.values() for kind in matrix_types(weights)}
    model = plan.model()
    with Pipeline(how) as pipeline:
        device = probed(types, scenario, heard=how.listener)
        measurement = Measurement(
            workload=job.name,
            entry=CHILD,
            job=plan.job,
            scenario=scenario,
            read=lambda ended: result_of(plan, ended, device),
            runtime="llamacpp" if plan.weights else "",
            model=model,
            wanted_count=3,
            environment=dict.fromkeys(_THREAD_VARIABLES, str(plan.job.thread_count)),
            key=key_of(
                "system",
                engine_of("llamacpp"),
                plan.job,
                model.sha256 if model else "",
                fingerprint().fingerprint,
            ),
        )
        how.listener.begin(job.name)
        return pipeline.measure(measurement)


def result_of(plan: Plan, ended: ChildResult, device: DeviceProfile | None) -> SystemResult:
    """What a child told of a system; its answers are scored here, since statistics are no part of what it holds."""
    law = None
    if device is not None:
        law = law_of(plan.weights, device, Scenario(thread_count=plan.job.thread_count))
    answers = ended.told("answer")
    scores: Any = ()
    if answers:
        cases = asked_cases(plan.system, plan.job)[: len(answers)]
        scores = plan.system.score(cases, [each["answer"] for each in answers])
    predicted_bytes = plan.part_bytes(device)
    held_bytes = plan.held_bytes(device)
    if held_bytes is not None:
        held_bytes += INTERPRETER_BYTES
    held = [
        part.replace(predicted_bytes=predicted_bytes[part.part]) for part in ended.told("part", PartMemory)
    ]
    return SystemResult(
        size=plan.job.size,
        seed=plan.job.seed,
        prepare_s=dict(ended.events).get("prepared_s"),
        parts={part: Path(path).name for part, path in plan.job.parts.items()},
        scores=tuple(scores),
        passes=tuple(rows_of(ended.told("step", StepTime), law)),
        memory=tuple(held),
        predicted_anonymous_bytes=held_bytes,
        answers=tuple(answers[:_MOST_ANSWERS]),
    )
