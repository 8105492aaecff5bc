"""The tables behind an answer: memory part by part, all speeds, other ways to run it, what would help."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from harness.core.units import format_bytes, format_number, format_seconds
from harness.show.output import table

if TYPE_CHECKING:
    from harness.answer.answer import Answer
    from harness.answer.nearest import Neighbour
    from harness.answer.plans import SpeculationPlan
    from harness.core.prediction import Interval

    Row = tuple[str, Interval, Callable[[float], str], str]


def tables(answer: "Answer") -> Iterator[str]:
    """All of them, each where it has something to say."""
    yield _memory(answer)
    yield _speeds(answer)
    if len(answer.ways) > 1:
        yield _ways(answer)
    if answer.advice:
        yield _advice(answer)
    if answer.speculation is not None:
        yield from _drafting(answer.speculation)
    now = answer.prediction
    flags = ""
    if answer.commands and answer.commands[0].startswith("llama-server"):
        flags = "Its placement is told, so that llama-server's own --fit changes nothing."
    lines = [f"{now.verdict.word}; limited by {now.verdict.binding_limit.value}", *now.verdict.reasons]
    lines += [*now.speed.unsettled, *answer.notes, flags, *(f"Also: {line}" for line in answer.commands[1:])]
    yield "\n".join(filter(None, lines))


def nearest(rows: "Sequence[Neighbour]") -> str:
    """Published measurements, with what is predicted of them, tokens/s."""
    cells = []
    for row in rows:
        error = 100 * (row.predicted_tokens_per_s / row.measured_tokens_per_s - 1)
        speeds = map(format_number, (row.measured_tokens_per_s, row.predicted_tokens_per_s, error))
        cells.append((row.phase, row.chip, row.model, row.quant, row.test, row.api, *speeds, row.source))
    columns = ("", "chip", "model", "quant", "test", "api", "measured", "predicted", "% error", "source")
    return table("nearest published measurements, tokens/s", columns, cells)


def _memory(answer: "Answer") -> str:
    memory = answer.prediction.memory
    rows: list[tuple[str, ...]] = []
    for part in memory.parts:
        if part.size_bytes:
            sizes = format_bytes(part.anonymous_bytes), format_bytes(part.file_bytes)
            rows.append((part.label, part.pool, *sizes, part.reason))
    peak = memory.peak_bytes
    between = f"held and mapped together, likely {format_bytes(peak.low)} to {format_bytes(peak.high)}"
    rows.append(
        ("in all", "", format_bytes(memory.anonymous_bytes), format_bytes(memory.file_bytes), between)
    )
    for part in memory.later:
        held = format_bytes(part.anonymous_bytes)
        rows.append((part.label, part.pool, held, "", f"later, at most: {part.reason}"))
    return table("memory", ("part", "pool", "held", "mapped", "why"), rows)


def _speeds(answer: "Answer") -> str:
    cells = []
    for name, value, form, why in [*_of_request(answer), *_over_minutes(answer)]:
        between = ""
        if value.low < value.high:
            between = f"{form(value.low)} to {form(value.high)}"
        cells.append((name, form(value.mid), between, why))
    return table("", ("", "expected", "likely", "by"), cells)


def _of_request(answer: "Answer") -> "Iterator[Row]":
    speed = answer.prediction.speed
    if not answer.reads_only:
        yield "decode, tokens/s", speed.decode_tokens_per_s, format_number, ""
        for one in answer.by_depth:
            yield f"decode after {one.tokens:,} tokens of context", one.decode_tokens_per_s, format_number, ""
    yield "prefill, tokens/s", speed.prefill_tokens_per_s, format_number, ""
    yield "first token, loaded", speed.ttft_warm_s, format_seconds, ""
    yield "first token, from storage", speed.ttft_cold_s, format_seconds, ""
    yield "load, from storage", speed.load_cold_s, format_seconds, ""
    for reading in answer.reading:
        yield (
            f"reading of {reading.kind.value}, {reading.tokens:,} tokens",
            reading.seconds,
            format_seconds,
            "",
        )


def _over_minutes(answer: "Answer") -> "Iterator[Row]":
    late = answer.sustained
    energy = answer.energy
    if answer.scenario.batch_count > 1 or answer.reads_only:
        return
    if late is not None:
        name = f"decode after {late.minutes:g} minutes, tokens/s"
        yield name, late.tokens_per_s, format_number, late.evidence
    if energy is not None:
        yield "energy of a token, J", energy.joules_per_token, format_number, energy.scope
    if energy is not None and energy.sustained_joules_per_token is not None:
        warm = energy.sustained_joules_per_token
        yield "energy of a token once warm, J", warm, format_number, energy.evidence
    if energy is not None and energy.tokens_per_charge is not None:
        yield (
            "tokens on one charge",
            energy.tokens_per_charge,
            format_number,
            "slowed by heat, where it is known",
        )


def _ways(answer: "Answer") -> str:
    from harness.show.first_screen import way_words

    rows = []
    for way in answer.ways:
        decode = way.prediction.speed.decode_tokens_per_s
        words = way_words(way, answer.layer_count, answer.card_titles) or "all in one place"
        between = f"{format_number(decode.low)} to {format_number(decode.high)}"
        rows.append((words, format_number(decode.mid), between))
    return table("", ("ways to run it", "tokens/s", "likely"), rows)


def _advice(answer: "Answer") -> str:
    rows = []
    for advice in answer.advice:
        quality = "not published"
        if advice.quality_percent is not None:
            quality = f"{advice.quality_percent:+.1f} %"
        speed = format_number(advice.decode_tokens_per_s)
        rows.append((advice.change, advice.word, format_bytes(advice.needed_bytes), speed, quality))
    return table("", ("what would help", "then", "needs", "tokens/s", "perplexity"), rows, spare=("needs",))


def _drafting(plan: "SpeculationPlan") -> tuple[str, str]:
    source = "typical for this API"
    if plan.measured:
        source = "as measured on this machine"
    plain = plan.plain_tokens_per_s
    costs = ", ".join(f"{cost:.2f}" for cost in plan.verify_cost_ratio[:4])
    says = (
        f"Drafting with {plan.drafter}: {format_number(plain)} tokens/s without it. A drafted token costs "
        f"{plan.draft_cost_ratio:.2f} of a decoded one; checking 2, 3, 4 or 5 tokens in one pass costs {costs} ({source})."
    )
    rows = []
    for case in plan.cases:
        length = str(case.gamma or "no draft")
        rows.append((f"{case.acceptance_ratio:.2g}", length, format_number(plain * case.speedup)))
    return says, table("", ("acceptance", "draft length", "tokens/s"), rows)
