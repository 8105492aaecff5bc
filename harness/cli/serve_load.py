"""``edge-harness serve-load``: several requests at once against a server, and where it is saturated."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from harness.cli import _options as options
from harness.cli._effect import refuse_typed
from harness.cli._output import Answer, say, table

if TYPE_CHECKING:
    from harness.domain.record import Phase, RunRecord


def _range(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    try:
        found = options.whole(low), options.whole(high or low)
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
            found[name] = options.Amount().convert(most.removesuffix("s"), _option, _context)
        except click.BadParameter:
            raise click.BadParameter(f"found {text!r}, expected seconds such as ttft=0.5") from None
    return found


def _rates(_context: click.Context, _option: click.Parameter, text: str) -> tuple[float, ...]:
    number = options.Amount()
    return tuple(number.convert(part, _option, _context) for part in text.split(",")) if text else ()


@click.command("serve-load")
@click.argument("named", default="", metavar="[MODEL]")
@options.server
@click.option("--users", callback=options.numbers(1, 10_000), help="Closed loop: users at once, such as 1,2,4,8,16.")
@click.option("--rate", "rates", default="", callback=_rates, help="Open loop: requests a second, Poisson: 0.5,1,2.")
@click.option(
    "--trace", type=options.FILE_HERE,
    help="JSON lines with at_s, prompt_tokens and new_tokens.",
)  # fmt: skip
@click.option("--requests", "request_count", type=options.Count(1, 100_000), default=32, show_default=True,
              help="Requests of each level.")  # fmt: skip
@click.option("--prompt", "prompt_tokens", default="128", callback=_range, help="Tokens, or a range such as 64-256.")
@click.option("--tokens", "new_tokens", default="64", callback=_range, help="New tokens, or a range.")
@click.option("--prefix", "prefix_tokens", type=options.Count(0), default=0, help="Tokens that all prompts share.")
@click.option("--turns", type=options.Count(1, 100), default=1, help="Requests of each conversation.")
@click.option("--limit", "limits_s", multiple=True, callback=_limits, metavar="NAME=S",
              help="Limit of a good request, in seconds: ttft=0.5, itl=0.05 or e2el=5.")  # fmt: skip
@click.option(
    "--seed", type=options.Count(0, 1 << 31), default=1, show_default=True, help="Of lengths, prompts and arrivals."
)
@options.measuring(bound=False)
def serve_load(
    named: str,
    url: str,
    server_model: str,
    silence_s: float,
    users: tuple[int, ...],
    rates: tuple[float, ...],
    trace: Path | None,
    how: "options.How",
    **asked: Any,
) -> Answer:
    """Put load on a server: by users, by rate, or by a trace.

    With MODEL, which is what the server runs, the throughput of so many users is predicted first.
    Times of a request come with the interval of their 99th percentile, where there are enough for one.
    Exit status: 0 all well, 3 a whole level was disturbed, 4 the server could not be used.
    """
    from harness.app.fit import throughput_of
    from harness.app.run import exit_of
    from harness.measure.jobs.load import LoadJob, plan, read_trace
    from harness.measure.pipeline import Pipeline
    from harness.runtimes.server.stream import Patience

    if not url or sum(map(bool, (users, rates, trace))) != 1:
        raise click.UsageError("expected --url with one of --users, --rate and --trace")
    if how.resume:
        raise click.UsageError("--resume has no meaning here: a server is what it is now")
    of_levels = {"request_count", "prompt_tokens", "new_tokens", "turns"}
    refuse_typed(of_levels, "with --trace, which has its own", when=trace)
    job = LoadJob(
        url=url,
        model=server_model,
        levels=tuple(map(float, users)) or rates or (0.0,),
        open_loop=bool(rates),
        trace=read_trace(trace) if trace else (),
        patience=Patience(silence_s=silence_s),
        **asked,
    )
    with Pipeline(how) as pipeline:
        record = pipeline.measure(plan(job, throughput_of(named) if named else None))
    return Answer(record, lambda: _show(record), exit_of([record]))


_LATENCIES: Final[tuple[tuple["Phase", str], ...]] = (("first_token", "ttft"), ("decode", "tg"), ("workload", "e2el"))


def _show(record: "RunRecord") -> None:
    from harness.domain.record import result_of
    from harness.domain.result import Load
    from harness.records.derive import times_of
    from harness.stats.intervals import quantile_interval

    load = result_of(record, Load)
    heads = ["load", "requests/s", "tokens/s", "predicted", "good/s"]
    heads += [f"{name} {p}" for name in ("TTFT", "ITL", "E2EL") for p in ("p50", "p99")]
    rows = []
    for level in load.levels:
        told = level.predicted_tokens_per_s
        figures = (level.requests_per_s, level.new_tokens_per_s, told, level.goodput_requests_per_s)
        row = [level.label.removeprefix("@ "), *("-" if f is None else f"{f:.2f}" for f in figures)]
        for phase, name in _LATENCIES:
            for share in (0.5, 0.99):
                times_s = times_of(record, phase, f"{name} {level.label}")
                found = quantile_interval(times_s, share) if times_s else None
                most = f" (to {found.high:.3f})" if found and share > 0.5 and found.high is not None else ""
                row.append(f"{found.mid:.3f} s{most}" if found else "-")
        rows.append(row)
    say(table(f"{record.name}: {record.outcome}", heads, rows, right=range(1, len(heads))))
    known = {"predicted to be saturated": load.predicted_saturation, "saturated": load.saturation}
    unit = "requests/s" if load.open_loop else "users"
    say(*[f"{words} at {found:g} {unit}" for words, found in known.items() if found is not None])
    failed = [f"{v.label.removeprefix('@ ')}: {n} x {cause}" for v in load.levels for cause, n in v.failures.items()]
    say(*[*failed, *filter(None, [record.detail])])
