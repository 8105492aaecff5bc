"""``edge-harness fit``: does this model fit on that device, how fast, and what would help."""

from typing import TYPE_CHECKING, Any

import click

from harness.cli import _options as options
from harness.cli._command import Verb, typed
from harness.cli._effect import refuse_idle, refuse_typed
from harness.cli._output import Answer, Table, answers, console, say, table
from harness.cli._plans import render_plans
from harness.errors import Exit
from harness.units import format_bytes, format_number, format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.app.explain import ExplanationTable
    from harness.app.resolve import ResolvedModel
    from harness.domain.device import DeviceProfile
    from harness.domain.prediction import Interval, Prediction
    from harness.domain.scenario import Scenario
    from harness.predict.advice import Advice
    from harness.predict.energy import Energy, Sustained


@click.command(cls=Verb)
@click.argument("model")
@click.option("--device", "-d", default="this", show_default=True, help="Device name, profile file, or `this` machine.")
@options.quant
@options.context()
@options.prompt()
@options.tokens(128)
@click.option("--depth", "depth_tokens", type=options.Count(0), default=0, help="Tokens already in the cache.")
@click.option(
    "--batch", "--users", "batch_count", type=options.Count(1, 4096), default=1, help="Sequences decoded together."
)
@options.ubatch
@options.kv_type
@options.value_type
@options.program
@options.api
@options.threads
@options.without
@click.option("--entitled", is_flag=True, help="Assume the app has the entitlement for more memory.")
@click.option("--min-speed", "target_tokens_per_s", type=options.Amount(), help="Decode speed wanted, in tokens/s.")
@click.option(
    "--minutes", type=options.Amount(), help="Judge --min-speed after so many minutes, once throttling has set in."
)
@click.option(
    "--draft", metavar="MODEL", help="Draft model to load as well: a name or a file, NAME:QUANT for its quantisation."
)
@click.option(
    "--verifier",
    metavar="DEVICE[@MS]",
    help="Device elsewhere that verifies what --draft drafts here, and the round trip to it. [default: 40 ms]",
)
@click.option(
    "--with", "beside", multiple=True, metavar="WORKLOAD[:SIZE]", help="What shares the app's memory; may be repeated."
)
@click.option(
    "--ram-budget", metavar="SIZE", help="RAM the app may use: 2GiB, 600MB, or 0.6x the size of the model's file."
)
@options.placement()
@click.option(
    "--explain", "explained", is_flag=True, help="Show every term behind the speed, and what would disprove it."
)
@click.option("--advice/--no-advice", "with_advice", default=True, help="Say what would make it fit, or faster.")
@answers
@click.pass_context
def fit(
    context: click.Context,
    /,
    model: str,
    device: str,
    quant: str,
    target_tokens_per_s: float | None,
    minutes: float | None,
    entitled: bool,
    draft: str | None,
    verifier: str | None,
    beside: tuple[str, ...],
    ram_budget: str | None,
    explained: bool,
    with_advice: bool,
    program: str | None,
    **fields: Any,
) -> Answer:
    """Predict the memory and the speed of a model on a device.

    MODEL is a name, a .gguf, a config.json or a .toml. Without --api and --placement the best way to run it is found.

    Exit status: 0 it fits, 1 it does not, or not fast enough.
    """
    from harness.app import fit as use
    from harness.app.explain import explain
    from harness.app.plans import plan_remote, plan_speculation
    from harness.app.resolve import THIS_MACHINE, resolve_device, resolve_model, scenario_from
    from harness.app.ways import ways

    fields["program"] = program if program is not None else "" if device in THIS_MACHINE else "llama-server"
    scenario = scenario_from(fields)
    resolved, profile = resolve_model(model, quant or None), resolve_device(device, scenario)
    if ram_budget:
        profile = use.within_budget(profile, options.budget_of(ram_budget, resolved.weights.file_bytes))
    several = profile.card_count > 1  # -d "2x rtx 3090"
    refuse_typed({"placement"}, "with several cards, over which the best split is looked for", when=several)
    scenario, made = _made_by_program(context, resolved, profile, scenario, fields) if program else (scenario, ())
    small = resolve_model(draft) if draft else None
    asked: dict[str, Any] = {"target_tokens_per_s": target_tokens_per_s, "entitled": entitled, "draft": small,
                             "minutes": minutes, "beside": tuple(use.companion(text) for text in beside)}  # fmt: skip
    refuse_idle(context, lambda values: use.predict(resolved, profile, scenario_from(fields | values), **asked))
    listed = ways(resolved, profile, scenario, **asked)
    best, now, scenario = listed[0], listed[0].prediction, listed[0].scenario
    late, energy = use.outlook(resolved, profile, scenario, now.speed, minutes or 10)
    timed = use.timing_notes(resolved, profile, scenario) if device in THIS_MACHINE else ()
    if ram_budget:
        made = (*made, f"the app may use {format_bytes(profile.pool('ram').usable_bytes.value)} of RAM")
    notes = (*resolved.notes, *made, *_notes(now, resolved, profile, scenario), *timed)
    changes = use.advice_for(resolved, profile, scenario, now, **asked) if with_advice else []
    speculation = plan_speculation(resolved, profile, scenario, small) if with_advice or small else None
    why = explain(resolved, profile, scenario) if explained else ()
    remote = None
    if verifier is not None and small is not None:
        there, _, trip_ms = verifier.partition("@")
        trip_s = options.Amount(most=60_000).convert(trip_ms or "40", None, context) / 1e3
        remote = plan_remote(now, resolved, small, profile, resolve_device(there), scenario, trip_s)

    def show() -> None:
        from harness.report.answer import first_line, next_step, other_ways

        deep = () if now.verdict.word == "fits with streaming" else use.speeds_by_depth(resolved, profile, scenario)
        decode, but = deep[0][1] if deep else None, _rests_on(resolved, scenario)
        click.echo(first_line(best, profile, late, decode=decode, target_tokens_per_s=target_tokens_per_s, but=but))
        say(*filter(None, (other_ways(listed),)))
        _render(
            now,
            changes,
            notes,
            _memory_table(now, profile.title),
            _speed_table(now, deep),
            _warm_table(late, energy),
        )
        gains = speculation and now.verdict.word == "fits" and any(case.gamma for case in speculation.cases)
        render_plans(listed, speculation if small or gains else None, remote)
        say(*(_explained(part) for part in why))
        say(*filter(None, (next_step(best, device in THIS_MACHINE, bool(changes)),)))

    document = {"scenario": scenario, "prediction": now, "ways": listed, "advice": changes, "notes": notes}
    document |= {"sustained": late, "energy": energy, "speculation": speculation}
    document |= ({"explanation": why} if why else {}) | ({"remote": remote} if remote else {})
    return Answer(document, show, Exit.BROKEN if now.verdict.word in {"does not fit", "too slow"} else Exit.OK)


