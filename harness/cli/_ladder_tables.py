"""The tables of a ladder on the terminal."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.cli._output import table
from harness.units import format_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from harness.app.ladder_advice import RungAdvice
    from harness.domain.quality import Change
    from harness.records.ladder import Ladder, Rung


def ladder_tables(result: "Ladder", advice: "Sequence[RungAdvice]") -> "Iterator[Table | str]":
    """Size, speed and quality; what happened to calibration; what each device takes; what to keep in mind."""
    title = f"{result.model} (source {result.source_quant}, compared with {result.reference_quant})"
    names: tuple[str, ...] = (
        "quant",
        "MB",
        "bits",
        "mostly",
        "tg/s",
        "pp/s",
        "peak MB",
        "perplexity",
        "KL",
        "same top",
        "",
    )
    yield table(title, names, [_size(r) for r in result.rungs], right=(1, 2, 4, 5, 6, 7, 8, 9))
    told = [r for r in result.rungs if r.calibration]
    if told:
        base = result.reference
        title = f"Calibration beside {result.reference_quant}, the same tokens"
        if base:
            title += f" ({base.token_count}; NLL {base.nll:.4f}, ECE {base.ece:.4f}, right {base.accuracy:.3f})"
        names = ("quant", "NLL change, 95 %", "flips", "lost", "gained", "ECE", "ECE change, 95 %")
        yield table(title, names, [_calibration(r) for r in told], right=(1, 2, 3, 4, 5, 6))
    if advice:
        names = ("device", "takes", "KL", "tokens/s there", "memory there", "")
        yield table("Which rung each device should take", names, [_advice(a) for a in advice], right=(2, 3, 4))
    yield from _notes(result)


def _notes(result: "Ladder") -> Iterator[str]:
    if any(r.requantized_from for r in result.rungs):
        yield (
            f"Requantized from {result.source_quant}: the loss of that first step is in no figure here, and "
            f"{result.reference_quant} is as good as {result.source_quant}, no better."
        )
    renamed = [r.quant for r in result.rungs if r.types and not _is_named_after_its_types(r)]
    if renamed:
        yield (
            f"{', '.join(renamed)}: most weights are of a wider type (see mostly), since this model's rows are no "
            "multiple of 256."
        )
    disturbed = [r.quant for r in result.rungs if r.speed_outcome == "inconclusive"]
    if disturbed:
        yield f"~ {', '.join(disturbed)}: the machine was disturbed all along; no speed to believe."


def _is_named_after_its_types(rung: "Rung") -> bool:
    """Whether most weights are of the family the mixture is named after: ``Q4`` of Q4_K_M, ``IQ4`` of IQ4_XS."""
    return next(iter(rung.types)).partition("_")[0] == rung.quant.partition("_")[0]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _size(rung: "Rung") -> tuple[str, ...]:
    if rung.outcome != "ok":
        return (rung.quant, *[""] * 9, rung.outcome)
    q = rung.quality
    main = next(iter(rung.types.items()), None)
    unsure = "~" if rung.speed_outcome == "inconclusive" else ""
    failed = rung.speed_outcome if rung.speed_outcome not in {"", "ok", "inconclusive"} else ""
    return (
        rung.quant,
        f"{rung.size_bytes / 1e6:.0f}",
        f"{rung.bits_per_weight:.2f}",
        f"{main[0]} {main[1]:.0%}" if main else "",
        unsure + _number(rung.decode_tokens_per_s, ".1f"),
        unsure + _number(rung.prefill_tokens_per_s, ".0f"),
        _number((rung.peak_memory_bytes or 0) / 1e6 or None, ".0f"),
        f"{q.perplexity:.4f} ± {q.perplexity_error:.3f}" if q else "",
        f"{_number(q.kl_divergence, '.4f')} ± {_number(q.kl_divergence_error, '.4f')}" if q else "",
        _number(q.top1_agreement_ratio, ".3f") if q else "",
        failed or ("frontier" if rung.on_frontier else ""),
    )


def _calibration(rung: "Rung") -> tuple[str, ...]:
    c = rung.calibration
    assert c is not None
    flips, ece = str(c.lost_count + c.gained_count), f"{c.ece:.4f}"
    return rung.quant, _change(c.nll_change), flips, str(c.lost_count), str(c.gained_count), ece, _change(c.ece_change)


def _change(found: "Change") -> str:
    clear = "" if found.low <= 0 <= found.high else "*"
    return f"{clear}{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _advice(advice: "RungAdvice") -> tuple[str, ...]:
    if not advice.quant:
        return advice.device, "no rung fits", "", "", "", ""
    speed, peak = advice.decode_tokens_per_s, advice.peak_bytes
    return (
        advice.device,
        advice.quant,
        _number(advice.kl_divergence, ".4f"),
        f"{speed.mid:.1f} [{speed.low:.1f}, {speed.high:.1f}]" if speed else "",
        format_bytes(peak.mid) if peak else "",
        "" if advice.is_faithful else "no rung within 0.1 nats fits: the closest one",
    )
