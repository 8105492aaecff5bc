"""What ``edge-harness ladder --json`` prints: a record for each rung, also for those that could not be made."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from msgspec.structs import replace

from harness.domain.record import MemoryUse, RunRecord, Validity
from harness.errors import BadDataError
from harness.records.imports._make import count, file_time, number, record, sample, signed, text

_DECODED, _PROMPTED = 64, 512
_SHOWN = ("requantized_from", "importance", "on_frontier")
_QUALITY = (
    *("token_count", "perplexity", "perplexity_error", "kl_divergence", "kl_divergence_error"),
    *("top1_agreement_ratio", "top1_agreement_error", "calibration_error"),
)
_RUNGS_MAX: Final = 100
_DISTURBED: Final = "the machine was disturbed all along"


def recognises(document: Any) -> bool:
    """Whether it is one."""
    return isinstance(document, dict) and isinstance(document.get("ladder"), dict) and "rungs" in document["ladder"]


def from_document(document: Mapping[str, Any], source: Path | str) -> list[RunRecord]:
    """One record a rung; quality, calibration, place on the frontier and who should take it are in its ``extra``.

    Raises:
        BadDataError: No rung was measured.
    """
    told = document["ladder"]
    takers = _takers(document.get("recommended"))
    found = told["rungs"] if isinstance(told["rungs"], list) else []
    rungs = [rung for rung in found[:_RUNGS_MAX] if isinstance(rung, dict)]
    made = [_record(rung, told, takers, source) for rung in rungs]
    if all(run.outcome == "failed" for run in made):
        raise BadDataError(str(source), "ladder.rungs", "no rung with a quality", "a ladder that was measured")
    return made


def _record(
    rung: Mapping[str, Any], told: Mapping[str, Any], takers: Mapping[str, list[str]], source: Path | str
) -> RunRecord:
    name, quant = PurePosixPath(text(told.get("model"), 4000)).name, text(rung.get("quant"), 20)
    quality = rung.get("quality")
    why = text(rung.get("outcome", "ok"), 500) or "no outcome"
    is_made = why == "ok" and isinstance(quality, dict)
    extra: dict[str, Any] = {}
    samples = []
    if isinstance(quality, dict) and is_made:
        extra = {k: rung.get(k) for k in _SHOWN if isinstance(rung.get(k), str | bool)}
        extra |= {"bits_per_weight": number(rung.get("bits_per_weight")), "mostly": _mostly(rung.get("types"))}
        extra |= {k: number(quality.get(k)) for k in _QUALITY if quality.get(k) is not None}
        extra |= {"calibration": _calibration(rung.get("calibration"))}
        extra |= {"reference": text(told.get("reference_quant"), 20), "text": text(told.get("text"), 200)}
        extra |= {"recommended_for": takers.get(quant, []), "no_rung_for": takers.get("", [])}
        speeds = (("decode", f"tg{_DECODED}", _DECODED), ("prefill", f"pp{_PROMPTED}", _PROMPTED))
        samples = [
            sample("decode" if phase == "decode" else "prefill", label, tokens, tokens / rate)
            for phase, label, tokens in speeds
            if (rate := number(rung.get(f"{phase}_tokens_per_s")))
        ]
    run = record(
        source,
        tool="ladder",
        created=file_time(source),
        samples=samples or [sample("load", "not measured", 1, 0.0)],
        name=name,
        quant=quant,
        size_bytes=count(rung.get("size_bytes")),
        extra={"ladder": extra} if extra else None,
    )
    speed = text(rung.get("speed_outcome"), 500)
    if not is_made:
        return replace(run, samples=(), outcome="failed", detail=why if why != "ok" else "no quality was measured")
    if not samples:
        run = replace(run, samples=())
    if speed == "inconclusive":
        doubt = Validity(doubts=(_DISTURBED,))
        run = replace(
            run,
            outcome="inconclusive",
            detail=_DISTURBED,
            samples=tuple(replace(s, validity=doubt) for s in run.samples),
        )
    elif speed not in {"", "ok"}:
        run = replace(run, detail=f"speed: {speed}")
    if rung.get("peak_memory_bytes"):
        peak = count(rung["peak_memory_bytes"])
        run = replace(run, memory=MemoryUse(peak_rss_bytes=peak, peak_pss_bytes=peak))
    return run


def _takers(recommended: Any) -> dict[str, list[str]]:
    """Devices by the rung they should take; those that none fits stand under the empty name."""
    takers: dict[str, list[str]] = {}
    for device, quant in recommended.items() if isinstance(recommended, dict) else ():
        takers.setdefault(text(quant, 20), []).append(text(device, 60))
    return takers


def _mostly(types: Any) -> str:
    """The type that most weights have, with its share."""
    shares = {t: number(s) for t, s in types.items() if isinstance(t, str)} if isinstance(types, dict) else {}
    if not shares:
        return ""
    name = max(shares, key=lambda t: shares[t])
    return f"{name[:20]} {shares[name]:.0%}"


def _calibration(told: Any) -> dict[str, float]:
    """Changes with their intervals as plain numbers."""
    if not isinstance(told, dict):
        return {}
    found: dict[str, float | None] = {k: signed(told.get(k)) for k in ("nll", "ece", "accuracy")}
    for name in ("nll_change", "ece_change", "accuracy_change"):
        change = told.get(name)
        if isinstance(change, dict):
            found |= {name: signed(change.get("value"))}
            found |= {f"{name}_{end}": signed(change.get(end)) for end in ("low", "high")}
    lost, gained = (signed(told.get(k)) for k in ("lost_count", "gained_count"))
    if lost is not None and gained is not None:
        found |= {"flip_count": lost + gained, "lost_count": lost, "gained_count": gained}
    return {name: value for name, value in found.items() if value is not None}
