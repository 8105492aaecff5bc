"""Systems as a user asks for them: measure, predict the passes that ran, compare; here, and on a target.

On a target that has the programs of llama.cpp alone llama-bench times each pass. Which passes there are, with how
many tokens, is recorded here: the system answers the user's cases with the same files, and these answers are what
its figures are of. Every kind of pass is then run there, as any model is, with the median and with the 95th
percentile of its tokens; between the two a pass takes what lies on the straight line. What no program there can
run (arrays of the system's own, a graph of ONNX Runtime) leaves its place empty, and glue is Python and is not run
there.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from statistics import median
from typing import NamedTuple

from harness.core.device import Device
from harness.core.errors import EngineError, RefusedError
from harness.core.model import Weights
from harness.core.paths import cache_dir
from harness.core.prediction import PartKind
from harness.core.record import MemoryUse, ModelIdentity, Record, Sample
from harness.core.result import PartMemory, PassFigures, SystemResult
from harness.core.scenario import Scenario
from harness.measure.child import ChildResult, run_helper
from harness.measure.jobs.generate import plan as plan_generation
from harness.measure.pipeline import How, Listener, Measurement, Pipeline
from harness.measure.protocol import GenerateJob
from harness.measure.runner import identify, judged
from harness.measure.targets import target_named
from harness.measure.targets.bench import on_target
from harness.measure.targets.target_facts import facts, probe
from harness.memory.peak import memory_of
from harness.models.gguf import read_weights
from harness.models.minilm import minilm_file
from harness.models.weights import matrix_types
from harness.runtimes.executable import as_made
from harness.verbs.this_machine import probed
from harness.workloads.chain import (
    GLUE,
    WHOLE,
    Law,
    Op,
    RecordedPass,
    StepTime,
    fitted_seconds,
    law_of,
    quantiles,
    rows_of,
    seconds_of,
    unknown,
)
from harness.workloads.system import System, load
from harness.workloads.system_child import SystemJob, asked_cases
from harness.workloads.system_child import run as child_run
from harness.workloads.system_parts import ENCODER_TOKENS, OPTIONS, scenario_of
from harness.workloads.trace import TraceSystem, recorded_rows

CHILD = f"{child_run.__module__}:{child_run.__name__}"
_PROGRAM_BYTES = 2 << 20
"""Anonymous memory of llama-bench before it opens a model."""
INTERPRETER_BYTES = 28 << 20
"""Anonymous memory of the interpreter with NumPy and the engine, before anything is opened."""
RAN = "what ran there"
_GLUE_SHARE = 0.02
"""Of a step's time, from which on its own Python is missed where only its passes run."""
_PROBED = {Op.EMBED: (4, 16, 96, 384), Op.READ: (4, 16, 96, 384), Op.WRITE: (16,)}
"""Tokens of the passes that a target's law is taken from."""
_PROBED_DEEP = (16, 96)
"""Of them the ones that are timed after cached tokens too."""
_WATCHED_S = 2.5
"""So long a program must run for its memory to be seen: counters are read twice a second."""


class Plan(NamedTuple):
    """A system that is to be run, with the weights of the parts that llama.cpp runs."""

    system: System
    job: SystemJob
    weights: dict[str, Weights]

    def held_bytes(self, device: Device | None = None) -> dict[str, int | None]:
        """Anonymous memory of each part, predicted, and of the system's own (``""``); None where there is no law."""
        held: dict[str, int | None] = dict.fromkeys(self.job.parts)
        for part in self.weights:
            tokens = self.system.context_tokens if part == "language" else ENCODER_TOKENS
            held[part] = self.bytes_of(part, scenario_of(tokens, self.job.thread_count), device)
        held[""] = self.system.held_bytes(self.job.size, self.weights)
        return held

    def bytes_of(self, part: str, scenario: Scenario, device: Device | None) -> int:
        """Anonymous memory of one part that is opened so, predicted; llama.cpp makes no cache for an encoder."""
        held = memory_of(self.weights[part], scenario, device).parts
        left_out = {PartKind.RUNTIME}
        if part == "encoder":
            left_out.add(PartKind.KV_CACHE)
        return sum(one.anonymous_bytes for one in held if one.kind not in left_out)

    def model(self) -> ModelIdentity | None:
        """The identity of the language model, or None if the system uses no language model."""
        weights = self.weights.get("language")
        return identify(Path(self.job.parts["language"]), weights) if weights else None


