"""Figures of a quantisation ladder that was run: its frontier, and what each rung did to calibration."""

from collections.abc import Sequence
from functools import partial
from math import isfinite

from harness.domain.record import RunRecord
from harness.domain.result import Quality
from harness.printable import clean
from harness.records.ladder import Rung, rungs_of
from harness.report import ladder_plots
from harness.report.figure import Figure
from harness.report.plots import Row
from harness.report.svg import both_widths
from harness.report.text import digits

MODELS_MAX = 6
"""Models in one plot: more colours cannot be told apart."""


def ladder_figures(records: Sequence[RunRecord]) -> list[Figure]:
    """What these records hold of ladders: nothing, the frontier, or the frontier and calibration."""
    scored = [r for r in records if isinstance(r.result, Quality) and r.model is not None]
    models = list(dict.fromkeys(r.model.name for r in scored if r.model))[-MODELS_MAX:]
    rungs = [(name, rung) for name in models for rung in rungs_of(_of_model(records, name)) if rung.quality]
    return [figure for figure in (_frontier(rungs), _calibration(rungs)) if figure is not None]


def _of_model(records: Sequence[RunRecord], name: str) -> list[RunRecord]:
    return [r for r in records if r.model is not None and r.model.name == name]


def _frontier(rungs: Sequence[tuple[str, Rung]]) -> Figure | None:
    rows: list[Row] = []
    table: list[tuple[str, ...]] = []
    for model, rung in rungs:
        assert rung.quality is not None
        kl, rate = rung.quality.kl_divergence, rung.decode_tokens_per_s
        if kl is None or not isfinite(kl):
            continue
        name, quant = clean(model, 40), clean(rung.quant, 20)
        mb, bits, best = rung.size_bytes / 1e6, rung.bits_per_weight, rung.on_frontier
        unsure = "~" if rung.speed_outcome == "inconclusive" else ""
        says = f"{name} {quant}: {digits(mb)} MB" + (f", {unsure}{digits(rate)} tokens/s" if rate else "")
        says += f", KL {kl:.4f} nats" + (", on the frontier" if best else "")
        if mb > 0:
            drawn = max(kl, ladder_plots.LEAST_KL)
            rows.append(
                {"model": name, "quant": quant, "mb": mb, "kl": drawn, "rate": rate, "best": best, "says": says}
            )
        main = next(iter(rung.types.items()), None)
        numbers = (rung.quality.perplexity, kl, rung.quality.top1_agreement_ratio)
        table.append(
            (
                *(name, quant, f"{digits(mb)} MB", f"{bits:.2f}"),
                f"{clean(main[0], 20)} {main[1]:.0%}" if main else "–",
                unsure + digits(rate) if rate else "–",
                *(f"{v:.4f}" if v is not None else "–" for v in numbers),
                "yes" if best else "",
            )
        )
    if not rows:
        return None
    return Figure(
        "ladder-frontier",
        "The quantisation ladder, measured",
        "Down is closer to the least quantized reference. A filled mark: no other rung is smaller, faster and closer "
        "at once; the line joins those that none beats in that plot alone. KL below 0.0001 nats is drawn there.",
        both_widths(
            partial(ladder_plots.frontiers, rows), "ladder", "Divergence from the reference over size and speed"
        ),
        (
            *("model", "mixture", "file", "bits", "mostly", "decode, tokens/s", "perplexity", "KL, nats"),
            *("same top token", "frontier"),
        ),
        tuple(table),
    )


def _calibration(rungs: Sequence[tuple[str, Rung]]) -> Figure | None:
    rows: list[Row] = []
    table: list[tuple[str, ...]] = []
    for model, rung in rungs:
        found = rung.calibration
        if found is None:
            continue
        nll, ece = found.nll_change, found.ece_change
        name, quant, flips = clean(model, 40), clean(rung.quant, 20), found.lost_count + found.gained_count
        nll_words, ece_words = (f"{c.value:+.4f} [{c.low:+.4f}, {c.high:+.4f}]" for c in (nll, ece))
        rows.append(
            {
                **{"model": name, "quant": quant, "nll": nll.value, "nll_low": nll.low, "nll_high": nll.high},
                **{"ece": ece.value, "ece_low": ece.low, "ece_high": ece.high},
                "says": f"{name} {quant}: NLL {nll_words}, ECE {ece_words}, {flips} flips",
            }
        )
        counts = (str(flips), str(found.lost_count), str(found.gained_count))
        table.append((name, quant, nll_words, *counts, f"{found.ece:.4f}", ece_words))
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
