"""``edge-harness check``: probe, predict, run, compare; what a new user types first."""

from typing import Annotated

from harness.cli import _options as options
from harness.cli._command import verb
from harness.core.errors import Exit
from harness.core.option import Option
from harness.core.question import Api, New, Prompt, Quant, Threads
from harness.show.output import Output, say


class _CheckOptions(options.ScenarioOptions):
    context_tokens: options.ContextLength = 4096
    prompt_tokens: Prompt = 512
    new_tokens: New = 64
    thread_count: Threads = 0
    api: Api = ""
    placement: options.Split = None


@verb
def check(
    setting: _CheckOptions,
    measuring: options.Anywhere,
    models: options.Models = (),
    quant: Quant = "",
    depth_tokens: options.Depths = (0,),
    runtime: options.Runtime = "llamacpp",
    repetitions: options.Repetitions = 5,
    probe_again: Annotated[
        bool, Option("--probe", "Measure this machine again, instead of using what was kept.")
    ] = False,
    fetch_engine: Annotated[
        bool,
        Option("--yes", "Fetch an engine that uses all of this machine, where the installed one does not."),
    ] = False,
    details: Annotated[
        bool, Option("--details", "Show every figure of each run beside its prediction.", "Output")
    ] = False,
) -> Output:
    """Predict each MODEL on this machine, run it, and compare; without a MODEL, a small default one.

    What the machine can do is measured first, in under a minute, and kept.

    Exit status: 0 it ran, 3 inconclusive, 4 could not run.

    Example: edge-harness check smollm2-135m --depth 0,2048
    """
    from harness.measure.protocol import GenerateJob
    from harness.records.compare import compare
    from harness.show.checked import screen
    from harness.show.record_tables import comparison_view, reasons, run_table
    from harness.verbs.check import check as run_check
    from harness.verbs.run import exit_of

    with measuring.started() as how:
        device, records = run_check(
            models,
            quant,
            setting.scenario(measuring),
            GenerateJob(runtime=runtime, repetitions=repetitions),
            how,
            probe_again=probe_again,
            fetch_engine=fetch_engine,
            depths=depth_tokens,
            on=(measuring.target, measuring.programs),
        )
    status = exit_of(records)
    comparisons = [compare(record) for record in records]
    document = {"device": device, "records": records, "comparisons": comparisons}

    def show() -> None:
        say(*screen(records), "")
        if details:
            for record, comparison in zip(records, comparisons, strict=True):
                say(*comparison_view(record, comparison))
            say(run_table(records), *reasons(records))
        more = "edge-harness doctor (what disturbs this machine)"
        if status == Exit.OK:
            more = "edge-harness report RUN -o page.html (the picture)"
        say(f"  More: {more}  --details (every figure)")

    return Output(document, show, status)