def plan_of(job: SystemJob, beside: Weights | None = None) -> Plan:
    """A system with the parts that its cases need, of those that the job names.

    ``beside`` are the weights of a model that runs anyway and is its language model.

    Raises:
        UnknownNameError: No such system.
        RefusedError: A part that it needs was not named, or one that it does not need was.
    """
    system = load(job.name)
    paths = dict(job.parts)
    needed = {part for case in asked_cases(system, job) for part in case.needs}
    if beside:
        needed.discard("language")
    if "encoder" in needed - paths.keys():
        paths["encoder"] = str(minilm_file(cache_dir() / "encoders"))
    for part in sorted(needed - paths.keys()):
        raise RefusedError(f"{job.name} needs {part}: name one with {OPTIONS[part]}")
    for part in sorted(paths.keys() - needed.union(system.options)):
        raise RefusedError(f"{job.name}: no case that is run needs {part}: leave out {OPTIONS[part]}")
    parts = paths if beside else system.part_files(paths, cache_dir())
    weights = {part: read_weights(Path(path)) for part, path in parts.items() if Path(path).is_file()}
    return Plan(system, job.replace(parts=parts), weights)


def run(job: SystemJob, how: How = How()) -> Record:
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
                workload=plan.system.name,
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


def result_of(plan: Plan, ended: ChildResult, device: Device | None) -> SystemResult:
    """What a child told of a system; its answers are scored here, since statistics are no part of what it holds."""
    law = law_of(plan.weights, device, Scenario(thread_count=plan.job.thread_count)) if device else unknown
    answers = ended.told("answer")
    cases = asked_cases(plan.system, plan.job)[: len(answers)]
    scores = plan.system.score(cases, [each["answer"] for each in answers]) if answers else ()
    held = plan.held_bytes(device)
    all_held = [INTERPRETER_BYTES, *held.values()]
    return SystemResult(
        size=plan.job.size,
        parts={part: Path(path).name for part, path in plan.job.parts.items()},
        scores=tuple(scores),
        passes=(*rows_of(ended.told("step", StepTime), law), *_recorded(plan.system)),
        memory=tuple(
            part.replace(predicted_bytes=held.get(part.part)) for part in ended.told("part", PartMemory)
        ),
        predicted_anonymous_bytes=None if None in all_held else sum(filter(None, all_held)),
        answers=tuple(answers),
    )


def _recorded(system: System) -> list[PassFigures]:
    """What the app of a trace took where it was recorded; empty for other systems."""
    return recorded_rows(system.trace) if isinstance(system, TraceSystem) else []


class Shape(RecordedPass):
    """Passes that are alike in one kind of step; those of a probe are of none."""

    step: str = ""


