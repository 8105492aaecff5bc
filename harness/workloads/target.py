"""A system on a target that has the programs of llama.cpp alone: each pass is timed there, by llama-bench.

The token counts are those of the user's own cases: every pass is run with the median and with the 95th
percentile of what a step asks for. What no program there can run (arrays of the system's own, a graph of ONNX
Runtime) leaves its place empty, and so does the step as a whole in the target's figures; glue is Python and
is not run there.
"""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from harness.app.on_target import probe_on
from harness.domain.base import Frozen
from harness.domain.record import Sample
from harness.domain.result import PartMemory, PassFigures, SystemResult
from harness.domain.scenario import Scenario
from harness.measure.child import ChildResult, run_child
from harness.measure.jobs.generate import plan as plan_generation
from harness.measure.pipeline import How, Measurement, Pipeline
from harness.measure.protocol import GenerateJob
from harness.measure.runner import identify
from harness.ports import Emit
from harness.runtimes.executable import as_made
from harness.targets import target_named
from harness.targets.bench import There, on_target, run_bench
from harness.targets.facts import facts
from harness.workloads.child import Declared, SystemJob, asked_cases, declare
from harness.workloads.parts import open_parts
from harness.workloads.passes import Law, Op, Pass, total
from harness.workloads.run import WHOLE, Given, Plan, SystemRun, plan_of
from harness.workloads.system import load

_QUANTILES: Final = (0.5, 0.95)
_HELD: Final = ("peak_rss_bytes", "anonymous_bytes", "file_bytes")
_PROBED_TOKENS: Final = (16, 96)
_WATCHED_S: Final = 2.0
"""So long a program must run for its memory to be seen: counters are read twice a second."""
_RUN_THERE: Final = frozenset({Op.EMBED, Op.READ, Op.WRITE, Op.JUDGE})


class Shape(Frozen):
    """Passes of one part in a step, at one of the quantiles, and the run of llama-bench that times them."""

    step: str
    part: str
    op: Op
    share: float
    tokens: int
    depth: int
    there: There


class ChainThere(Frozen):
    """What the child runs on the target."""

    shapes: tuple[Shape, ...]


class Timed(NamedTuple):
    """Passes of a step at one quantile: what is asked of a part."""

    step: str
    one: Pass
    share: float


def run_on(
    name: str,
    given: Given,
    *,
    size: str,
    on: str,
    programs: Path,
    repetitions: int = 5,
    how: How = How(),
    **more: Any,
) -> SystemRun:
    """Measure the passes of a system on a target, and predict them by its profile.

    Raises:
        UnknownNameError: No such system or size.
        RefusedError: A part that it needs was not named.
        CouldNotRunError: The target cannot be used.
    """
    target = target_named(on)
    known = facts(target)
    plan = plan_of(name, given, size, known.cpu.thread_count)
    cases = ""
    if given.cases:
        cases = str(given.cases.absolute())
    job = SystemJob(name=name, size=plan.size, parts=plan.parts, cases=cases, repetitions=repetitions, **more)
    device, _ = probe_on(on, programs, None)
    with Pipeline(how) as pipeline:
        counted = run_child(f"{__name__}:count", job)
        declared = counted.told("declared", Declared)
        shapes = []
        held: dict[str, int] = {}
        machine = None

        def planned(timed: Timed) -> Shape:
            nonlocal machine
            path = Path(plan.parts[timed.one.part])
            scenario = _scenario(timed.one, plan.thread_count)
            predicted_bytes = plan.bytes_of(timed.one.part, as_made(scenario), device)
            held[timed.one.part] = max(held.get(timed.one.part, 0), predicted_bytes)
            asked = GenerateJob(path=str(path), scenario=scenario, repetitions=repetitions)
            there = on_target(plan_generation(asked, plan.weights[timed.one.part]), target, known, programs)
            assert isinstance(there.job, There)
            machine = there.machine
            return _shape(timed, there.job)

        probes = tuple(planned(timed) for timed in probes_of(plan))
        probed = run_child(f"{__name__}:measure_there", ChainThere(shapes=probes))
        law = law_there(probed.told("shape"), plan.law(device))
        held.clear()
        shapes = [planned(timed) for timed in shapes_of(declared, plan)]

        def read(ended: ChildResult) -> SystemResult:
            rows = tuple(_figures(declared, ended, law, on))
            told = ended.told("part", PartMemory)
            parts = tuple(part.replace(predicted_bytes=held[part.part]) for part in told)
            paths = {part: Path(path).name for part, path in plan.parts.items()}
            return SystemResult(size=plan.size, parts=paths, passes=rows, memory=parts,
                                predicted_anonymous_bytes=sum(held.values()))  # fmt: skip

        language = plan.parts.get("language")
        measurement = Measurement(
            workload=name,
            entry=f"{__name__}:measure_there",
            job=ChainThere(shapes=tuple(shapes)),
            scenario=Scenario(),
            read=read,
            runtime="executable",
            model=identify(Path(language), plan.weights["language"]) if language else None,
            wanted_count=3,
            notes={"target": on},
            machine=machine,
        )
        how.listener.begin(f"{name} on {on}")
        record = pipeline.measure(measurement)
    return SystemRun(name=name, record=record)


