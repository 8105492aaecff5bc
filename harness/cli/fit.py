"""``edge-harness fit``: does this model fit on that device, how fast, and what would help."""

import re
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import click
import msgspec
from msgspec import Meta

from harness.cli import _options as options
from harness.cli._command import typed, verb
from harness.cli._effect import refuse_idle, refuse_typed
from harness.cli._output import HANDHELD, Answer, Table, console, say, table
from harness.domain.option import Option
from harness.domain.question import Asked
from harness.errors import Exit
from harness.units import format_bytes, format_number, format_rate, format_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.app.explain import ExplanationTable
    from harness.app.plans import SpeculationPlan
    from harness.app.resolve import ResolvedModel
    from harness.app.ways import Way
    from harness.domain.device import DeviceProfile
    from harness.domain.prediction import Interval, Prediction
    from harness.domain.scenario import Scenario
    from harness.predict.advice import Advice
    from harness.predict.energy import Energy, Sustained

    Row = tuple[str, Interval | None, Callable[[float], str], str]

_PAGE_TOKENS = 650
"""Of a page of English text, 500 words."""
_PAGES = 20
"""Of a document that is asked about where no prompt is; fewer where the context holds no more."""
_TURN_TOKENS = 64
"""Of the next thing that a user says."""


@verb
def fit(
    models: Annotated[tuple[str, ...], Option(metavar="MODEL...", names="models")],
    asked: Asked,
    devices: Annotated[
        tuple[str, ...],
        Meta(description="Device: a name, a line of parts or a file; repeat it to compare several."),
        Option(("--device", "-d"), metavar="DEVICE", default="this machine", is_repeated=True, names="devices"),
    ] = (),
    price: Annotated[
        str | None,
        Meta(description="Price of a kWh, and of a million tokens from a cloud to compare with: 0.30,0.60."),
        Option(("--price",), metavar="KWH[,ELSEWHERE]"),
    ] = None,
    measured: Annotated[
        Annotated[float, Meta(gt=0, le=1e9)] | None,
        Meta(description="Decode speed that you measured, in tokens/s: explain how it differs from the prediction."),
        Option(("--measured",)),
    ] = None,
    explained: Annotated[
        bool,
        Meta(description="Show every term behind the speed, and what measurement would disprove it."),
        Option(("--explain",)),
    ] = False,
    with_advice: Annotated[
        bool,
        Meta(description="Say what would make the model fit, or run faster."),
        Option(("--advice/--no-advice",)),
    ] = True,
) -> Answer:
    """Predict whether a model fits on a device, and how fast it runs; several of either are compared in one table.

    MODEL is a name, a .gguf, a config.json or a .toml. Without --api and --placement the best way to run it by the
    device's usual api is found: whole, split, by the CPU or from storage.

    Exit status: 0 it fits (of several: one does), 1 it does not, or is slower than --min-speed.
    """
    context = click.get_current_context()
    given = msgspec.structs.asdict(asked) | {"batch_count": asked.users, "context_tokens": asked.context_tokens or 4096}
    if asked.context_tokens == "max":
        given["context_tokens"] = 0
    given |= {"price": price, "measured": measured, "explained": explained, "with_advice": with_advice}
    pairs = [(model, device) for model in models for device in devices or ("this",)]
    refuse_typed({"explained", "measured", "verifier"}, "with several models or devices", when=len(pairs) > 1)
    if asked.verifier.startswith("@"):
        raise click.UsageError(f"--verifier: found {asked.verifier!r}, expected DEVICE or DEVICE@MILLISECONDS")
    several = [_one(context, model, device, given) for model, device in pairs]
    answered, cells = [answer for answer, _ in several], [one for _, one in several]
    if len(several) == 1:
        return answered[0]
    names = [f"{model}, {device}" for model, device in pairs]
    rows = [(label, *(one.get(label, "") for one in cells)) for label in dict.fromkeys(chain(*cells))]
    status = min(answer.status for answer in answered)
    view = table("", ("", *names), rows, folds=True)
    return Answer([answer.document for answer in answered], lambda: say(view), status)


_Question = tuple["ResolvedModel", "DeviceProfile", "Scenario", dict[str, Any], list[str]]
"""A model, a device and a scenario, with all that ``predict`` is asked; and what was assumed on the way."""


