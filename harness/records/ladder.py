"""A quantisation ladder from its records: rungs, which of them no other beats, and a line on each."""

from collections.abc import Sequence
from math import exp, isfinite
from statistics import median

import msgspec

from harness.domain.base import Frozen
from harness.domain.quality import CalibrationChange, TextScore
from harness.domain.record import Phase, RunRecord
from harness.domain.result import Quality


class Rung(Frozen, frozen=True, kw_only=True):
    """One quantisation of the model.

    Attributes:
        size_bytes: File size; 0 when it could not be made.
        peak_memory_bytes: Peak PSS of the process that ran it.
        speed_outcome: ``ok``; ``inconclusive`` when the machine was disturbed all along (the speeds then are no
            numbers to believe); another word with its reason when it did not run; empty when not asked.
        quality: On the text; None when not measured.
        calibration: Each token's confidence beside the reference's, paired; None when not measured.
        requantized_from: Quantisation of the source when that was no F32, F16 or BF16; quality then includes its loss.
        on_frontier: No other rung is smaller, faster and better at once.
        outcome: ``ok``, or why there is nothing.
    """

    quant: str
    outcome: str = "ok"
    size_bytes: int = 0
    bits_per_weight: float = 0.0
    types: dict[str, float] = {}
    decode_tokens_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    peak_memory_bytes: int | None = None
    speed_outcome: str = ""
    quality: TextScore | None = None
    calibration: CalibrationChange | None = None
    requantized_from: str = ""
    importance: bool = False
    on_frontier: bool = False


class Reference(Frozen, frozen=True, kw_only=True):
    """The reference's own figures on the text.

    Attributes:
        nll: Mean negative log-likelihood, nats.
        accuracy: Share of tokens that were the most likely one.
        ece: Expected calibration error of the most likely token, ten bins.
    """

    token_count: int
    perplexity: float
    nll: float
    accuracy: float
    ece: float


class Ladder(Frozen, frozen=True, kw_only=True):
    """All rungs of one model; ``reference`` is None when no rung could be compared with it."""

    model: str
    source_quant: str
    reference_quant: str
    text: str
    chunk_count: int = 0
    reference: Reference | None = None
    rungs: tuple[Rung, ...]


def rung_of(scored: RunRecord, timed: RunRecord | None = None) -> Rung:
    """One rung from the record of its quality, and that of its speed where that was measured.

    A speed is the median of the clean samples, or of the disturbed ones where there are no others; ``speed_outcome``
    then says that it is no number to believe.
    """
    quality, model = scored.result, scored.model
    if not isinstance(quality, Quality) or model is None:
        return Rung(quant=scored.quant, outcome=f"{scored.outcome}: {scored.detail.partition(chr(10))[0]}")
    rung = Rung(
        quant=scored.quant,
        size_bytes=model.size_bytes,
        bits_per_weight=quality.bits_per_weight,
        types=quality.types,
        quality=quality.score,
        calibration=quality.calibration,
        requantized_from=model.requantized_from,
        importance=quality.importance,
    )
    if timed is None:
        return rung
    first_line = timed.detail.partition("\n")[0]
    memory = timed.memory
    return msgspec.structs.replace(
        rung,
        speed_outcome=timed.outcome if timed.outcome in {"ok", "inconclusive"} else f"{timed.outcome}: {first_line}",
        decode_tokens_per_s=_rate(timed, "decode"),
        prefill_tokens_per_s=_rate(timed, "prefill"),
        peak_memory_bytes=(memory.peak_pss_bytes or memory.peak_rss_bytes) if memory else None,
    )


def _rate(record: RunRecord, phase: Phase) -> float | None:
    samples = record.believed(phase) or [s for s in record.samples if s.phase == phase and not s.warm_up]
    return median(s.token_count / s.duration_s for s in samples) if samples else None


def rungs_of(records: Sequence[RunRecord]) -> list[Rung]:
    """Every rung among some records: a quality each, with the newest speed that was measured on the same file."""
    timed = {r.model.sha256: r for r in records if r.workload == "generate" and r.model and r.model.sha256}
    scored = [r for r in records if r.workload == "quality"]
    return list(mark_frontier([rung_of(r, timed.get(r.model.sha256) if r.model else None) for r in scored]))


def reference_of(rungs: Sequence[Rung]) -> Reference | None:
    """The reference's figures: those of any rung less its difference to the reference."""
    for rung in rungs:
        if (c := rung.calibration) is not None:
            nll = c.nll - c.nll_change.value
            return Reference(
                token_count=c.row_count,
                perplexity=exp(nll),
                nll=nll,
                accuracy=c.accuracy - c.accuracy_change.value,
                ece=c.ece - c.ece_change.value,
            )
    return None


def divergence(rung: Rung) -> float:
    """KL divergence to the reference, nats; infinite where it was not measured or is no number."""
    kl = rung.quality.kl_divergence if rung.quality else None
    return kl if kl is not None and isfinite(kl) else float("inf")


def mark_frontier(rungs: Sequence[Rung]) -> tuple[Rung, ...]:
    """Mark the rungs that no other one beats in size, speed and divergence at once (Pareto).

    A disturbed speed is used where there is no other: leaving it out would make its rung look slow.
    """

    def cost(rung: Rung) -> tuple[float, float, float]:
        return rung.size_bytes, -(rung.decode_tokens_per_s or 0.0), divergence(rung)

    costs = {cost(r) for r in rungs if r.outcome == "ok"}

    def beaten(rung: Rung) -> bool:
        mine = cost(rung)
        return any(other != mine and all(a <= b for a, b in zip(other, mine, strict=True)) for other in costs)

    return tuple(msgspec.structs.replace(r, on_frontier=r.outcome == "ok" and not beaten(r)) for r in rungs)


def describe(rung: Rung) -> str:
    """One line on a rung."""
    if rung.outcome != "ok":
        return rung.outcome
    parts = [f"{rung.bits_per_weight:.2f} bits"]
    if rung.decode_tokens_per_s:
        parts.append(f"{rung.decode_tokens_per_s:.1f} tokens/s")
    if rung.speed_outcome not in {"", "ok"}:
        parts.append(f"speed {rung.speed_outcome}")
    if rung.quality is not None:
        parts.append(f"perplexity {rung.quality.perplexity:.4f}")
        if rung.quality.kl_divergence is not None:
            parts.append(f"KL {rung.quality.kl_divergence:.4f}")
    if rung.calibration is not None:
        change = rung.calibration.nll_change
        parts.append(f"NLL {change.value:+.4f} [{change.low:+.4f}, {change.high:+.4f}]")
    return ", ".join(parts)
