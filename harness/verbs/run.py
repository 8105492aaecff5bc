"""Measure models in scenarios, one cell after the other; what fails is recorded and the rest goes on."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from harness.answer.case import Case
from harness.answer.resolve import Model, resolve_model, with_kept_costs
from harness.answer.ways import predict
from harness.core import plugins
from harness.core.device import Device
from harness.core.errors import Exit, HarnessError, RefusedError
from harness.core.paths import as_path
from harness.core.prediction import Prediction
from harness.core.record import ModelIdentity, Outcome, Record
from harness.core.result import Generation, Result
from harness.core.scenario import Scenario
from harness.core.units import counted
from harness.hardware.threads import default_thread_count
from harness.measure import interrupts
from harness.measure.child import ChildResult
from harness.measure.jobs.generate import plan as plan_generation
from harness.measure.jobs.score import TextJob
from harness.measure.jobs.served import ServedJob
from harness.measure.jobs.served import plan as plan_served
from harness.measure.pipeline import How, Measurement, Pipeline, engine_of, key_of, state_of
from harness.measure.protocol import GenerateJob
from harness.measure.runner import check_scenario
from harness.models.guess import sizes_in
from harness.models.names import match
from harness.models.quant_mix import quant_named
from harness.onnx.files import onnx_model
from harness.runtimes.executable import as_made
from harness.runtimes.server.dialects import differs
from harness.verbs.locate import Located, obtain
from harness.verbs.this_machine import drifted


class RunCell(NamedTuple):
    """One model in one scenario."""

    model: str
    quant: str
    scenario: Scenario


def cells_of(
    models: Iterable[str],
    quant: str,
    base: Scenario,
    *,
    depth_tokens: Sequence[int] = (),
    thread_count: Sequence[int] = (),
    batch_count: Sequence[int] = (),
) -> list[RunCell]:
    """Every model at every depth, with each number of threads, in batches of each size: the scenario's without any.

    Raises:
        UnknownNameError: No such model or mixture.
        RefusedError: A scenario does not fit its context.
    """
    mixture = ""
    if quant:
        mixture = quant_named(quant)
    scenarios = []
    depths = depth_tokens or (base.depth_tokens,)
    counts = thread_count or (base.thread_count,)
    batches = batch_count or (base.batch_count,)
    for depth, threads, batch in itertools.product(depths, counts, batches):
        scenario = base.replace(depth_tokens=depth, thread_count=threads, batch_count=batch)
        check_scenario(scenario)
        scenarios.append(scenario)
    cells = []
    for model in models:
        if model and as_path(model) is None:
            match(model)
        cells += [RunCell(model, mixture, scenario) for scenario in scenarios]
    return cells


def run_cells(
    cells: Sequence[RunCell], job: GenerateJob, *, how: How = How(), device: Device | None = None
) -> list[Record]:
    """Run every cell as ``job`` says; a record for each, also for those that could not run.

    Stops early only when interrupted. Predictions are made from ``device``, the profile of this machine; none
    without it. Raises as `run_in_turns`.
    """
    return [record for (record,) in run_in_turns([[(cell, job)] for cell in cells], how=how, device=device)]


def run_in_turns(
    groups: Sequence[Sequence[tuple[RunCell, GenerateJob]]],
    *,
    how: How = How(),
    device: Device | None = None,
) -> list[list[Record]]:
    """Run the members of each group (a cell, and what is asked of it) in turns: two rounds, the second backwards.

    A single member takes one round. What drifts while they run (heat, other programs) then falls on all
    alike, so that members may differ in anything: runtime, threads, batch. Each turn is a child and a kept
    record. Where the runtimes differ each predicts the shipped text before the turns: a faster one with a
    worse answer has no speed. Of each member there is one record: its first one, with the samples of all its
    turns. A turn that did not end well gives its outcome to the whole. A number of threads of 0 becomes the
    usual one, so that a record says how many there were.

    Raises:
        UnknownNameError: No runtime has a member's name.
        CouldNotRunError: Another measured run held the machine for too long.
    """
    for _, job in (member for group in groups for member in group):
        plugins.known_runtime(job.runtime)
    done: list[list[Record]] = []
    coming = sum(2 * len(group) if len(group) > 1 else 1 for group in groups)
    with Pipeline(how) as pipeline:
        for members in groups:
            group = [(_with_threads(cell), job) for cell, job in members]
            order = list(range(len(group)))
            if len(group) > 1:
                order += reversed(order)
            turns: list[list[Record]] = [[] for _ in group]
            answers = [answers_of(*member, pipeline) if len(group) > 1 else () for member in group]
            for index in order:
                pipeline.heard.plan(coming)
                coming -= 1
                turn = len(turns[index]) + 1 if len(group) > 1 else 0
                turns[index].append(run_cell(*group[index], device, pipeline, turn, answers[index]))
                if turns[index][-1].outcome == "interrupted":
                    return [*done, [_together(records) for records in turns if records]]
            done.append([_together(records) for records in turns])
    return done


def _with_threads(cell: RunCell) -> RunCell:
    count = cell.scenario.thread_count or default_thread_count()
    return cell._replace(scenario=cell.scenario.replace(thread_count=count))


def _together(records: Sequence[Record]) -> Record:
    worst = next((r for r in records if r.outcome != "ok"), records[0])
    samples = tuple(sample for record in records for sample in record.samples)
    return records[0].replace(samples=samples, outcome=worst.outcome, detail=worst.detail)


def exit_of(records: Sequence[Record]) -> int:
    """Exit status of a set of runs: the worst thing that happened."""
    outcomes = {record.outcome for record in records}
    if "interrupted" in outcomes:
        return interrupts.exit_status()
    if outcomes - {"ok", "inconclusive"}:
        return Exit.COULD_NOT_RUN
    if "inconclusive" in outcomes:
        return Exit.INCONCLUSIVE
    return Exit.OK


def _cell_key(cell: RunCell, job: GenerateJob, pipeline: Pipeline, turn: int) -> str:
    """Key under which a cell's result is found again: everything that decides it, and its ``turn`` beside others."""
    path = as_path(cell.model)
    state = ""
    if path is not None:
        state = state_of(onnx_model(path) or path)
    asked = f"{job.runtime}|{engine_of(job.runtime)}|{job.repetitions}|{job.cold_loads}|{turn}"
    return key_of(cell.model, state, cell.quant, cell.scenario, asked, pipeline.machine.fingerprint)