def _question(context: click.Context, model: str, device: str, given: dict[str, Any]) -> _Question:
    from harness.app import fit as use
    from harness.app.resolve import THIS_MACHINE, resolve_device, resolve_model, scenario_from, usual_program
    from harness.app.ways import longest_context
    from harness.domain.scenario import Scenario

    fields = {name: given[name] for name in Scenario.__struct_fields__ if name in given} | {"without": given["without"]}
    head, fields["draft_tokens"] = _head(draft := given["draft"] or "")
    if (program := fields["program"]) is None:
        fields["program"] = usual_program(device)
    resolved, is_longest = resolve_model(model, given["quant"] or None), not fields["context_tokens"]
    says_context = _with_room(fields, resolved, is_typed="context_tokens" in typed(context) and not is_longest)
    scenario = scenario_from(fields)
    profile = resolve_device(device, scenario)
    notes = list(resolved.notes)
    if budget := given["ram_budget"]:
        profile = use.within_budget(profile, options.budget_of(budget, resolved.weights.file_bytes))
        notes.append(f"the app may use {format_bytes(profile.pool('ram').usable_bytes.value)} of RAM")
    fields["placement"] = use.over_cards(profile, fields["placement"])
    scenario = scenario_from(fields)
    asked = {name: given[name] for name in ("entitled", "minutes", "target_tokens_per_s")}
    asked |= {"draft": resolve_model(draft) if draft and not head else None, "head": head}
    asked["beside"] = (*map(use.companion, given["beside"]), *use.head_beside(head, resolved))
    if is_longest:
        fields["context_tokens"] = longest_context(resolved, profile, scenario, **asked)
        scenario = scenario_from(fields)
    layers_asked = "placement" in typed(context)
    if program and (
        made := use.made_by_program(resolved, profile, scenario, context_asked=says_context, layers_asked=layers_asked)
    ):
        scenario = made.scenario
        notes.append(made.why)
        fields |= {name: getattr(scenario, name) for name in ("context_tokens", "ubatch_tokens", "placement")}

    def again(values: dict[str, Any]) -> "Prediction":
        if "placement" in values:
            values["placement"] = use.over_cards(profile, values["placement"])
        return use.predict(resolved, profile, scenario_from(fields | values), **asked)

    refuse_idle(context, again)
    if device in THIS_MACHINE:
        notes += use.timing_notes(resolved, profile, scenario)
    return resolved, profile, scenario, asked, notes


