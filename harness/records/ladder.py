"""A quantisation ladder from its records: each rung is the quality of one file beside its speed."""

from collections.abc import Sequence
from math import isfinite
from typing import Final

from harness.core.base import Frozen
from harness.core.quality import QualityChange
from harness.core.record import Record
from harness.core.result import Quality
from harness.records.compare import rows_of
from harness.records.derive import setting_of

COLUMNS: Final = (
    *("quant", "MB", "bits", "mostly", "tg/s", "pp/s", "peak MB", "perplexity", "KL, nats", "same top"),
    *("frontier", "NLL change, 95 %", "ECE change, 95 %", "flips: lost + gained"),
)
"""Headings of the cells of a rung."""
_RAN: Final = ("ok", "inconclusive")


class Rung(Frozen):
    """One quantisation of a model.

    Attributes:
        outcome: ``ok``, or why the file could not be made or scored.
        size_bytes: File size; 0 when it could not be made.
        requantized_from: Quantisation of the source when that was no F32, F16 or BF16; quality then includes
            its loss.
        quality: On the text, by llama.cpp; None when not measured.
        speed_outcome: ``ok``; ``inconclusive`` when the machine was disturbed throughout (the speeds are then
            not to be believed); another word with its reason when it did not run; empty when no speed was
            asked for.
        peak_memory_bytes: Peak resident size of the process that ran it.
        on_frontier: No other rung is smaller, faster and closer to the reference at once.
    """

    model: str
    quant: str
    outcome: str = "ok"
    size_bytes: int = 0
    requantized_from: str = ""
    quality: Quality | None = None
    speed_outcome: str = ""
    decode_tokens_per_s: float | None = None
    prefill_tokens_per_s: float | None = None
    peak_memory_bytes: int | None = None
    on_frontier: bool = False

    @property
    def divergence(self) -> float:
        """KL divergence to the reference, nats; infinite where it was not measured or is not a number."""
        score = None
        if self.quality:
            score = self.quality.score
        if score is None or score.kl_divergence is None or not isfinite(score.kl_divergence):
            return float("inf")
        return score.kl_divergence

    @property
    def cost(self) -> tuple[float, float, float]:
        """Size, slowness and divergence, each the better the smaller.

        A disturbed speed counts where the rung has no other.
        """
        return self.size_bytes, -(self.decode_tokens_per_s or 0.0), self.divergence


def rungs_of(records: Sequence[Record]) -> list[Rung]:
    """Every rung among some records: each quality with the newest speed of its file by llama.cpp.

    So that rungs can be compared, all speeds of a model are of one machine and scenario: those in which most
    of its files ran, of several the newest. A run that broke off stands only where none ended.
    """
    scored = [r for r in records if r.workload == "quality"]
    models = {r.model.sha256: r.model.name for r in scored if r.model and r.model.sha256}
    groups: dict[tuple[str, ...], dict[str, Record]] = {}
    for record in records:
        if record.workload != "generate" or record.runtime not in {"", "llamacpp"}:
            continue
        if record.model and record.model.sha256 in models:
            file = record.model.sha256
            key = (models[file], *setting_of(record)[2:])
            groups[key] = runs = groups.pop(key, {})  # the newest last
            if record.outcome in _RAN or runs.get(file, record).outcome not in _RAN:
                runs[file] = record
    best: dict[str, dict[str, Record]] = {}
    for (name, *_), runs in groups.items():
        if len(runs) >= len(best.get(name, {})):
            best[name] = runs
    return mark_frontier(
        [_rung(r, best.get(r.name, {}).get(r.model.sha256 if r.model else "")) for r in scored]
    )


def mark_frontier(rungs: Sequence[Rung]) -> list[Rung]:
    """Mark the rungs that no other of the same model beats in size, speed and divergence at once (Pareto).

    A rung whose divergence is unknown may be anywhere, so it is not marked.
    """
    made = [rung for rung in rungs if rung.outcome == "ok" and isfinite(rung.divergence)]
    marked = []
    for rung in rungs:
        is_best = rung in made
        for other in made:
            if other.model == rung.model and other.cost != rung.cost:
                better = (theirs <= own for theirs, own in zip(other.cost, rung.cost, strict=True))
                is_best = is_best and not all(better)
        marked.append(rung.replace(on_frontier=is_best))
    return marked


def _rung(scored: Record, timed: Record | None) -> Rung:
    quality = scored.result
    model = scored.model
    if not isinstance(quality, Quality) or model is None:
        return Rung(model=scored.name, quant=scored.quant, outcome=f"{scored.outcome}: {_first_line(scored)}")
    rung = Rung(
        model=model.name,
        quant=scored.quant,
        size_bytes=model.size_bytes,
        requantized_from=model.requantized_from,
        quality=quality,
    )
    if timed is None:
        return rung
    speeds = {row.name: row.measured for row in rows_of(timed)}
    return rung.replace(
        speed_outcome=timed.outcome if timed.outcome in _RAN else _first_line(timed),
        decode_tokens_per_s=speeds["decode"],
        prefill_tokens_per_s=speeds["prefill"],
        peak_memory_bytes=timed.memory.peak_rss_bytes if timed.memory else None,
    )


def _first_line(record: Record) -> str:
    return record.detail.partition("\n")[0]


def cells(rung: Rung) -> tuple[str, ...]:
    """Text under each of the :data:`COLUMNS`; a speed marked ``~`` was measured on a disturbed machine."""
    quality = rung.quality
    if quality is None:
        return (rung.quant, rung.outcome, *[""] * (len(COLUMNS) - 2))
    has_run = rung.speed_outcome in _RAN
    unsure = "~" if rung.speed_outcome == "inconclusive" else ""
    speed = _number(rung.decode_tokens_per_s, ".1f", unsure)
    score = quality.score
    change = quality.calibration
    main = next(iter(quality.types.items()), None)
    return (
        rung.quant,
        f"{rung.size_bytes / 1e6:.0f}",
        f"{quality.bits_per_weight:.2f}",
        f"{main[0]} {main[1]:.0%}" if main else "",
        speed if has_run else rung.speed_outcome,
        _number(rung.prefill_tokens_per_s, ".0f", unsure),
        _number((rung.peak_memory_bytes or 0) / 1e6 or None, ".0f"),
        f"{score.perplexity:.4f} ± {score.perplexity_error:.3f}",
        _number(score.kl_divergence, ".4f") + _number(score.kl_divergence_error, ".4f", " ± "),
        _number(score.top1_agreement_ratio, ".3f"),
        "yes" if rung.on_frontier else "",
        _change(change.nll_change),
        _change(change.ece_change),
        f"{change.lost_count + change.gained_count}: {change.lost_count} + {change.gained_count}",
    )


def _number(value: float | None, form: str, before: str = "") -> str:
    if value is None:
        return ""
    return before + format(value, form)


def _change(change: QualityChange) -> str:
    clear = "*"
    if change.low <= 0 <= change.high:
        clear = ""
    return f"{clear}{change.value:+.4f} [{change.low:+.4f}, {change.high:+.4f}]"


def caveats(rungs: Sequence[Rung]) -> list[str]:
    """What to keep in mind when reading the cells: from what a quantized source was made anew."""
    sources = sorted({rung.requantized_from for rung in rungs} - {""})
    return [
        f"Requantized from {source}: the loss of that first step is in no figure here." for source in sources
    ]