def run_on(job: SystemJob, on: str, programs: Path, how: How = How()) -> Record:
    """Record the passes of a system here, time them on a target, and compare with passes of other lengths there.

    Raises:
        UnknownNameError: No such system.
        RefusedError: A part that it needs was not named, or no program there runs one of its passes.
        EngineError: It could not be run here, or a program failed there.
        CouldNotRunError: The target cannot be used.
    """
    target = target_named(on)
    known = facts(target)
    # Its instruction set decides what is rewritten in memory; nobody asks for the bandwidth that stands here.
    there = probe(target, on, 1e9)
    plan = plan_of(job)
    how.listener.begin(f"{job.name} on {on}")
    records: dict[Shape, Record] = {}
    held: dict[str, PartMemory] = {}
    with Pipeline(how._replace(keep=False, folder=None, listener=Listener(how.listener.say))) as pipeline:
        here = run_helper(CHILD, plan.job, limits=how.limits)
        if here.outcome != "ok":
            raise EngineError(f"{job.name} did not run here: {here.detail}", here.outcome)
        steps = here.told("step", StepTime)
        if isinstance(plan.system, TraceSystem):  # all calls, by what some of them took here
            steps = [*timed_here(plan.system, steps)]
        shapes = shapes_of(steps, plan.weights)
        if not shapes:
            raise RefusedError(f"{job.name} has no pass that a program on a target can run")
        for shape, here_s in shapes.items():
            part = shape.part
            weights = plan.weights[part]
            scenario = scenario_there(shape, known.cpu.thread_count)
            count = max(job.repetitions, ceil(_WATCHED_S / max(here_s, 1e-3)))
            asked = GenerateJob(path=plan.job.parts[part], scenario=scenario, repetitions=count)
            planned = on_target(plan_generation(asked, weights), target, known, programs)
            record = records[shape] = pipeline.measure(planned)
            if not record.samples:
                raise EngineError(f"{part} on {on}: {record.detail}", record.outcome)
            use = record.memory
            if use is None or not shape.step:  # it ended before its counters were read, or is a probe's
                continue
            if part not in held or use.peak_anonymous_bytes > (held[part].anonymous_bytes or 0):
                held[part] = PartMemory(
                    part=part,
                    file_bytes=use.peak_file_bytes,
                    anonymous_bytes=use.peak_anonymous_bytes,
                    predicted_bytes=program_bytes(plan, shape, scenario, there),
                )
    memory = tuple(held.values())
    seconds = {shape: median(one.duration_s for one in record.samples) for shape, record in records.items()}
    own_bytes = sum(one.anonymous_bytes or 0 for one in memory)
    file_bytes = sum(one.file_bytes for one in memory)
    record = record.replace(
        workload=plan.system.name,
        outcome="ok",
        detail="",
        model=plan.model(),
        samples=tuple(samples_of(steps, records)),
        memory=MemoryUse(
            peak_rss_bytes=own_bytes + file_bytes, peak_anonymous_bytes=own_bytes, peak_file_bytes=file_bytes
        )
        if held
        else None,
        prediction=None,
        result=result_of(plan, here, None).replace(
            passes=(*rows_there(steps, seconds, on), *_recorded(plan.system)),
            memory=memory,
            predicted_anonymous_bytes=sum(one.predicted_bytes or 0 for one in memory) or None,
        ),
        extra={"target": on},
    )
    return Pipeline(how).keep(judged(record, 3))


def scenario_there(shape: Shape, thread_count: int) -> Scenario:
    """How llama-bench runs such a pass there."""
    is_written = shape.op is Op.WRITE
    return as_made(
        Scenario(
            prompt_tokens=0 if is_written else shape.tokens,
            new_tokens=shape.tokens if is_written else 0,
            depth_tokens=shape.depth,
            thread_count=thread_count,
            api="cpu",
        )
    )


def program_bytes(plan: Plan, shape: Shape, scenario: Scenario, device: Device) -> int:
    """Anonymous memory of llama-bench while it runs such a pass, predicted."""
    size = _PROGRAM_BYTES + plan.bytes_of(shape.part, scenario, device)
    if shape.op is Op.EMBED:  # it has room for the odds of a next token after each
        size += 4 * plan.weights[shape.part].shape.vocab_count * shape.tokens
    return size


def shapes_of(steps: Sequence[StepTime], parts: Container[str]) -> dict[Shape, float]:
    """What is run there, with the seconds that it takes here.

    Of each kind of step and each pass that a program there can run the median and the 95th percentile of the
    tokens, three more where much is cached before them, and the lengths that are probed.
    """
    shapes: dict[Shape, float] = {}
    for step in dict.fromkeys(each.step for each in steps):
        passes = [one for each in steps if each.step == step for one in each.passes]
        for part, op in dict.fromkeys((one.part, one.op) for one in passes):
            probed = Op.READ if op is Op.JUDGE else op
            if part not in parts or probed not in _PROBED:
                continue
            alike = [one for one in passes if (one.part, one.op) == (part, op)]
            token_s = median((one.seconds or 0.1) / one.tokens for one in alike)
            deep = max(one.depth for one in alike) // 256 * 256
            for tokens in _PROBED[probed]:
                for depth in {0, deep} if tokens in _PROBED_DEEP else {0}:
                    one = alike[0].replace(op=probed, tokens=tokens, depth=depth)
                    shapes.setdefault(shape_of("", one), token_s * tokens)
            alike.sort(key=lambda one: (one.tokens, one.depth))
            for place in (0.05, 0.25, 0.5, 0.75, 0.95) if deep else (0.5, 0.95):
                one = alike[round(place * (len(alike) - 1))]
                shapes[shape_of(step, one)] = token_s * one.tokens
    return shapes