def _with_room(fields: dict[str, Any], model: "ResolvedModel", *, is_typed: bool) -> bool:
    """Whether the context is other than the usual one: as typed, or with room for all that is asked for.

    Nobody's context is longer than what the model was made for unless it is asked for.
    """
    users, new = fields["batch_count"], 0 if model.reads_only else fields["new_tokens"]
    needed = users * (fields["depth_tokens"] + fields["prompt_tokens"] + new)
    if is_typed:
        if users > 1 and needed > fields["context_tokens"]:
            found = f"a context of {fields['context_tokens']:,} tokens for {users} users"
            raise click.UsageError(f"{found}, expected {needed:,} or more: {needed // users:,} tokens for each")
        return True
    usual, most = fields["context_tokens"], model.weights.shape.context_max_tokens
    fields["context_tokens"] = max(-(-needed // 256) * 256, min(usual, most or usual))
    return bool(usual != fields["context_tokens"])


def _head(draft: str) -> tuple[str, int]:
    """The head that --draft names, empty for a model; and the tokens it drafts at a time, 0 where nobody says."""
    from harness.predict.speculative import HEADS

    word, _, length = draft.partition(":")
    if word not in HEADS:
        return "", 0
    refuse_typed({"verifier"}, "with a head that drafts, which lies with its target")
    return word, _typed(length, Annotated[int, Meta(ge=1, le=64)], "--draft") if length else 0


def _one(context: click.Context, model: str, device: str, given: dict[str, Any]) -> tuple[Answer, dict[str, str]]:
    """One model on one device: its answer, and what a comparison says of it."""
    from harness.app import fit as use
    from harness.app.measured import causes
    from harness.app.plans import plan_speculation
    from harness.app.resolve import THIS_MACHINE, repository_of
    from harness.app.ways import advice_for, ways
    from harness.report.answer import commands, first_line, kept_flags, measured_line, next_step, other_ways, span

    resolved, profile, question, asked, assumed = _question(context, model, device, given)
    small, measured, minutes = asked["draft"], given["measured"], asked["minutes"] or 10
    listed = ways(resolved, profile, question, **asked)
    best, now, scenario = listed[0], listed[0].prediction, listed[0].scenario
    verdict, advised = now.verdict, given["with_advice"] and not resolved.reads_only
    streams = verdict.word == "fits with streaming"
    deep = () if streams else use.speeds_by_depth(resolved, profile, scenario)
    decode = deep[0][1] if deep else now.speed.decode_tokens_per_s
    late, energy = use.outlook(resolved, profile, scenario, decode, minutes)
    kept = kept_flags(best, profile)
    notes = [*assumed, *_too_long(resolved, scenario), *_notes(now, profile, scenario, kept)]
    changes = advice_for(resolved, profile, question, now, **asked) if advised else []
    drafter, there = small or asked["head"] or None, _elsewhere(given["verifier"])
    speculation = (
        plan_speculation(resolved, profile, scenario, drafter, elsewhere=there, entitled=asked["entitled"])
        if (advised or drafter) and (best.runs or there)
        else None
    )
    why = _why(resolved, profile, scenario) if given["explained"] else ()
    slower = causes(measured, best, resolved, profile, late) if measured else []
    beside = measured_line(measured, now) if measured else ""
    starts = [] if profile.kind in HANDHELD else commands(best, resolved, repository_of, small, kept)
    spoken = first_line(
        best,
        profile,
        late,
        decode=decode,
        full=deep[-1][1] if deep[1:] and "context_tokens" in typed(context) else None,
        target_tokens_per_s=asked["target_tokens_per_s"],
        but=_rests_on(resolved, scenario, is_longest=not given["context_tokens"], fits=not streams),
        reads_only=resolved.reads_only,
    )
    cost, reading = _cost(given["price"], energy), _reading(now, resolved, profile, scenario)
    of_one = [] if scenario.batch_count > 1 else _over_minutes(late, energy, minutes)  # both laws are of one sequence
    written = [*_speeds(now, deep, scenario.batch_count), *reading, *of_one, *cost]
    rows = [row for row in written if not resolved.reads_only or re.match("prefill|first|load|reading (?!the)", row[0])]

    def show() -> None:
        below = [f"  {one.tokens_per_s:.3g} tokens/s if {one.cause}: {one.advice}" for one in slower]
        times = ", ".join(f"{name.removeprefix('reading ')} in {span(value)}" for name, value, *_ in reading if value)
        times = f"It reads {times}." if times and not resolved.reads_only else ""
        for line in filter(None, (spoken, beside, *below, other_ways(listed), *starts, times)):
            click.echo(line)
        say(_memory_table(now, profile.title), _intervals(rows))
        console().print(f"{verdict.word}; limited by {verdict.binding_limit}", style="bold", markup=False)
        say(*(f"  {reason}" for reason in (*verdict.reasons, *now.speed.unsettled, *notes)))
        gains = speculation and verdict.word == "fits" and any(case.gamma for case in speculation.cases)
        say(
            *([_advice_table(changes)] if changes else []),
            *([_ways_table(listed)] if len(listed) > 1 else []),
            *(_drafting(speculation) if speculation and (small or gains) else ()),
            *map(_explained, why),
            *filter(None, [next_step(best, profile, device in THIS_MACHINE, bool(changes))]),
        )

    document = {"scenario": scenario, "prediction": now, "ways": listed, "advice": changes, "notes": notes}
    document |= {"sustained": late, "energy": energy, "speculation": speculation, "commands": starts}
    parts = {"explanation": why, "electricity": cost and cost[0][1],
             "measured": beside and {"says": beside, "may_be": slower}}  # fmt: skip
    document |= {name: part for name, part in parts.items() if part}
    cells = {"answer": spoken.partition(":")[0], "how": best.how, "llama.cpp": best.flags}
    cells["memory"] = f"{format_bytes(verdict.needed_bytes)} of {format_bytes(verdict.available_bytes)}"
    cells |= {name: span(value, form) for name, value, form, _ in rows if value is not None}
    status = Exit.BROKEN if verdict.word in {"does not fit", "too slow"} else Exit.OK
    return Answer(document, show, status), cells


def _typed(text: str, hint: Any, flag: str) -> Any:
    """The number that a part of an option's text stands for; else a usage error."""
    try:
        return Option().value(text, hint)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=flag) from None


def _elsewhere(verifier: str) -> "tuple[DeviceProfile, float] | None":
    """The device that --verifier names, and seconds there and back."""
    from harness.app.resolve import resolve_device

    place, _, trip_ms = (verifier or "").partition("@")
    trip_s = _typed(trip_ms or "40", Annotated[float, Meta(gt=0, le=60_000)], "--verifier") / 1e3
    return (resolve_device(place), trip_s) if place else None


def _rests_on(model: "ResolvedModel", scenario: "Scenario", *, is_longest: bool, fits: bool) -> str:
    """What the answer is true of: the longest context, a guess, more than the model was made for; empty for none."""
    most = "up to {:,}" if fits else "{:,}"
    parts = [f"read as {model.name}"] if model.asked_name else []
    parts += [f"with a context of {most.format(scenario.context_tokens)} tokens"] if is_longest else []
    parts += ["since none leaves it all in memory"] if is_longest and not fits else []
    if model.tower and model.tower.is_asked and not model.tower_bytes:
        parts.append("without its image tower (mmproj)")
    parts += _too_long(model, scenario)
    if model.guess:
        parts.append(f"if {model.name}, which nobody here knows, is built like others of its size")
    return ", ".join(parts)


def _too_long(model: "ResolvedModel", scenario: "Scenario") -> list[str]:
    most_tokens = model.weights.shape.context_max_tokens
    is_longer = 0 < most_tokens < scenario.context_tokens // scenario.batch_count
    return [f"in a context longer than the {most_tokens:,} tokens it was made for"] if is_longer else []


def _notes(now: "Prediction", device: "DeviceProfile", scenario: "Scenario", kept: str) -> list[str]:
    """What the figures are of, where that is not one sequence by what is published of the device's kind.

    ``kept`` are the options by which a program adds no more than there is room for.
    """
    from harness.domain.prediction import PartKind

    notes = [f"{device.title}: {reading}" for reading in device.readings]
    ram = device.pool("ram").bandwidth_bytes_per_s
    by_cpu = now.api == "cpu" or any(part.kind is PartKind.CPU_WEIGHTS for part in now.memory.parts)
    is_told = ram.confidence == "measured" or ram.source.startswith(("said", "DDR", "LPDDR"))
    if by_cpu and device.pools[1:] and not is_told:
        ask = "add its kind, such as '+ 64GB 2 channel ddr5-6000', if it is another"
        notes.append(f"RAM is taken to read at {format_rate(ram.value)} ({ram.source}): {ask}")
    if device.learned:
        notes.append(f"speed was learnt from measurements of this device, kept in {device.learned}")
    if scenario.batch_count > 1:
        notes.append(f"{scenario.batch_count} sequences together: the speeds of the table are those of all")
    later = sum(part.anonymous_bytes for part in now.memory.later)
    if later and device.kind not in HANDHELD:
        reasons = ", and ".join(part.reason for part in now.memory.later)
        most = device.pool("ram").total_bytes.value
        size = f"up to {format_bytes(later)} of RAM" if later < most else "all of the RAM there is"
        but = f"; there is less room, so take {kept}" if kept else ""
        notes.append(f"{scenario.program} may add {size} over many turns: {reasons}{but}")
    return notes


def _why(model: "ResolvedModel", device: "DeviceProfile", scenario: "Scenario") -> "tuple[ExplanationTable, ...]":
    """What the speed is made of; imported when it is asked for, since it brings the published rows."""
    from harness.app.explain import explain

    return explain(model, device, scenario)


def _explained(part: "ExplanationTable") -> Table:
    def words(cell: str | float | None) -> str:
        return cell if isinstance(cell, str) else "" if cell is None else format_number(cell)

    return table(part.title, part.columns, [map(words, row) for row in part.rows])


def _ways_table(ways: "Sequence[Way]") -> Table:
    rows = []
    for way in ways:
        decode = way.prediction.speed.decode_tokens_per_s
        between = f"{format_number(decode.low)} to {format_number(decode.high)}"
        rows.append((way.how, way.flags, format_number(decode.mid), between))
    return table("", ("ways to run it", "llama.cpp", "tokens/s", "90 %"), rows)


def _drafting(plan: "SpeculationPlan") -> tuple[str, Table]:
    source = "as measured on this machine" if plan.measured else "typical for this API"
    costs = ", ".join(f"{c:.2f}" for c in plan.verify_cost_ratio[:4])
    plain = plan.plain_tokens_per_s
    rows = [
        (
            f"{c.acceptance_ratio:.2g}",
            str(c.gamma) if c.gamma else "no draft",
            f"{c.speedup:.2f}x" if c.gamma else "",
            format_number(plain * c.speedup),
        )
        for c in plan.cases
    ]
    says = (
        f"Speculation with {plan.drafter}: {format_number(plain)} tokens/s {plan.plain} without drafts. Drafting a "
        f"token costs {plan.draft_cost_ratio:.2f} of a normal decode step; checking 2, 3, 4 or 5 tokens in one pass "
        f"costs {costs} ({source})."
    )
    return says, table("", ("acceptance", "draft length", "speedup", "tokens/s"), rows)


def _memory_table(now: "Prediction", title: str) -> Table:
    rows: list[tuple[str, ...]] = [
        (part.label, part.pool, format_bytes(part.anonymous_bytes), format_bytes(part.file_bytes), part.reason)
        for part in now.memory.parts
        if part.anonymous_bytes or part.file_bytes
    ]
    peak = now.memory.peak_bytes
    between = f"held and mapped together, 90 %: {format_bytes(peak.low)} to {format_bytes(peak.high)}"
    if {part.pool for part in now.memory.parts} == {"ram"} and now.verdict.needed_bytes < peak.low:
        needed = format_bytes(now.verdict.needed_bytes)
        between += f"; {needed} of it must stay, the rest is pages of the file that nothing reads again"
    rows.append(("in all", "", format_bytes(now.memory.anonymous_bytes), format_bytes(now.memory.file_bytes), between))
    head = f"memory of {now.model} {now.quant} on {title}, {now.api}"
    return table(head, ("part", "pool", "held", "mapped", "why"), rows)


def _speeds(now: "Prediction", deep: "tuple[tuple[int, Interval], ...]", users: int) -> "list[Row]":
    speed = now.speed
    from harness.domain.prediction import Limit

    rows: list[Row] = [
        ("decode, tokens/s", speed.decode_tokens_per_s, format_number, ""),
        *((f"decode after {tokens:,} tokens of context", value, format_number, "") for tokens, value in deep),
        ("prefill, tokens/s", speed.prefill_tokens_per_s, format_number, ""),
        ("first token, loaded", speed.ttft_warm_s, format_seconds, ""),
        ("first token, from storage", speed.ttft_cold_s, format_seconds, ""),
        ("load, from storage", speed.load_cold_s, format_seconds, ""),
    ]
    if Limit.STORAGE not in speed.limits:
        reads = f"{format_bytes(speed.active_bytes)} a {f'pass of {users} tokens' if users > 1 else 'token'}"
        rows.append(("ceiling, tokens/s", _exact(speed.roofline_tokens_per_s), format_number, reads))
    return rows


def _reading(now: "Prediction", model: "ResolvedModel", device: "DeviceProfile", scenario: "Scenario") -> "list[Row]":
    """How long a document takes, an image if the model sees any, and the turn after them."""
    from harness.app import fit as use

    read, tokens = now.speed.prefill_tokens_per_s, scenario.prompt_tokens
    if now.verdict.word == "does not fit":
        return []
    if tokens <= _PAGE_TOKENS:
        room = scenario.context_tokens - scenario.new_tokens - _TURN_TOKENS
        tokens = _PAGE_TOKENS * min(_PAGES, room // _PAGE_TOKENS)
    pages = round(tokens / _PAGE_TOKENS)
    document = f"reading {f'{pages} pages' if pages > 1 else 'a page'} ({tokens:,} tokens)"
    rows: list[Row] = []
    if pages > 0 and now.verdict.word == "fits with streaming":
        rows = [(document, read.through(lambda rate: tokens / rate), format_seconds, "")]
    elif pages > 0:
        seconds = use.first_token_s(model, device, scenario, 0, tokens)
        turn = use.first_token_s(model, device, scenario, tokens, _TURN_TOKENS)
        rows = [
            (document, seconds, format_seconds, ""),
            (f"reading the next turn's {_TURN_TOKENS} tokens", turn, format_seconds, "the cache is kept"),
        ]
    if model.tower and (image := use.image_s(model, scenario, read)):
        words = f"reading an image of 1024x1024 ({model.tower.image_tokens:,} tokens)"
        held = f"{format_bytes(model.tower.file_bytes)}{'' if model.tower_bytes else ' more'}"
        rows.append((words, image, format_seconds, f"its tower ({held}) at the rate of the prompt: nobody timed one"))
    return rows


def _over_minutes(late: "Sustained | None", energy: "Energy | None", asked: float) -> "list[Row]":
    after = "not known how much heat the device can shed" if late is None else late.evidence
    minutes, speed = (late.minutes, late.tokens_per_s) if late else (asked, None)
    rows: list[Row] = [(f"decode after {minutes:g} minutes, tokens/s", speed, format_number, after)]
    if late is not None and late.knee_s is not None:
        rows.append(("throttles after, s", _exact(late.knee_s), format_number, "thermal limit"))
    if energy is None:
        return [*rows, ("energy of a token, J", None, format_number, "nobody stated the card's power")]
    rows.append(("energy of a token, J", energy.joules_per_token, format_number, energy.scope))
    rows.append(("energy of a token, warm, J", energy.sustained_joules_per_token, format_number, energy.evidence))
    if (charge := energy.tokens_per_charge) is not None:
        rows.append(("tokens per battery charge", charge, format_number, "warm where known"))
        if speed is not None:
            hours = charge.through(lambda tokens: tokens / speed.mid / 3600)
            rows.append(("hours of writing per charge", hours, format_number, ""))
    return rows


def _cost(price: str | None, energy: "Energy | None") -> "list[Row]":
    """What a million tokens cost in electricity, beside what they cost elsewhere."""
    if price is None:
        return []
    kwh, *elsewhere = (_typed(part, Annotated[float, Meta(gt=0, le=1e6)], "--price") for part in price.split(",", 1))
    joules = energy and (energy.sustained_joules_per_token or energy.joules_per_token)
    beside = f"; {elsewhere[0]:g} elsewhere" if elsewhere else ""
    cost = joules.through(lambda each: each * kwh / 3.6) if joules else None
    return [("electricity of a million tokens", cost, format_number, f"at {kwh:g} a kWh{beside}")]


def _exact(value: float) -> "Interval":
    from harness.domain.prediction import Interval

    return Interval(value, value, value)


def _intervals(rows: "Sequence[Row]") -> Table:
    """Quantities with their intervals, each in its own form."""
    cells = [
        (name, form(value.mid), f"{form(value.low)} to {form(value.high)}" if value.low < value.high else "", why)
        if value is not None
        else (name, "not known", "", why)
        for name, value, form, why in rows
    ]
    return table("", ("", "expected", "90 %", "by"), cells)


def _advice_table(changes: "list[Advice]") -> Table:
    def quality(growth: float | None) -> str:
        return "not published" if growth is None else f"{growth:+.1f} %" if growth else "none"

    rows = [
        (
            str(number),
            advice.change,
            advice.word,
            advice.how,
            format_bytes(advice.needed_bytes),
            format_number(advice.decode_tokens_per_s),
            f"{advice.speed_ratio:.2f}x" if advice.speed_ratio else "",
            quality(advice.quality_percent),
        )
        for number, advice in enumerate(changes, 1)
    ]
    columns = ("", "what would help", "then", "how", "needs", "tokens/s", "speed", "perplexity")
    return table("", columns, rows, spare=("speed", "needs"))