def _made_by_program(
    context: click.Context,
    model: "ResolvedModel",
    device: "DeviceProfile",
    scenario: "Scenario",
    fields: dict[str, Any],
) -> "tuple[Scenario, tuple[str, ...]]":
    """The scenario that a program makes of the device by itself, in ``fields`` too, and what to say of it."""
    from harness.app.fit import made_by_program

    given = typed(context)
    made = made_by_program(
        model, device, scenario, context_asked="context_tokens" in given, layers_asked="placement" in given
    )
    if made is None:
        return scenario, ()
    fields |= {name: getattr(made.scenario, name) for name in ("context_tokens", "ubatch_tokens", "placement")}
    return made.scenario, (made.why,)


def _rests_on(model: "ResolvedModel", scenario: "Scenario") -> str:
    """What the answer is true of, where nobody knows the model or it was made for less; empty where all is known."""
    most_tokens = model.weights.shape.context_max_tokens
    if most_tokens and scenario.context_tokens > most_tokens:
        return f"in a context longer than the {most_tokens:,} tokens it was made for"
    return f"if {model.name}, which nobody here knows, is built like others of its size" if model.guess else ""


def _notes(now: "Prediction", model: "ResolvedModel", device: "DeviceProfile", scenario: "Scenario") -> list[str]:
    """What the figures are of, where that is not one sequence by what is published of the device's kind."""
    notes = [f"{device.title}: {reading}" for reading in device.readings]
    if device.learned:
        notes.append(f"speed was learnt from measurements of this device, kept in {device.learned}")
    most_tokens = model.weights.shape.context_max_tokens
    if most_tokens and scenario.context_tokens > most_tokens:
        notes.append(f"a context of {scenario.context_tokens} is beyond the {most_tokens} tokens of {now.model}")
    if scenario.batch_count > 1:
        each = format_number(now.speed.decode_tokens_per_s.mid / scenario.batch_count)
        notes.append(f"{scenario.batch_count} sequences together: speeds are those of all, {each} tokens/s for each")
    later = sum(part.anonymous_bytes for part in now.memory.later)
    if later:
        reasons = "; ".join(part.reason for part in now.memory.later)
        notes.append(f"{scenario.program} may add {format_bytes(later)} of RAM over many turns: {reasons}")
    return notes


