"""``edge-harness serve-load``: several requests at once against a server, and where it is saturated."""

import re
from typing import Annotated

import click
from msgspec import Meta

from harness.cli import _options as options
from harness.cli.command import verb
from harness.core.option import Option
from harness.core.question import New, Prompt
from harness.show.output import Output


def _limit(text: str) -> tuple[str, float]:
    """A figure and the most seconds of it: ``ttft=0.5``."""
    match = re.fullmatch(r"(\w+)=(\d+|\d*\.\d+)s?", text.strip().lower())
    if match is None or not float(match[2]):
        raise ValueError(f"found {text!r}, expected seconds such as ttft=0.5")
    return match[1], float(match[2])


@verb
def serve_load(
    measuring: options.MeasuringOptions,
    url: Annotated[str, Option("--url", "Address of the server: http://127.0.0.1:8080.")],
    named: Annotated[str, Option(metavar="[MODEL]")] = "",
    server_model: options.ServerModel = "",
    users: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=10_000)], ...],
        Option(
            "--users", "This many users at once, each waiting for its answer; several levels with commas."
        ),
    ] = (1, 2, 4, 8),
    request_count: Annotated[
        int, Meta(ge=1, le=100_000), Option("--requests", "Requests at each level of load.")
    ] = 32,
    prompt_tokens: Prompt = 128,
    new_tokens: New = 64,
    limits_s: Annotated[
        tuple[tuple[str, float], ...],
        Option(
            "--goodput",
            "Latency limit that a request must meet to count as good, in seconds: ttft=0.5, itl=0.05 "
            "or e2el=5; repeatable.",
            metavar="NAME=S",
            is_repeated=True,
            reads=_limit,
        ),
    ] = (),
    seed: options.Seed = 1,
) -> Output:
    """Load-test a server with so many users at once.

    Name the MODEL that the server runs, and the throughput for each number of users is predicted first. 99th
    percentiles come with the upper end of their 95 % interval where there are enough requests for one.

    Exit status: 0 all well, 3 a whole level was disturbed, 4 the server could not be used.

    Example: edge-harness serve-load --url http://127.0.0.1:8080 --users 1,2,4,8
    """
    from harness.measure.jobs.load import LoadJob, plan
    from harness.measure.pipeline import Pipeline
    from harness.runtimes.server.stream import Patience
    from harness.show.record_tables import answer_of
    from harness.verbs.this_machine import throughput_of

    names = [name for name, _ in limits_s]
    for name in names:
        if names.count(name) > 1:
            raise click.UsageError(f"--goodput: found {name} twice, expected one limit of each")
    job = LoadJob(
        url=url,
        model=server_model,
        levels=tuple(map(float, users)),
        request_count=request_count,
        prompt_tokens=(prompt_tokens, prompt_tokens),
        new_tokens=(new_tokens, new_tokens),
        limits_s=dict(limits_s),
        seed=seed,
        patience=Patience(silence_s=options.SILENCE_S),
        check_s=options.CHECK_S,
    )
    with measuring.started() as how, Pipeline(how) as pipeline:
        planned = plan(job, throughput_of(named) if named else None)
        how.listener.begin("a load test", 3 * job.request_count * len(job.levels))
        record = pipeline.measure(planned)
    return answer_of(record)
