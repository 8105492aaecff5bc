"""Figures of a quantisation ladder that was run: its frontier, and what each rung did to calibration."""

from collections.abc import Sequence
from functools import partial
from math import isfinite
from typing import Any

from harness.domain.record import RunRecord
from harness.printable import clean
from harness.report import ladder_plots
from harness.report.figure import Figure
from harness.report.plots import Row
from harness.report.svg import both_widths
from harness.report.text import digits

MODELS_MAX = 6
"""Models in one plot: more colours cannot be told apart."""


def ladder_figures(records: Sequence[RunRecord]) -> list[Figure]:
    """What these records hold of ladders: nothing, the frontier, or the frontier and calibration."""
    rungs = [(record, told) for record in records if (told := _told(record)) is not None]
    models = list(dict.fromkeys(record.model.name for record, _ in rungs if record.model))[-MODELS_MAX:]
    rungs = [(record, told) for record, told in rungs if record.model and record.model.name in models]
    return [figure for figure in (_frontier(rungs), _calibration(rungs)) if figure is not None]


def _told(record: RunRecord) -> dict[str, Any] | None:
    told = record.extra.get("ladder")
    if not isinstance(told, dict) or record.model is None or _finite(told.get("kl_divergence")) is None:
        return None
    return told


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def _frontier(rungs: Sequence[tuple[RunRecord, dict[str, Any]]]) -> Figure | None:
    rows: list[Row] = []
    table: list[tuple[str, ...]] = []
    homeless: set[str] = set()
    for record, told in rungs:
        assert record.model is not None
        decode = next((s for s in record.samples if s.phase == "decode"), None)
        rate = decode.token_count / decode.duration_s if decode and decode.duration_s else None
        name, quant, kl = clean(record.model.name, 40), clean(record.model.quant, 20), float(told["kl_divergence"])
        mb, bits = record.model.size_bytes / 1e6, _finite(told.get("bits_per_weight"))
        best = bool(told.get("on_frontier"))
        takers = [clean(str(d), 40) for d in told.get("recommended_for") or () if isinstance(d, str)]
        homeless |= {clean(str(d), 40) for d in told.get("no_rung_for") or () if isinstance(d, str)}
        unsure = "~" if record.outcome == "inconclusive" else ""
        says = f"{name} {quant}: {digits(mb)} MB" + (f", {unsure}{digits(rate)} tokens/s" if rate else "")
        says += f", KL {kl:.4f} nats" + (", on the frontier" if best else "")
        says += f"; for {', '.join(takers[:3])}" + (" …" if takers[3:] else "") if takers else ""
        if mb > 0:
            drawn = max(kl, ladder_plots.LEAST_KL)
            rows.append(
                {"model": name, "quant": quant, "mb": mb, "kl": drawn, "rate": rate, "best": best, "says": says}
            )
        numbers = (_finite(told.get(k)) for k in ("perplexity", "kl_divergence", "top1_agreement_ratio"))
        table.append(
            (
                *(
                    name,
                    quant,
                    f"{digits(mb)} MB",
                    f"{bits:.2f}" if bits else "–",
                    clean(str(told.get("mostly") or "–")),
                ),
                unsure + digits(rate) if rate else "–",
                *(f"{v:.4f}" if v is not None else "–" for v in numbers),
                *("yes" if best else "", ", ".join(takers)),
            )
        )
    if not rows:
        return None
    homeless_words = f" No rung fits {', '.join(sorted(homeless))}." if homeless else ""
    return Figure(
        "ladder-frontier",
        "The quantisation ladder, measured",
        "Down is closer to the least quantized reference. A filled mark: no other rung is smaller, faster and closer "
        "at once; the line joins those that none beats in that plot alone. KL below 0.0001 nats is drawn there."
        + homeless_words,
        both_widths(
            partial(ladder_plots.frontiers, rows), "ladder", "Divergence from the reference over size and speed"
        ),
        (
            *("model", "mixture", "file", "bits", "mostly", "decode, tokens/s", "perplexity", "KL, nats"),
            *("same top token", "frontier", "to be taken by"),
        ),
        tuple(table),
    )


def _calibration(rungs: Sequence[tuple[RunRecord, dict[str, Any]]]) -> Figure | None:
    rows: list[Row] = []
    table: list[tuple[str, ...]] = []
    for record, told in rungs:
        assert record.model is not None
        found = told.get("calibration")
        if not isinstance(found, dict):
            continue
        keys = ("nll_change", "nll_change_low", "nll_change_high", "ece_change", "ece_change_low", "ece_change_high")
        values = [v for k in keys if (v := _finite(found.get(k))) is not None]
        if len(values) < len(keys):
            continue
        nll, nll_low, nll_high, ece_change, ece_low, ece_high = values
        name, quant = clean(record.model.name, 40), clean(record.model.quant, 20)
        flips, ece = _finite(found.get("flip_count")), _finite(found.get("ece"))
        says = f"{name} {quant}: NLL {nll:+.4f} [{nll_low:+.4f}, {nll_high:+.4f}], ECE {ece_change:+.4f} "
        says += f"[{ece_low:+.4f}, {ece_high:+.4f}]" + (f", {flips:.0f} flips" if flips is not None else "")
        rows.append(
            {
                **{"model": name, "quant": quant, "says": says, "nll": nll, "nll_low": nll_low, "nll_high": nll_high},
                **{"ece": ece_change, "ece_low": ece_low, "ece_high": ece_high},
            }
        )
        counts = (_finite(found.get(k)) for k in ("flip_count", "lost_count", "gained_count"))
        table.append(
            (
                *(name, quant, f"{nll:+.4f} [{nll_low:+.4f}, {nll_high:+.4f}]"),
                *(f"{v:.0f}" if v is not None else "–" for v in counts),
                *(f"{ece:.4f}" if ece is not None else "–", f"{ece_change:+.4f} [{ece_low:+.4f}, {ece_high:+.4f}]"),
            )
        )
    if not rows:
        return None
    return Figure(
        "ladder-calibration",
        "What quantisation does to calibration",
        "Next tokens of the same text, beside the reference: mean and 95 % interval of the paired difference. Right of "
        "the line is worse. An ECE alone mostly does not see quantisation; the NLL does. A flip is a token that one of "
        "the two got right and the other did not.",
        both_widths(partial(ladder_plots.calibration, rows), "calibration", "Change of NLL and ECE by rung"),
        ("model", "mixture", "NLL change, nats", "flips", "lost", "gained", "ECE", "ECE change"),
        tuple(table),
    )
