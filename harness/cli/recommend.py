"""``edge-harness recommend``: which model for a task on a device."""

from typing import Annotated, Literal

import click
from msgspec import Meta

from harness.cli import _options as options
from harness.cli._command import verb
from harness.cli._output import HANDHELD, Answer, say, table
from harness.domain.option import Option
from harness.domain.question import Api, KvType
from harness.errors import Exit
from harness.units import format_bytes, format_number

_NAMED_COUNT = 8
"""Models that are left out for one reason and named."""


@verb
def recommend(
    device: Annotated[str, Option(metavar="DEVICE", names="devices")],
    task: Annotated[
        Literal["chat", "code", "reasoning", "vision"],
        Meta(description="What the model is for: it decides which published scores count."),
        Option("--task"),
    ] = "chat",
    min_speed: Annotated[
        float,
        Meta(gt=0, le=1e9, description="Slowest decode speed to accept, in tokens/s."),
        Option("--min-speed"),
    ] = 5.0,
    minutes: Annotated[
        Annotated[float, Meta(gt=0, le=1e5)] | None,
        Meta(description="Require that speed after this many minutes, throttling included."),
        Option("--minutes"),
    ] = None,
    quality_of: Annotated[
        str,
        Meta(description="Only models that score at most one point below MODEL."),
        Option("--quality-of", metavar="MODEL", names="models"),
    ] = "",
    context_tokens: options.ContextLength = 4096,
    kv_type: KvType = "F16",
    api: Api = "",
) -> Answer:
    """Rank models and their quantisations for DEVICE by published quality, of those that fit and are fast enough.

    Exit status: 0 there is one, 1 nothing fits or is fast enough.
    """
    from harness.app.case import Case
    from harness.app.commands import commands_of
    from harness.app.recommend import benchmark
    from harness.app.recommend import recommend as rank
    from harness.app.resolve import resolve_device, resolve_model, scenario_from, usual_program
    from harness.app.results import ladders
    from harness.app.ways import ways

    asked = {"context_tokens": context_tokens, "kv_type": kv_type, "api": api}
    scenario = scenario_from(asked | {"program": usual_program(device)})
    profile = resolve_device(device, scenario)
    ranking = rank(
        profile,
        task,
        scenario,
        min_tokens_per_s=min_speed,
        minutes=minutes or 0.0,
        quality_of=quality_of,
        records=ladders(),
    )
    lines = [
        (
            "*" if c.is_front else "",
            c.model,
            c.quant,
            f"{c.score:g}",
            f"{c.rank_score:g}",
            format_number(c.tokens_per_s),
            format_bytes(c.needed_bytes),
            c.how or "whole",
            c.source,
        )
        for c in ranking.choices
    ]
    says = []
    if ranking.choices:
        first = ranking.choices[0]
        late = ""
        if minutes:
            late = f" after {minutes:g} minutes"
        meant = resolve_model(first.model, first.quant)
        if profile.kind not in HANDHELD:
            case = Case.of(meant, profile, scenario)
            ranking = ranking.replace(commands=commands_of(case, ways(case)[0]))
        speed = f"about {format_number(first.tokens_per_s, 2)} tokens/s{late}"
        memory = format_bytes(first.needed_bytes)
        how = ""
        if first.how:
            how = f", {first.how}"
        says = [f"Run {first.model} {first.quant}: {speed}, {memory}{how}.", *ranking.commands]
    heading = f"{task} on {profile.title}; *: no other is both better and faster"
    less = "less quantisation"
    heads = ("", "model", "quant", benchmark(task), less, "tokens/s", "needs", "how", "source")
    view: object = table(heading, heads, lines, spare=("source", less, "needs"))
    if not lines:
        view = f"no model with a published {benchmark(task)} fits on {profile.title} and is fast enough: ask for less"
    by_reason: dict[str, list[str]] = {}
    for model, reason in ranking.left_out.items():
        head, _, figure = reason.partition(": ")
        by_reason.setdefault(head, []).append(f"{model} ({figure})" if figure else model)
    notes = [
        f"Left out, {reason}: {', '.join(models[:_NAMED_COUNT])}"
        + (f" and {len(models) - _NAMED_COUNT} more, which --json names" if len(models) > _NAMED_COUNT else "")
        for reason, models in sorted(by_reason.items(), key=lambda group: len(group[1]))
    ]

    def show() -> None:
        for line in says:
            click.echo(line)
        say(view, *notes)

    return Answer(ranking, show, Exit.OK if lines else Exit.BROKEN)