def _explained(part: "ExplanationTable") -> Table:
    rows = [
        [cell if isinstance(cell, str) else "" if cell is None else format_number(cell) for cell in row]
        for row in part.rows
    ]
    numeric = [i for i in range(len(part.columns)) if any(isinstance(row[i], float | int) for row in part.rows)]
    return table(part.title, part.columns, rows, right=numeric)


def _render(now: "Prediction", changes: "list[Advice]", notes: tuple[str, ...], *tables: Table) -> None:
    say(*tables)
    verdict = now.verdict
    console().print(f"{verdict.word}; the limit is {verdict.binding_limit}", style="bold", markup=False)
    say(*(f"  {reason}" for reason in (*verdict.reasons, *now.speed.unsettled, *notes)))
    if changes:
        say(_advice_table(changes))


def _memory_table(now: "Prediction", title: str) -> Table:
    rows: list[tuple[str, ...]] = [
        (part.name, part.pool, format_bytes(part.anonymous_bytes), format_bytes(part.file_bytes), part.reason)
        for part in now.memory.parts
    ]
    peak = now.memory.peak_bytes
    between = f"90 %: {format_bytes(peak.low)} to {format_bytes(peak.high)}"
    rows.append(("in all", "", format_bytes(now.memory.anonymous_bytes), format_bytes(now.memory.file_bytes), between))
    head = f"memory of {now.model} {now.quant} on {title}, {now.api}"
    return table(head, ("part", "pool", "held", "mapped", "why"), rows, right=(2, 3))


def _speed_table(now: "Prediction", deep: "tuple[tuple[int, Interval], ...]") -> Table:
    speed = now.speed

    def row(name: str, value: "Interval", show: "Callable[[float], str]" = format_number) -> tuple[str, str, str]:
        return name, show(value.mid), f"{show(value.low)} to {show(value.high)}"

    rows = [
        row("decode, tokens/s", speed.decode_tokens_per_s),
        *(row(f"decode after {tokens} tokens of context", value) for tokens, value in deep),
        row("prefill, tokens/s", speed.prefill_tokens_per_s),
        row("first token, loaded", speed.ttft_warm_s, format_seconds),
        row("first token, from storage", speed.ttft_cold_s, format_seconds),
        row("load, from storage", speed.load_cold_s, format_seconds),
    ]
    if "storage" not in speed.limits:
        reads = f"{format_bytes(speed.active_bytes)} a token"
        rows.append(("ceiling, tokens/s", format_number(speed.roofline_tokens_per_s), reads))
    return table("", ("speed", "expected", "90 %"), rows, right=(1,))


def _warm_table(late: "Sustained | None", energy: "Energy | None") -> Table:
    def row(name: str, value: "Interval | None", why: str) -> tuple[str, ...]:
        if value is None:
            return name, "not known", "", why
        return name, format_number(value.mid), f"{format_number(value.low)} to {format_number(value.high)}", why

    after = "not known what the device can give off" if late is None else late.evidence
    minutes, speed = (late.minutes, late.tokens_per_s) if late else (10, None)
    rows = [row(f"decode after {minutes:g} minutes, tokens/s", speed, after)]
    if late is not None and late.knee_s is not None:
        rows.append(("slows down after, s", f"{late.knee_s:.0f}", "", "when it reaches what it can give off"))
    if energy is None:
        rows.append(row("energy of a token, J", None, "nobody stated the card's power"))
    else:
        rows.append(row("energy of a token, J", energy.joules_per_token, energy.scope))
        rows.append(row("energy of a token, warm, J", energy.sustained_joules_per_token, energy.evidence))
        if energy.tokens_per_charge is not None:
            rows.append(row("tokens of a charge", energy.tokens_per_charge, "warm where known"))
    return table("", ("over minutes", "expected", "90 %", "by"), rows, right=(1,))


def _advice_table(changes: "list[Advice]") -> Table:
    rows = []
    for number, advice in enumerate(changes, 1):
        growth = advice.quality_percent
        quality = "not published" if growth is None else f"{growth:+.1f} %" if growth else "none"
        rows.append(
            (
                str(number),
                advice.change,
                advice.word,
                format_bytes(advice.needed_bytes),
                format_number(advice.decode_tokens_per_s),
                f"{advice.speed_ratio:.2f}x" if advice.speed_ratio else "",
                quality,
            )
        )
    columns = ("", "what would help", "then", "needs", "tokens/s", "speed", "perplexity")
    return table("", columns, rows, right=(3, 4, 5, 6))
