"""``edge-harness serve-load``: several requests at once against a server, and where it is saturated."""

from typing import Any

import click

from harness.cli import _options as options
from harness.cli._command import verb
from harness.cli._output import Answer
from harness.cli._parameters import Amount, whole


def _range(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    try:
        found = whole(low), whole(high or low)
    except ValueError:
        found = (0, 0)
    if not 1 <= found[0] <= found[1]:
        raise click.BadParameter(f"found {text!r}, expected tokens such as 128 or 64-256")
    return found


def _limits(_context: click.Context, _option: click.Parameter, texts: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for text in texts:
        name, _, most = text.lower().partition("=")
        if name in found:
            raise click.BadParameter(f"found {name} twice, expected one limit of each")
        try:
            found[name] = Amount().convert(most.removesuffix("s"), _option, _context)
        except click.BadParameter:
            raise click.BadParameter(f"found {text!r}, expected seconds such as ttft=0.5") from None
    return found


@verb
@options.measuring
def serve_load(
    named: str,
    url: str,
    server_model: str,
    silence_s: float,
    users: tuple[int, ...],
    rates: tuple[float, ...],
    how: "options.How",
    **asked: Any,
) -> Answer:
    """Load-test a server: with so many users at once, or so many requests a second.

    Name the MODEL that the server runs, and the throughput for each number of users is predicted first. 99th
    percentiles come with the upper end of their 95 % interval where there are enough requests for one.

    Exit status: 0 all well, 3 a whole level was disturbed, 4 the server could not be used.
    """
    from harness.app.fit import throughput_of
    from harness.cli._records import answer_of
    from harness.measure.jobs.load import LoadJob, plan
    from harness.measure.pipeline import Pipeline
    from harness.runtimes.server.stream import Patience

    if not url or bool(users) == bool(rates):
        raise click.UsageError("expected --url with either --users or --rate")
    job = LoadJob(
        url=url,
        model=server_model,
        levels=tuple(map(float, users)) or rates,
        open_loop=bool(rates),
        patience=Patience(silence_s=silence_s),
        **asked,
    )
    with Pipeline(how) as pipeline:
        planned = plan(job, throughput_of(named) if named else None)
        how.listener.begin("a load test", 3 * job.request_count * len(job.levels))
        record = pipeline.measure(planned)
    return answer_of(record)