def count(job: SystemJob, emit: Emit) -> None:
    """Child's entry, here: the passes of the cases, with real token counts."""
    system = load(job.name)
    parts = open_parts(job.parts, context_tokens=system.context_tokens)
    for declared in declare(system, asked_cases(system, job), job, parts):
        emit("declared", declared)


def shapes_of(declared: Sequence[Declared], plan: Plan) -> list[Timed]:
    """Of each kind of step and each pass that a program there can run: the median and the 95th percentile."""
    found = []
    for step in dict.fromkeys(each.step for each in declared):
        cases = [each.passes for each in declared if each.step == step]
        kinds = dict.fromkeys((one.part, one.op) for case in cases for one in case)
        for part, op in kinds:
            if op not in _RUN_THERE or part not in plan.weights:
                continue
            sums = [sum(one.tokens for one in case if (one.part, one.op) == (part, op)) for case in cases]
            depths = [one.depth for case in cases for one in case if (one.part, one.op) == (part, op)]
            for share in _QUANTILES:
                tokens = round(float(np.quantile(sums, share)))
                if tokens:
                    one = Pass(part=part, op=op, tokens=tokens, depth=round(float(np.median(depths))))
                    found.append(Timed(step, one, share))
    return found


def probes_of(plan: Plan) -> list[Timed]:
    """Passes of two lengths of each part, and some written tokens: what a target's law is taken from."""
    probes = []
    for part in plan.weights:
        is_encoder = part == "encoder"
        if is_encoder:
            kind = Op.EMBED
        else:
            kind = Op.READ
        probes += [Timed("", Pass(part=part, op=kind, tokens=tokens), 0.5) for tokens in _PROBED_TOKENS]
        if not is_encoder:
            probes.append(Timed("", Pass(part=part, op=Op.WRITE, tokens=_PROBED_TOKENS[0]), 0.5))
    return probes


def law_there(told: Sequence[Any], otherwise: Law) -> Law:
    """Seconds of passes from those of two lengths that were timed there.

    By the device's profile where none was.
    """
    read: dict[str, dict[int, float]] = {}
    written: dict[str, float] = {}
    for row in told:
        if row["op"] == Op.WRITE:
            written[row["part"]] = row["p50_s"] / row["tokens"]
        else:
            read.setdefault(row["part"], {})[row["tokens"]] = row["p50_s"]

    def seconds(one: Pass) -> float | None:
        if one.op is Op.WRITE and one.part in written:
            return written[one.part] * one.tokens
        times = read.get(one.part, {})
        if len(times) < len(_PROBED_TOKENS):
            return otherwise(one)
        short, long = _PROBED_TOKENS
        slope = max(0.0, (times[long] - times[short]) / (long - short))
        return times[short] + slope * (one.tokens - short)

    return seconds


def _scenario(one: Pass, thread_count: int) -> Scenario:
    prompt, new = (0, one.tokens) if one.op is Op.WRITE else (one.tokens, 0)
    tokens = one.depth + one.tokens
    return Scenario(
        context_tokens=tokens,
        prompt_tokens=prompt,
        new_tokens=new,
        depth_tokens=one.depth,
        thread_count=thread_count,
        api="cpu",
    )


def _shape(timed: Timed, there: There) -> Shape:
    one = timed.one
    if one.op is Op.EMBED:
        words = (*there.words, "-embd", "1")
    else:
        words = there.words
    return Shape(step=timed.step, part=one.part, op=one.op, share=timed.share, tokens=one.tokens, depth=one.depth,
                 there=there.replace(words=words))  # fmt: skip


