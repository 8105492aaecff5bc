"""A system on a target that has the programs of llama.cpp alone: each pass is timed there, by llama-bench.

Which passes there are, with how many tokens, is recorded here: the system answers the user's cases with the same
files, and these answers are what its figures are of. Every kind of pass is then run there, as any model is, with
the median and with the 95th percentile of its tokens; between the two a pass takes what lies on the straight line.
What no program there can run (arrays of the system's own, a graph of ONNX Runtime) leaves its place empty, and
glue is Python and is not run there.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import ceil
from pathlib import Path
from statistics import median
from typing import Final

from harness.domain.base import Frozen
from harness.domain.record import MemoryUse, RunRecord, Sample
from harness.domain.result import PartMemory, PassFigures
from harness.domain.scenario import Scenario
from harness.errors import EngineError, RefusedError
from harness.measure.child import run_helper
from harness.measure.jobs.generate import plan as plan_generation
from harness.measure.pipeline import How, Listener, Pipeline
from harness.measure.protocol import GenerateJob
from harness.measure.runner import judged, new_record
from harness.runtimes.executable import as_made
from harness.targets import target_named
from harness.targets.bench import There, on_target
from harness.targets.facts import facts
from harness.workloads.child import SystemJob
from harness.workloads.passes import Law, Op, Pass, StepTime, line, quantiles, rows_of
from harness.workloads.run import CHILD, plan_of, result_of

_PROBED_TOKENS: Final = (4, 16, 96, 384)
_WATCHED_S: Final = 2.5
"""So long a program must run for its memory to be seen: counters are read twice a second."""
_RUN_THERE: Final = frozenset({Op.EMBED, Op.READ, Op.WRITE, Op.JUDGE})
Key = tuple[str, str, Op]
"""Step, empty of a probe; part; what it does."""


class Shape(Frozen):
    """Passes that are alike, ``count`` of them in a step; a written text is one pass here.

    ``quantile`` of the tokens; ``here_s`` that one takes on this machine, where that is known.
    """

    step: str
    part: str
    op: Op
    tokens: int
    depth: int = 0
    count: float = 1.0
    quantile: int = 50
    here_s: float = 1.0


def run_on(job: SystemJob, on: str, programs: Path, how: How = How()) -> RunRecord:
    """Record the passes of a system here, time them on a target, and compare with passes of other lengths there.

    Raises:
        UnknownNameError: No such system.
        RefusedError: A part that it needs was not named.
        EngineError: It could not be run here, or a program failed there.
        CouldNotRunError: The target cannot be used.
    """
    target = target_named(on)
    known = facts(target)
    plan = plan_of(job.replace(wall_s=how.limits.wall_s))
    how.listener.begin(f"{job.name} on {on}")
    with Pipeline(how._replace(keep=False, folder=None, listener=Listener(how.listener.say))) as pipeline:
        here = run_helper(CHILD, plan.job, limits=how.limits)
        if here.outcome != "ok":
            raise EngineError(f"{job.name} did not run here: {here.detail}", here.outcome)
        steps = here.told("step", StepTime)

        def run_there(shape: Shape) -> RunRecord:
            scenario = scenario_there(shape, known.cpu.thread_count)
            count = max(plan.job.repetitions, ceil(_WATCHED_S / shape.here_s))
            asked = GenerateJob(path=plan.job.parts[shape.part], scenario=scenario, repetitions=count)
            planned = on_target(plan_generation(asked, plan.weights[shape.part]), target, known, programs)
            if shape.op is Op.EMBED:
                assert isinstance(planned.job, There)
                planned = planned._replace(job=planned.job.replace(words=(*planned.job.words, "-embd", "1")))
            record = pipeline.measure(planned)
            if not record.samples:
                raise EngineError(f"{shape.part} on {on}: {record.detail}", record.outcome)
            return record

        probed = {probe: run_there(probe) for probe in probes_of(plan.weights)}
        timed = {shape: run_there(shape) for shape in shapes_of(steps, plan.weights)}
    held: dict[str, PartMemory] = {}
    for shape, record in timed.items():
        scenario = as_made(scenario_there(shape, known.cpu.thread_count))
        predicted_bytes = plan.bytes_of(shape.part, scenario, None)
        if shape.op is Op.EMBED:  # llama-bench has room for the odds of a next token after each
            predicted_bytes += 4 * plan.weights[shape.part].shape.vocab_count * shape.tokens
        part = PartMemory(part=shape.part, predicted_bytes=predicted_bytes)
        if record.memory is not None:
            own_bytes = record.memory.peak_anonymous_bytes or None
            part = part.replace(file_bytes=record.memory.peak_file_bytes, anonymous_bytes=own_bytes)
        held[shape.part] = max(part, held.get(shape.part, part), key=lambda one: one.anonymous_bytes or 0)
    memory = tuple(held.values())
    result = result_of(plan, here, None).replace(
        prepare_s=None,
        passes=tuple(rows_there(steps, points_of(timed), points_of(probed), on)),
        memory=memory,
        predicted_anonymous_bytes=sum(part.predicted_bytes or 0 for part in memory),
    )
    own_bytes = sum(part.anonymous_bytes or 0 for part in memory)
    file_bytes = sum(part.file_bytes for part in memory)
    first, *_ = [*timed.values(), *probed.values(), None]
    if first is None:
        raise RefusedError(f"{job.name} has no pass that a program on a target can run")
    record = new_record(
        scenario=first.scenario,
        workload=job.name,
        machine=first.machine,
        outcome="ok",
        model=plan.model(),
        engine=first.engine,
        samples=tuple(samples_of(timed)),
        memory=MemoryUse(
            peak_rss_bytes=own_bytes + file_bytes, peak_anonymous_bytes=own_bytes, peak_file_bytes=file_bytes
        ),
        runtime=first.runtime,
        result=result,
        extra={"target": on, "answers": "given here, by the same files"},
    )
    return Pipeline(how).keep(judged(record, 3))


def scenario_there(shape: Shape, thread_count: int) -> Scenario:
    """What llama-bench is asked for."""
    asked = Scenario(
        context_tokens=shape.depth + shape.tokens,
        depth_tokens=shape.depth,
        thread_count=thread_count,
        api="cpu",
    )
    if shape.op is Op.WRITE:
        return asked.replace(prompt_tokens=0, new_tokens=shape.tokens)
    return asked.replace(prompt_tokens=shape.tokens, new_tokens=0)


def probes_of(parts: Iterable[str]) -> Iterator[Shape]:
    """Passes of some lengths of each part, and some written tokens: what a target's law is taken from."""
    for part in parts:
        op = Op.EMBED
        if part == "language":
            op = Op.READ
            yield Shape(step="", part=part, op=Op.WRITE, tokens=_PROBED_TOKENS[1])
        for tokens in _PROBED_TOKENS:
            here_s = 0.05 if op is Op.EMBED else 1.0
            yield Shape(step="", part=part, op=op, tokens=tokens, here_s=here_s)