def shape_of(step: str, one: RecordedPass) -> Shape:
    """What a pass has in common with others like it."""
    return Shape(step=step, part=one.part, op=one.op, tokens=one.tokens, depth=one.depth)


def law_there(seconds: Mapping[Shape, float], step: str = "") -> Law:
    """Seconds of passes from those of a step, or from the probes; a judged prompt is probed as a read one."""

    def law(one: RecordedPass) -> float | None:
        op = Op.READ if one.op is Op.JUDGE and not step else one.op
        alike = (step, one.part, op)
        points = {
            (of.tokens, of.depth): took for of, took in seconds.items() if (of.step, of.part, of.op) == alike
        }
        return fitted_seconds(points, one.tokens, one.depth) if points else None

    return law


def timed_there(steps: Sequence[StepTime], seconds: Mapping[Shape, float]) -> Iterator[StepTime]:
    """The steps with the seconds that their passes take there, without passes that no program there runs."""
    for each in steps:
        law = law_there(seconds, each.step)
        told = [one.replace(seconds=law(one)) for one in each.passes]
        passes = tuple(one for one in told if one.seconds is not None)
        if passes:
            yield each.replace(duration_s=seconds_of(passes), passes=passes)


def timed_here(system: TraceSystem, ran: Sequence[StepTime]) -> Iterator[StepTime]:
    """Every call of a trace with the seconds that it takes here, by the calls that ran."""
    seconds = {shape_of(each.step, one): one.seconds or 0.0 for each in ran for one in each.passes}
    for step, calls in system.passes({}).items():
        law = law_there(seconds, step)
        for call in calls:
            passes = tuple(one.replace(seconds=law(one)) for one in call)
            yield StepTime(step=step, duration_s=seconds_of(passes), passes=passes)


def missing_there(
    steps: Sequence[StepTime], seconds: Mapping[Shape, float]
) -> dict[str, list[tuple[str, str]]]:
    """Part and kind of each pass that no program there runs, by step; a step's own Python as glue."""
    timed = {(shape.step, shape.part, shape.op) for shape in seconds}
    missing = dict[str, list[tuple[str, str]]]()
    for each in steps:
        asked = {(one.part, str(one.op)) for one in each.passes if (each.step, one.part, one.op) not in timed}
        if seconds_of(each.passes) < (1 - _GLUE_SHARE) * each.duration_s:
            asked.add(("", GLUE))
        found = missing.setdefault(each.step, [])
        found += sorted(asked.difference(found))
    return missing


def rows_there(steps: Sequence[StepTime], seconds: Mapping[Shape, float], on: str) -> Iterator[PassFigures]:
    """Measured there beside predicted; what no program there runs has a row without figures.

    A step of which something is missing has a row of what ran, in place of the row of all.
    """
    missing = missing_there(steps, seconds)
    for row in rows_of([*timed_there(steps, seconds)], law_there(seconds), on):
        yield row.replace(op=RAN) if row.op == WHOLE and missing[row.step] else row
    for step, passes in missing.items():
        for part, op in passes:
            yield PassFigures(step=step, part=part, op=op, where=on)


def samples_of(steps: Sequence[StepTime], records: Mapping[Shape, Record]) -> Iterator[Sample]:
    """Of each repetition the median step, and the one at the 95th percentile under a label of its own.

    A step of which something is missing there has a label of its own too: no gate on the step judges a part of it.
    """
    missing = missing_there(steps, dict.fromkeys(records, 0.0))
    for step in dict.fromkeys(shape.step for shape in records if shape.step):
        own = {shape: record.samples for shape, record in records.items() if shape.step == step}
        asked = [each for each in steps if each.step == step]
        for row in zip(*own.values(), strict=False):
            seconds = {shape: one.duration_s for shape, one in zip(own, row, strict=True)}
            taken = quantiles([each.duration_s for each in timed_there(asked, seconds)])
            doubted = max(row, key=lambda one: len(one.validity.doubts))
            name = f"{step}, {RAN}" if missing[step] else step
            for label, duration_s in zip((name, f"{name} @ p95"), taken, strict=True):
                yield doubted.replace(phase="workload", label=label, token_count=1, duration_s=duration_s)
