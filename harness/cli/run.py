"""``edge-harness run``: measure models for real, each in a child process of its own."""

from typing import Annotated

import click
from msgspec import Meta

from harness.cli import _options as options
from harness.cli.command import refuse_typed, verb
from harness.core.option import Option
from harness.core.question import MOST_TOKENS, Api, KvType, Quant, Ubatch, Without
from harness.show.output import Output, say


class _RunOptions(options.ScenarioOptions):
    context_tokens: options.ContextLength = 4096
    prompt_tokens: Annotated[
        int,
        Meta(ge=0, le=MOST_TOKENS),
        Option("--prompt -p", "Tokens in each prompt.", "Request"),
    ] = 512
    new_tokens: Annotated[
        int,
        Meta(ge=0, le=MOST_TOKENS),
        Option("--tokens -n", "Tokens to generate after each prompt.", "Request"),
    ] = 128
    ubatch_tokens: Ubatch = 512
    kv_type: KvType = "F16"
    without: Without = ()
    api: Api = ""
    placement: options.Split = None


@verb
def run(
    setting: _RunOptions,
    measuring: options.OverLab,
    models: Annotated[tuple[str, ...], Option(metavar="MODEL...")] = (),
    quant: Quant = "",
    depth_tokens: options.Depths = (0,),
    thread_counts: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=1024)], ...],
        Option(
            "--threads -t",
            "CPU threads; several numbers with commas: 1,2.",
            "Engine and placement",
            default="the physical cores, leaving out much slower ones",
        ),
    ] = (0,),
    batch_count: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=256)], ...],
        Option("--batch", "Sequences to decode together; several numbers with commas: 1,2,4,8.", "Request"),
    ] = (1,),
    runtime: Annotated[
        str,
        Option(
            "--runtime",
            "Software that executes the model; server:URL for a server that is already running; "
            "several with commas are measured in turns: llamacpp,ik.",
            "Engine and placement",
        ),
    ] = "llamacpp",
    server_model: options.ServerModel = "",
    repetitions: options.Repetitions = 5,
    cold_loads: Annotated[
        int,
        Meta(ge=0, le=100),
        Option(
            "--cold-loads",
            "How many times to time a cold load, with none of the file in the page cache.",
            "Measuring",
        ),
    ] = 1,
) -> Output:
    """Measure models: prefill, decode, time to first token, load time, memory.

    Every combination of MODEL, depth, threads and batch is one run; several runtimes measure each in turns.
    With --runtime server:URL the model that the server has is run, and MODEL, which may be left out, is what
    to predict. With --on lab.toml each device of the lab, or any device of a tag, measures every combination.

    Exit status: 0 all well, 3 some inconclusive, 4 some could not run; the others are run all the same.

    Example: edge-harness run smollm2-135m -q Q8_0 --depth 0,1024
    """
    from harness.cli._lab import over_lab
    from harness.measure.probe.machine_profile import own_profile
    from harness.show.record_tables import difference_view, reasons, run_table
    from harness.verbs.on_target import run_on
    from harness.verbs.run import cells_of, exit_of, run_in_turns
    from harness.verbs.trend import answer_beside

    with_server = "with --runtime server: it is measured as it already runs"
    has_server = "server:" in runtime
    refuse_typed({"memory_bytes", "resume", "cpus", "thread_counts"}, with_server, when=has_server)
    refuse_typed({"server_model"}, "without --runtime server:URL", when=not has_server)
    if measuring.is_lab:
        workers = "with --scheduler: its workers say so themselves"
        refuse_typed({"programs"}, workers, when=measuring.scheduler)
        return over_lab(measuring, setting.scenario(measuring))
    refuse_typed({"wait_s"}, "without a lab: name its file, or several targets, with --on")
    programs = measuring.programs
    refuse_typed({"programs"}, "without --on", when=measuring.target == "local")
    sides = options.sides_of(runtime, server_model, has_models=bool(models))
    jobs = [side.replace(repetitions=repetitions, cold_loads=cold_loads) for side in sides]
    if programs is not None and len(jobs) > 1:
        raise click.UsageError("--on with --programs takes one runtime")
    if thread_counts == (0,):
        thread_counts = (measuring.threads(0),)
    with measuring.started() as how:
        cells = cells_of(
            models or ("",),
            quant,
            setting.scenario(measuring),
            depth_tokens=depth_tokens,
            thread_count=thread_counts,
            batch_count=batch_count,
        )
        if programs is None:
            groups = run_in_turns(
                [[(cell, job) for job in jobs] for cell in cells], how=how, device=own_profile()
            )
        else:
            groups = [[record] for record in run_on(measuring.target, cells, jobs[0], how, programs)[1]]
    records = [record for group in groups for record in group]

    def show() -> None:
        say(run_table(records), *reasons(records))
        for first, *others in groups:
            for other in others:
                say(*difference_view(first, other), answer_beside(first, other))

    return Output(records, show, exit_of(records))