def shapes_of(steps: Sequence[StepTime], parts: Iterable[str]) -> Iterator[Shape]:
    """Of each kind of step and each pass that a program there can run: the median and the 95th percentile."""
    for step in dict.fromkeys(each.step for each in steps):
        own = [each.passes for each in steps if each.step == step]
        for part, op in dict.fromkeys((one.part, one.op) for passes in own for one in passes):
            if op not in _RUN_THERE or part not in parts:
                continue
            alike = [[one for one in passes if (one.part, one.op) == (part, op)] for passes in own]
            flat = [one for each in alike for one in each]
            counts = [len(each) for each in alike]
            tokens = [one.tokens for one in flat]
            if op is Op.WRITE:  # one token each
                tokens = [count for count in counts if count]
                counts = [1]
            for quantile, count in zip((50, 95), quantiles(tokens), strict=True):
                yield Shape(
                    step=step,
                    part=part,
                    op=op,
                    tokens=max(1, round(count)),
                    depth=round(median(one.depth for one in flat)),
                    count=median(counts),
                    quantile=quantile,
                    here_s=max(1e-3, median(one.seconds or 0.1 for one in flat)),
                )


Points = dict[Key, dict[int, float]]
"""Seconds by tokens, that were timed there."""


def points_of(timed: dict[Shape, RunRecord]) -> Points:
    """The medians of what was timed."""
    points: Points = {}
    for shape, record in timed.items():
        key = (shape.step, shape.part, shape.op)
        points.setdefault(key, {})[shape.tokens] = median(sample.duration_s for sample in record.samples)
    return points


def law_there(points: Points, step: str = "") -> Law:
    """Seconds of passes from those of a step, or from the probes; a judged prompt is probed as a read one."""

    def seconds(one: Pass) -> float | None:
        op = one.op
        if op is Op.JUDGE and not step:
            op = Op.READ
        known = sorted(points.get((step, one.part, op), {}).items())
        if not known:
            return None
        if op is Op.WRITE:  # in proportion
            known = known[:1]
        return line(known, one.tokens)

    return seconds


def rows_there(steps: Sequence[StepTime], timed: Points, probed: Points, on: str) -> Iterator[PassFigures]:
    """Measured there beside predicted; what no program there runs has no figure."""
    found = []
    others: dict[Key, None] = {}
    for each in steps:
        measured = law_there(timed, each.step)
        passes = [one.replace(seconds=measured(one)) for one in each.passes]
        others |= dict.fromkeys((each.step, one.part, one.op) for one in passes if one.seconds is None)
        known = tuple(one for one in passes if one.seconds is not None)
        if known:
            duration_s = sum(one.seconds or 0.0 for one in known)
            found.append(StepTime(step=each.step, duration_s=duration_s, passes=known))
    yield from rows_of(found, law_there(probed), on)
    for step, part, op in others:
        yield PassFigures(step=step, part=part, op=op, where=on)


def samples_of(timed: dict[Shape, RunRecord]) -> Iterator[Sample]:
    """A sample of a step is the sum of its passes; those of the 95th percentile have a label of their own."""
    steps: dict[str, list[tuple[float, tuple[Sample, ...]]]] = {}
    for shape, record in timed.items():
        label = shape.step
        if shape.quantile > 50:
            label += f" @ p{shape.quantile}"
        steps.setdefault(label, []).append((shape.count, record.samples))
    for label, passes in steps.items():
        for row in zip(*(samples for _, samples in passes), strict=False):
            duration_s = sum(count * one.duration_s for (count, _), one in zip(passes, row, strict=True))
            doubts = tuple(dict.fromkeys(doubt for one in row for doubt in one.validity.doubts))
            sample = row[0].replace(phase="workload", label=label, token_count=1, duration_s=duration_s)
            yield sample.replace(validity=sample.validity.replace(doubts=doubts), energy_joules=None)