def answers_of(
    cell: RunCell, job: GenerateJob, pipeline: Pipeline, chunk_count: int = 4
) -> tuple[float, ...]:
    """Negative log-probability of each scored token of the shipped text; empty where the runtime gives none.

    The text is read in chunks of 512 tokens. The list is also empty where the first turn was done before, since
    its record has them.
    """
    if isinstance(job, ServedJob) or cell.scenario.context_tokens < 512:
        return ()
    if pipeline.reused(_cell_key(cell, job, pipeline, 1)):
        return ()
    with contextlib.suppress(HarnessError):  # what keeps it from its answers is told by its run
        path = str(obtain(cell.model, cell.quant, progress=pipeline.heard.fetched).path)
        alone = cell.scenario.replace(batch_count=1)  # the text is one sequence: it takes the cache
        asked = TextJob(runtime=job.runtime, scenario=alone, path=path, chunk_count=chunk_count)
        return answers_to(asked, pipeline)
    return ()


def answers_to(asked: TextJob, pipeline: Pipeline) -> tuple[float, ...]:
    """Negative log-probability of each scored token, read from a child process.

    The list is empty where the child gives none, and the reason is printed.
    """
    ended = pipeline.trial(f"{TextJob.__module__}:run_text", asked)
    if losses := ended.told("nll"):
        return tuple(losses[0])
    pipeline.heard.say(f"{asked.runtime}: perplexity not given: {ended.detail}")
    return ()


def run_cell(
    cell: RunCell,
    job: GenerateJob,
    device: Device | None,
    pipeline: Pipeline,
    turn: int = 0,
    answers: tuple[float, ...] = (),
) -> Record:
    """Run one member of a group in an open pipeline: its ``turn`` among others, and what its runtime answers."""
    key = _cell_key(cell, job, pipeline, turn)
    heard = pipeline.heard
    job = job.replace(scenario=cell.scenario)
    if (done := pipeline.reused(key, cell.model)) is not None:
        return done
    title = f"{cell.model}, {counted(cell.scenario.thread_count, 'thread')}, {job.runtime}"
    if cell.scenario.depth_tokens:
        title += f" @ d{cell.scenario.depth_tokens}"
    # Samples of a quiet run, warm-ups included.
    each_count = (job.repetitions + 1) * (
        2 * bool(cell.scenario.prompt_tokens) + bool(cell.scenario.new_tokens)
    )
    heard.begin(title, 2 * job.cold_loads + 1 + each_count)
    try:
        if isinstance(job, ServedJob):
            return pipeline.measure(answering(_served(cell, job, device, pipeline), answers))
        located = obtain(cell.model, cell.quant, progress=heard.fetched)
        _check_format(located, job.runtime)
        if job.runtime == "executable":
            job = job.replace(scenario=as_made(cell.scenario))
        planned = plan_generation(
            job.replace(path=str(located.path)),
            located.weights,
            name=located.name,
            quant=located.quant,
            prediction=prediction_of(
                located.resolved(),
                _at_this_moment(device, job.scenario, job.runtime),
                job.scenario,
                heard.say,
                job.runtime,
            ),
            key=key,
        )
    except KeyboardInterrupt:
        outcome: Outcome = "interrupted"
        detail = f"{interrupts.reason()} before the run began"
    except HarnessError as error:
        outcome = "refused"
        detail = str(error)
    else:
        return pipeline.measure(answering(planned, answers))
    return pipeline.not_run(
        "generate", job.scenario, outcome, detail, {"model": cell.model, "quant": cell.quant}
    )


