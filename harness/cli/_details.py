"""The tables behind an answer: memory part by part, all speeds, other ways to run it, what would help."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from harness.cli._output import table
from harness.units import format_bytes, format_number, format_seconds

if TYPE_CHECKING:
    from harness.app.answer import Answer
    from harness.app.explain import ExplanationTable
    from harness.app.plans import SpeculationPlan
    from harness.domain.prediction import Interval

    Row = tuple[str, Interval | None, Callable[[float], str], str]


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
    limit = f"{now.verdict.word}; limited by {now.verdict.binding_limit.value}"
    others = [f"Also: {line}" for line in answer.commands[1:]]
    if answer.commands and answer.commands[0].startswith("llama-server"):
        flags = ["Its placement is told, so that llama-server's own --fit changes nothing."]
    else:
        flags = []
    yield "\n".join([limit, *now.verdict.reasons, *now.speed.unsettled, *answer.notes, *flags, *others])


def explained(part: "ExplanationTable") -> str:
    """One part of what an answer rests on."""

    def words(cell: str | float | None) -> str:
        if cell is None:
            return ""
        if isinstance(cell, str):
            return cell
        return format_number(cell)

    return table(part.title, part.columns, [map(words, row) for row in part.rows])


def _memory(answer: "Answer") -> str:
    now = answer.prediction
    rows: list[tuple[str, str, str, str, str]] = [
        (
            part.label,
            part.pool,
            format_bytes(part.anonymous_bytes),
            format_bytes(part.file_bytes),
            part.reason,
        )
        for part in now.memory.parts
        if part.size_bytes
    ]
    peak = now.memory.peak_bytes
    between = f"held and mapped together, likely {format_bytes(peak.low)} to {format_bytes(peak.high)}"
    rows.append(
        ("in all", "", format_bytes(now.memory.anonymous_bytes), format_bytes(now.memory.file_bytes), between)
    )
    rows += [
        (part.label, part.pool, format_bytes(part.anonymous_bytes), "", f"later, at most: {part.reason}")
        for part in now.memory.later
    ]
    return table("memory", ("part", "pool", "held", "mapped", "why"), rows)


def _speeds(answer: "Answer") -> str:
    rows: list[Row] = [*_of_request(answer), *_over_minutes(answer)]
    cells = []
    for name, value, form, why in rows:
        if value is None:
            cells.append((name, "not known", "", why))
            continue
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
    if not answer.best.kind.is_read:
        top = speed.roofline_tokens_per_s
        users = answer.scenario.batch_count
        each = "token"
        if users > 1:
            each = f"pass of {users} tokens"
        share = 100 * speed.decode_tokens_per_s.mid / top
        why = f"the ceiling: it reads {format_bytes(speed.active_bytes)} a {each}"
        yield (
            f"most that memory allows ({share:.0f} % is reached)",
            type(speed.ttft_warm_s)(top, top, top),
            format_number,
            why,
        )
    for reading in answer.reading:
        article = "an" if reading.kind == "image" else "a"
        yield (
            f"reading {article} {reading.kind.value} ({reading.tokens:,} tokens)",
            reading.seconds,
            format_seconds,
            "",
        )


def _over_minutes(answer: "Answer") -> "Iterator[Row]":
    late = answer.sustained
    energy = answer.energy
    if answer.scenario.batch_count > 1 or answer.reads_only:
        return
    if late is None:
        yield (
            "decode after 10 minutes, tokens/s",
            None,
            format_number,
            "nobody measured how much heat it can shed",
        )
    else:
        yield (
            f"decode after {late.minutes:g} minutes, tokens/s",
            late.tokens_per_s,
            format_number,
            late.evidence,
        )
    if energy is None:
        yield "energy of a token, J", None, format_number, "nobody stated its power"
        return
    yield "energy of a token, J", energy.joules_per_token, format_number, energy.scope
    if energy.sustained_joules_per_token is not None:
        yield (
            "energy of a token once warm, J",
            energy.sustained_joules_per_token,
            format_number,
            energy.evidence,
        )
    if energy.tokens_per_charge is not None:
        why = "counting the slowdown from heat, where it is known"
        yield "tokens on one charge", energy.tokens_per_charge, format_number, why


def _ways(answer: "Answer") -> str:
    from harness.report.answer import way_words

    rows = []
    for way in answer.ways:
        decode = way.prediction.speed.decode_tokens_per_s
        words = way_words(way, answer.layer_count, answer.card_titles) or "all in one place"
        between = f"{format_number(decode.low)} to {format_number(decode.high)}"
        rows.append((words, format_number(decode.mid), between))
    return table("", ("ways to run it", "tokens/s", "likely"), rows)


def _advice(answer: "Answer") -> str:
    def quality(growth: float | None) -> str:
        if growth is None:
            return "not published"
        if growth:
            return f"{growth:+.1f} %"
        return "none"

    rows = [
        (
            advice.change,
            advice.word,
            format_bytes(advice.needed_bytes),
            format_number(advice.decode_tokens_per_s),
            quality(advice.quality_percent),
        )
        for advice in answer.advice
    ]
    return table("", ("what would help", "then", "needs", "tokens/s", "perplexity"), rows, spare=("needs",))


def _drafting(plan: "SpeculationPlan") -> tuple[str, str]:
    source = "typical for this API"
    if plan.measured:
        source = "as measured on this machine"
    costs = ", ".join(f"{cost:.2f}" for cost in plan.verify_cost_ratio[:4])
    rows = []
    for case in plan.cases:
        length = "no draft"
        if case.gamma:
            length = str(case.gamma)
        gain = ""
        if case.gamma:
            gain = f"{case.speedup:.2f}x"
        speed = format_number(plan.plain_tokens_per_s * case.speedup)
        rows.append((f"{case.acceptance_ratio:.2g}", length, gain, speed))
    says = (
        f"Drafting with {plan.drafter}: {format_number(plan.plain_tokens_per_s)} tokens/s without it. A "
        f"drafted token costs {plan.draft_cost_ratio:.2f} of a decoded one; checking 2, 3, 4 or 5 tokens in one pass "
        f"costs {costs} ({source})."
    )
    return says, table("", ("acceptance", "draft length", "speedup", "tokens/s"), rows)