def measure_there(job: ChainThere, emit: Emit) -> None:
    """Child's entry: every shape by llama-bench there.

    A step is the sum of its passes, its memory that of its parts.

    Raises:
        EngineError: A program failed there, or the connection broke.
    """
    memory: dict[str, dict[str, int]] = {}
    taken: dict[tuple[str, float], list[list[Sample]]] = {}
    for shape in job.shapes:
        told = _ran(shape.there)
        samples = [data for name, data in told if name == "sample"]
        taken.setdefault((shape.step, shape.share), []).append(samples)
        seconds = [sample.duration_s for sample in samples]
        emit("shape", {"step": shape.step, "part": shape.part, "op": shape.op, "share": shape.share,
                       "tokens": shape.tokens, "p50_s": float(np.median(seconds))})  # fmt: skip
        emit("engine", next(data for name, data in told if name == "engine"))
        if not _end(told)["peak_rss_bytes"]:
            told = _ran(_longer(shape.there, sum(seconds)))
        end = _end(told)
        held = memory.setdefault(shape.part, {})
        for key in _HELD:
            held[key] = max(held.get(key, 0), end[key])
    for (step, share), passes in taken.items():
        if share == _QUANTILES[0]:
            label = step
        else:
            label = f"{step} @ p{round(100 * share)}"
        for row in zip(*passes, strict=False):
            doubts = tuple(dict.fromkeys(doubt for sample in row for doubt in sample.validity.doubts))
            duration_s = sum(sample.duration_s for sample in row)
            validity = row[0].validity.replace(doubts=doubts)
            emit("sample", row[0].replace(phase="workload", label=label, token_count=1, duration_s=duration_s,
                                          validity=validity, energy_joules=None))  # fmt: skip
    for part, held in memory.items():
        emit(
            "part",
            PartMemory(
                part=part, file_bytes=held["file_bytes"], anonymous_bytes=held["anonymous_bytes"] or None
            ),
        )
    sums = {
        key: sum(held[key] for held in memory.values())
        for key in ("peak_rss_bytes", "anonymous_bytes", "file_bytes")
    }
    for mark in ("loaded", "end"):
        emit("memory", {"mark": mark, "elsewhere": False, **sums})


def _ran(there: There) -> list[tuple[str, Any]]:
    told: list[tuple[str, Any]] = []
    run_bench(there, lambda name, data: told.append((name, data)))
    return told


def _end(told: Sequence[tuple[str, Any]]) -> Any:
    return next(data for name, data in reversed(told) if name == "memory" and data["mark"] == "end")


def _longer(there: There, taken_s: float) -> There:
    """The same with so many repetitions that its memory is seen."""
    words = list(there.words)
    at = words.index("-r") + 1
    words[at] = str(int(words[at]) * max(2, ceil(_WATCHED_S / max(taken_s, 1e-3))))
    return there.replace(words=tuple(words))


def _figures(declared: Sequence[Declared], ended: ChildResult, law: Law, on: str) -> Sequence[PassFigures]:
    """Measured there beside predicted; what no program there runs has no measured figure."""
    shapes = ended.told("shape")
    rows = []
    for step in dict.fromkeys(each.step for each in declared):
        cases = [each.passes for each in declared if each.step == step]
        parts: list[PassFigures] = []
        for part, op in dict.fromkeys((one.part, one.op) for case in cases for one in case):
            own = {
                row["share"]: row
                for row in shapes
                if (row["step"], row["part"], row["op"]) == (step, part, op)
            }
            expected = [
                total(law, [one for one in case if (one.part, one.op) == (part, op)]) for case in cases
            ]
            known = [each for each in expected if each is not None]
            row = PassFigures(step=step, part=part, op=op, where=on)
            if known:
                low, high = np.quantile(known, _QUANTILES).tolist()
                row = row.replace(predicted_p50_s=low, predicted_p95_s=high)
            if own:
                first = own[_QUANTILES[0]]
                last = own.get(_QUANTILES[1], own[_QUANTILES[0]])
                row = row.replace(tokens=first["tokens"], p50_s=first["p50_s"], p95_s=last["p50_s"])
            parts.append(row)
        rows.append(_whole(step, [row for row in parts if row.p50_s is not None], on))
        rows += parts
    return rows


def _whole(step: str, parts: Sequence[PassFigures], on: str) -> PassFigures:
    """All passes of a step that run there."""
    row = PassFigures(step=step, part="", op=WHOLE, where=on)
    sums = {}
    for name in ("p50_s", "p95_s", "predicted_p50_s", "predicted_p95_s"):
        values = [getattr(part, name) for part in parts]
        if values and None not in values:
            sums[name] = sum(values)
    return row.replace(**sums)
