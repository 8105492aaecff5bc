"""Probe a target, measure models there with the prediction made before, and soak one there or here."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from harness.answer.case import Case
from harness.answer.ways import predict
from harness.core.device import Device
from harness.core.errors import RefusedError
from harness.core.paths import home_dir
from harness.core.record import Record
from harness.core.result import Window
from harness.hardware.devices import load_device
from harness.measure.child import OnEvent
from harness.measure.jobs.generate import plan as plan_generation
from harness.measure.jobs.soak import IDLE_S, SoakJob, metered
from harness.measure.jobs.soak import plan as plan_soak
from harness.measure.lock import alone
from harness.measure.pipeline import How, Listener, Measurement, Pipeline
from harness.measure.probe.machine_profile import save_profile
from harness.measure.protocol import GenerateJob
from harness.measure.runner import identify
from harness.measure.targets import target_named
from harness.measure.targets.bench import key_there, on_target, read_bandwidth
from harness.measure.targets.remote import VerbReply, run_there
from harness.measure.targets.shell import ShellTarget
from harness.measure.targets.target_facts import Facts, facts, probe
from harness.measure.wall_meter import WallMeter
from harness.runtimes.executable import as_made
from harness.verbs.locate import obtain
from harness.verbs.run import RunCell


def probe_on(on: str, programs: Path | None, out: Path | None) -> tuple[Device, Path]:
    """Profile of a target, written into the user's own devices unless ``out`` is given.

    Raises:
        CouldNotRunError: It does not answer, or its bandwidth is known from nowhere.
    """
    target = target_named(on)
    read = None
    if programs is not None:
        read = read_bandwidth(target, programs)
    profile = probe(target, out.stem if out else _name(facts(target)), read)
    return profile, save_profile(profile, out)


def hand_over(on: str, words: Sequence[str], files: Mapping[str, Path], how: How) -> VerbReply:
    """Let edge-harness on a target do a verb, and keep the records that it makes.

    Raises:
        RefusedError: No edge-harness is there, and no llama-bench was named.
        CouldNotRunError: It does not answer, or broke off.
    """
    with alone(how.listener.say, on):
        found = run_there(target_named(on), words, files, say=how.listener.say)
    pipeline = Pipeline(how._replace(listener=Listener()))  # the target has said it all
    return found._replace(records=tuple(map(pipeline.keep, found.records)))


def _name(known: Facts) -> str:
    return "on-" + re.sub(r"[^a-z0-9]+", "-", known.title.lower()).strip("-")


def run_on(
    on: str, cells: Sequence[RunCell], job: GenerateJob, how: How, programs: Path
) -> tuple[Device, list[Record]]:
    """Predict, run as ``job`` says and keep each cell on a target.

    It is probed first where no profile of it is kept.

    Raises:
        RefusedError: An option asks for what llama-bench cannot do.
        CouldNotRunError: The target cannot be used.
    """
    if how.limits.memory_bytes is not None or job.runtime != "llamacpp":
        raise RefusedError("llama-bench on a target takes no --memory-limit or --runtime")
    if any(cell.scenario.batch_count > 1 for cell in cells):
        raise RefusedError("llama-bench on a target runs one sequence at a time")
    target = target_named(on)
    known = facts(target)
    kept = home_dir() / "devices" / f"{_name(known)}.toml"
    if kept.is_file():
        device = load_device(str(kept))
    else:
        device = probe_on(on, programs, None)[0]
    records = []
    with Pipeline(how, on) as pipeline:
        for index, cell in enumerate(cells):
            if len(cells) > 1:  # one alone may be a part of the caller's plan
                how.listener.plan(len(cells) - index)
            how.listener.begin(f"{cell.model} on {on}")
            located = obtain(cell.model, cell.quant, progress=how.listener.fetched)
            count = cell.scenario.thread_count or len(how.limits.cpus) or known.cpu.thread_count
            scenario = as_made(cell.scenario.replace(thread_count=count))
            resolved = located.resolved()
            asked = job.replace(path=str(located.path), scenario=scenario)
            prediction = None
            if resolved is not None:
                prediction = predict(Case.of(resolved, device, scenario))
            about: dict[str, Any] = {"name": located.name, "quant": located.quant, "prediction": prediction}
            planned = plan_generation(asked, located.weights, **about)
            records.append(_measure(pipeline, planned, target, known, programs))
    return device, records


def _measure(
    pipeline: Pipeline,
    planned: Measurement,
    target: ShellTarget,
    known: Facts,
    programs: Path,
    on_event: OnEvent | None = None,
    changed: Callable[[Measurement], Measurement] = lambda planned: planned,
) -> Record:
    """Measure there what was not done before: what is taken from the history needs no device that is awake."""
    cpus = pipeline.how.limits.cpus
    assert planned.model is not None
    if done := pipeline.reused(key_there(planned, known, programs, cpus), planned.model.name):
        return done
    there = on_target(planned, target, known, programs, cpus=cpus, progress=pipeline.heard.fetched)
    return pipeline.measure(changed(there), on_event=on_event)


def soak(job: SoakJob, quant: str, on: str, programs: Path | None, how: How) -> Record:
    """Run ``job``, whose ``path`` is what the user named, and keep its record.

    Raises:
        RefusedError: On a target, what llama-bench cannot do.
        CouldNotRunError: The target cannot be used.
    """
    located = obtain(job.path, quant, progress=how.listener.fetched)
    model = identify(located.path, located.weights, name=located.name, quant=located.quant)
    job = job.replace(path=str(located.path.absolute()))

    ended_s: list[float] = []

    def told(name: str, data: Any) -> None:
        if name == "window":
            ended_s.append(time.perf_counter())
            window = msgspec.convert(data, Window)
            how.listener.say(f"{window.since_start_s:6.0f} s  {window.tokens_per_s:.2f} tokens/s")

    place = on if programs is not None else ""
    how.listener.begin(f"soak of {model.name}", within_s=60 * job.minutes + IDLE_S)
    with ExitStack() as stack:
        meter = stack.enter_context(WallMeter(job.meter)) if job.meter else None
        pipeline = stack.enter_context(Pipeline(how._replace(listener=Listener(how.listener.say)), place))
        planned = plan_soak(job, model)

        def changed(run: Measurement) -> Measurement:
            return run if meter is None else metered(run, job, meter, ended_s)

        if programs is None:
            return pipeline.measure(changed(planned), on_event=told)
        if job.duty_ratio < 1 or job.runtime != "llamacpp":
            raise RefusedError(
                "on a target llama-bench decodes without pauses: leave out --duty and --runtime"
            )
        target = target_named(on)
        return _measure(pipeline, planned, target, facts(target), programs, told, changed)
