"""``edge-harness workloads``: systems that run beside a language model, measured like one."""

from pathlib import Path
from typing import Annotated

import click
import msgspec
from msgspec import Meta

from harness.cli import _options as options
from harness.cli.command import Verbs, refuse_typed, typed
from harness.core.errors import CouldNotRunError, EngineError, Exit, InputError
from harness.core.option import Option
from harness.show.output import Output, say, table
from harness.workloads import TRACE_ENDING


@click.group(cls=Verbs)
def workloads() -> None:
    """Run, predict and score systems around a language model; record what an app asks, and replay it."""


@workloads.command("run")
def run(
    measuring: options.Anywhere,
    name: Annotated[str, Option(metavar="[NAME]")] = "",
    cases: Annotated[
        Path | None,
        Option("--cases", "Your own cases, as JSON lines.", path="file", is_here=True),
    ] = None,
    size: Annotated[
        str, Option("--size", "A named size, or changes to the default one, such as entry_count=5000.")
    ] = "default",
    model: Annotated[
        str | None, Option("--model", "Language model: a name, name:quant or file.", metavar="MODEL")
    ] = None,
    encoder: Annotated[
        Path | None,
        Option(
            "--encoder",
            "Sentence encoder: a GGUF file, or a folder with model.onnx.",
            default="MiniLM",
        ),
    ] = None,
    evaluate: Annotated[
        bool, Option("--evaluate", "Answer every case, rather than just enough to time each step.")
    ] = False,
    repetitions: options.Repetitions = 30,
    thread_count: Annotated[
        int, Meta(ge=1, le=1024), Option("--threads -t", "CPU threads.", "Engine and placement")
    ] = 1,
) -> Output:
    """Time a system, or the calls of a recorded app, on its cases beside what is predicted of it, and score its answers.

    Without a NAME, list them all. The file of a trace is a NAME too.

    With --on and --programs every pass that llama-bench can run is timed on the target; the rest has no
    figure there.

    Exit status: 0 well, 1 a wrong answer, 3 inconclusive, 4 it could not run.

    Example: edge-harness workloads run memory
    """
    from harness.verbs.run import exit_of
    from harness.workloads import measuring as runs
    from harness.workloads.system import load, size_of
    from harness.workloads.system_child import SystemJob
    from harness.workloads.table import panel

    if not name:
        refuse_typed(typed(click.get_current_context()) - {"as_json"}, "without a NAME")
        return _listed()
    system = load(name)
    if measuring.programs:
        refuse_typed({"thread_count"}, "with --programs: the target runs no Python")
    with measuring.started() as how:
        paths = {"encoder": encoder, "language": options.model_file(model, "", how) if model else None}
        job = SystemJob(
            name=name,
            size=size_of(system, size),
            parts={part: str(path.absolute()) for part, path in paths.items() if path},
            cases=str(cases.absolute()) if cases else "",
            repetitions=repetitions,
            thread_count=thread_count,
            evaluate=evaluate,
        )
        if measuring.programs is None:
            record = runs.run(job, how)
        else:
            record = runs.run_on(job, measuring.target, measuring.programs, how)
    status = Exit.BROKEN if "WrongAnswerError" in record.detail else exit_of([record])
    shown = panel(record)
    assert shown
    times = table(f"time and memory of {shown.label}", shown.columns, shown.rows)
    scores = table("", ["figure", "with its interval, beside the hardest null"], shown.facts)
    return Output(record, lambda: say(times, scores, shown.outcome), status)


@workloads.command("record")
def record(
    command: Annotated[tuple[str, ...], Option(metavar="[-- COMMAND...]")] = (),
    upstream: Annotated[
        str, Option("--upstream", "Address of the server that answers, with its path.", metavar="URL")
    ] = "http://127.0.0.1:8080/v1",
    listen: Annotated[
        int, Meta(ge=0, le=65535), Option("--listen", "Port to listen on; 0 for any that is free.")
    ] = 0,
    texts: Annotated[bool, Option("--texts", "Keep the messages and the answers too.")] = False,
    output: Annotated[
        Path, Option("--output -o", f"File of the trace; its name ends in {TRACE_ENDING}.", path="file")
    ] = Path(f"app{TRACE_ENDING}"),
) -> Output:
    """Record what an app asks of its models, through a proxy before any server of OpenAI's API.

    COMMAND finds the proxy in OPENAI_BASE_URL. Without a COMMAND the proxy listens until it is interrupted:
    point the app at the address that is printed. Texts, headers and keys are not kept.

    Example: edge-harness workloads record -o agent.trace.json -- python agent.py
    """
    from harness.workloads.proxy import Recorder

    if not output.name.endswith(TRACE_ENDING):
        raise InputError(f"--output: found {output.name!r}, expected a name that ends in {TRACE_ENDING}")
    recorder = Recorder(upstream, listen, texts=texts)
    if not command:
        say(f"listening on {recorder.url}; end with Ctrl-C")
    trace = recorder.record(command)
    if not trace.calls:
        raise CouldNotRunError(f"no call came through {recorder.url}: does the app read OPENAI_BASE_URL?")
    output.write_bytes(msgspec.json.format(msgspec.json.encode(trace)))
    told = f"{len(trace.calls)} calls, kept in {output}: edge-harness workloads run {output} --model MODEL"
    return Output(trace, lambda: say(told), Exit.OK)


def _listed() -> Output:
    """Every system with its parts and sizes."""
    from harness.workloads.system import load, names

    rows = []
    document = []
    gone = []
    for name in names():
        try:
            system = load(name)
        except EngineError as error:
            gone.append(str(error))
            continue
        rows.append([name, ", ".join(system.parts) or "-", ", ".join(system.sizes), system.title])
        document.append({"name": name, "title": system.title, "parts": system.parts, "sizes": system.sizes})
    view = table("", ["system", "parts", "sizes", "what it does"], rows)
    return Output(document, lambda: say(view, *gone))
