"""``edge-harness check``: probe, predict, run, compare; what a new user types first."""

from typing import Annotated

from harness.cli import _options as options
from harness.cli.command import refuse_typed, verb
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
    server: Annotated[
        str,
        Option(
            "--server",
            "In place of a model: try what the server at this URL promises, in some 20 s.",
            "Engine and placement",
            metavar="URL",
        ),
    ] = "",
    server_model: options.ServerModel = "",
    details: Annotated[
        bool, Option("--details", "Show every figure of each run beside its prediction.", "Output")
    ] = False,
) -> Output:
    """Predict each MODEL on this machine, run it, and compare; without a MODEL, a small default one.

    What the machine can do is measured first, in under a minute, and kept. With --server a server is tried
    instead: whether it computes each answer anew, reads its prompts, counts its tokens as they are, drafts
    none, sends each when it is there, and says which prompts it kept.

    Exit status: 0 it ran, 3 inconclusive, 4 could not run; with --server 0 nothing broken, 1 a promise is
    broken, 4 could not run.

    Example: edge-harness check smollm2-135m --depth 0,2048
    """
    from harness.measure.protocol import GenerateJob
    from harness.records.compare import compare
    from harness.show.checked import screen
    from harness.show.record_tables import comparison_view, reasons, run_table
    from harness.verbs.check import check as run_check
    from harness.verbs.run import exit_of

    refuse_typed({"server_model"}, "without --server URL", when=not server)
    if server:
        of_a_model = {
            "models",
            "quant",
            "depth_tokens",
            "runtime",
            "probe_again",
            "fetch_engine",
            "details",
            "repetitions",
        }
        of_a_model |= {"context_tokens", "prompt_tokens", "new_tokens", "thread_count", "api", "placement"}
        refuse_typed(of_a_model, "with --server: it is tried as it already runs")
        return _server(server, server_model)
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


def _server(url: str, model: str) -> Output:
    """What came of a server's promises."""
    from harness.runtimes.server import RUNTIME
    from harness.runtimes.server.compliance import check_server
    from harness.runtimes.server.stream import Patience
    from harness.show.record_tables import promises_view

    attached = RUNTIME.attach(url, model=model, patience=Patience(silence_s=options.SILENCE_S))
    checks = check_server(attached, within_s=options.CHECK_S)
    broken = any(check.verdict == "broken" for check in checks)
    document = {"server": attached.described, "checks": checks}
    return Output(document, lambda: say(*promises_view(checks)), Exit.BROKEN if broken else Exit.OK)