def answering(planned: Measurement, answers: tuple[float, ...]) -> Measurement:
    """The same plan, its result with what the runtime answers."""

    def read(ended: ChildResult) -> Result | None:
        result = planned.read(ended)
        if isinstance(result, Generation):
            return result.replace(token_nll=answers)
        return result

    return planned._replace(read=read)


def _served(cell: RunCell, job: ServedJob, device: Device | None, pipeline: Pipeline) -> Measurement:
    """A run on a server; predicted from MODEL where one was named, since a server shows no tensors."""
    model = None
    if cell.model:
        model = resolve_model(cell.model, cell.quant or None)

    def predicted(scenario: Scenario, here: bool) -> Prediction | None:
        # A server tells of no other machine.
        return prediction_of(
            model, _at_this_moment(device, scenario) if here else None, scenario, pipeline.heard.say
        )

    planned = plan_served(job, predicted)
    quant = ""
    if planned.model:
        quant = planned.model.quant
    if model and quant and quant.upper() != model.quant.upper():
        raise RefusedError(
            f"the server runs {quant}, and {model.name} is {model.quant}: name the file it runs"
        )
    if model and planned.model and (why := _contradicted(planned.model, model)):
        raise RefusedError(f"the server's model {planned.model.name!r} is not {model.name}: {why}")
    if model and planned.model:  # the user says that it is this model: it is compared under that name
        notes = {"server_model": planned.model.name}
        planned = planned._replace(model=planned.model.replace(name=model.name), notes=notes)
    return planned


def _contradicted(served: ModelIdentity, model: Model) -> str:
    """What a server says of its model that cannot be said of ``model``: counts, bytes, or the size in its name."""
    count = model.weights.weight_count
    sure = model.guess is None
    why = differs(
        served,
        parameter_count=count,
        size_bytes=model.weights.tensor_bytes if sure and model.weights.size_doubt == (1.0, 1.0) else 0,
        architecture=model.weights.shape.architecture if sure else "",
    )
    named = sizes_in(served.name)[0] * 1e9
    return why or (f"its name says {named:,.0f} parameters" if named and not 0.5 < named / count < 2 else "")


def _check_format(located: Located, runtime: str) -> None:
    """Refuse a model whose format the runtime does not read, naming a runtime that does."""
    takes = plugins.formats_of(runtime)
    if takes and located.format not in takes:
        others = " or ".join(plugins.runtimes_reading(located.format))
        hint = f": take --runtime {others}" if others else ""
        runs = " and ".join(takes).upper()
        raise RefusedError(
            f"{located.name} is {located.format.upper()}, and the runtime {runtime} runs {runs}{hint}"
        )


def _at_this_moment(device: Device | None, scenario: Scenario, runtime: str = "") -> Device | None:
    """The device that a run starts on now, with what was timed of it."""
    if device is None:
        return None
    return drifted(with_kept_costs(device, scenario, runtime))


def prediction_of(
    model: Model | None,
    device: Device | None,
    scenario: Scenario,
    say: Callable[[str], None] = lambda _line: None,
    runtime: str = "",
) -> Prediction | None:
    """What is predicted of a run by that runtime.

    None without a profile, or where nothing can be: why is said.
    """
    if device is None or model is None:
        return None
    if runtime == "ik":  # where it rewrites weights it does so in memory of its own, and maps no file
        scenario = scenario.replace(program="ik-llama-cpp-python", mmap=scenario.mmap and not scenario.repack)
    if runtime == "xllamacpp":
        scenario = scenario.replace(program="xllamacpp")
    try:
        return predict(Case.of(model, with_kept_costs(device, scenario, runtime), scenario))
    except HarnessError as error:
        say(f"no prediction: {error}")
        return None
