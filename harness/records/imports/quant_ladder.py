"""What ``edge-harness ladder --json`` prints: a record for each rung that could be made."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from msgspec.structs import replace

from harness.domain.record import MemoryUse, RunRecord
from harness.errors import BadDataError
from harness.records.imports._make import count, file_time, number, record, sample, text

_DECODED, _PROMPTED = 64, 512
_SHOWN = ("bits_per_weight", "requantized_from", "importance", "on_frontier")
_QUALITY = (
    *("token_count", "perplexity", "perplexity_error", "kl_divergence", "kl_divergence_error"),
    *("top1_agreement_ratio", "top1_agreement_error", "calibration_error"),
)


def recognises(document: Any) -> bool:
    """Whether it is one."""
    return isinstance(document, dict) and isinstance(document.get("ladder"), dict) and "rungs" in document["ladder"]


def from_document(document: Mapping[str, Any], source: Path | str) -> list[RunRecord]:
    """One record a rung; quality and place on the frontier are in its ``extra``.

    Raises:
        BadDataError: No rung was measured.
    """
    told = document["ladder"]
    model = PurePosixPath(text(told.get("model"), 4000)).name
    made = []
    rungs = told["rungs"] if isinstance(told["rungs"], list) else []
    for rung in rungs[:100]:
        if not isinstance(rung, dict) or rung.get("outcome", "ok") != "ok" or not isinstance(rung.get("quality"), dict):
            continue
        extra: dict[str, Any] = {k: rung.get(k) for k in _SHOWN}
        extra |= {k: number(rung["quality"].get(k)) for k in _QUALITY if rung["quality"].get(k) is not None}
        extra |= {"reference": text(told.get("reference_quant"), 20), "text": text(told.get("text"), 200)}
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
            name=model,
            quant=text(rung.get("quant"), 20),
            size_bytes=count(rung.get("size_bytes")),
            extra={"ladder": extra},
        )
        if not samples:
            run = replace(run, samples=())
        if rung.get("peak_memory_bytes"):
            peak = count(rung["peak_memory_bytes"])
            run = replace(run, memory=MemoryUse(peak_rss_bytes=peak, peak_pss_bytes=peak))
        made.append(run)
    if not made:
        raise BadDataError(str(source), "ladder.rungs", "no rung with a quality", "a ladder that was measured")
    return made
