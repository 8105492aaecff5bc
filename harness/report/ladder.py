"""Figures of a quantisation ladder that was run: its frontier, and what each rung did to calibration."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from math import exp, isfinite, log
from typing import Final, NamedTuple

from harness.domain.record import RunRecord
from harness.domain.result import Quality
from harness.printable import clean
from harness.records.ladder import Rung, rungs_of
from harness.report.charts import Chart, Figure, Row, chart, figure
from harness.report.text import digits

MODELS_MAX: Final = 6
"""Models in one plot: more colours cannot be told apart."""
_LEAST_KL: Final = 1e-4
"""Nats below which a divergence is drawn there."""
_HEIGHT_PX: Final = 250
_LETTER_PX: Final = 6.3
_LINE_PX: Final = 11.0
_MARK_PX: Final = 5.0
_GAP_PX: Final = 7.0


def ladder_figures(records: Sequence[RunRecord]) -> list[Figure]:
    """What these records hold of ladders: nothing, the frontier, or the frontier and calibration."""
    scored = [r for r in records if isinstance(r.result, Quality) and r.model is not None]
    models = list(dict.fromkeys(r.model.name for r in scored if r.model))[-MODELS_MAX:]
    rungs = [
        (name, rung)
        for name in models
        for rung in rungs_of([r for r in records if r.model is not None and r.model.name == name])
        if rung.quality
    ]
    return [found for found in (_frontier(rungs), _calibration(rungs)) if found is not None]


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
            drawn = max(kl, _LEAST_KL)
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
    return figure("ladder-frontier", table, partial(_frontiers, rows))


def _frontiers(rows: Sequence[Row], width_px: int) -> Chart:
    """Divergence over file size, and below it over decode speed where that was measured."""
    plots = [_scatter(rows, "mb", "file, MB (left is smaller)", width_px, smaller_is_better=True)]
    if timed := [row for row in rows if row["rate"]]:
        plots.append(_scatter(timed, "rate", "decode, tokens/s (right is faster)", width_px, smaller_is_better=False))
    return {"vconcat": plots, "spacing": 18}


def _scatter(rows: Sequence[Row], key: str, title: str, width_px: int, *, smaller_is_better: bool) -> Chart:
    """One plot, with the names of its marks where they cover nothing; the frontier's names come first."""
    x0, x1 = min(r[key] for r in rows) / 1.12, max(r[key] for r in rows) * 1.12
    y0, y1 = min(_LEAST_KL, *(r["kl"] for r in rows)) / 1.5, max(r["kl"] for r in rows) * 1.6
    wide, high = width_px / log(x1 / x0), _HEIGHT_PX / log(y1 / y0)

    def at(row: Row) -> tuple[float, float]:
        return wide * log(row[key] / x0), high * log(row["kl"] / y0)

    steps = outline(rows, key, smaller_is_better=smaller_is_better)
    corners: list[list[tuple[float, float]]] = []
    for model in dict.fromkeys(row["model"] for row in steps):
        line = [at(row) for row in steps if row["model"] == model]
        # Towards larger files the line is level first and then falls; towards slower rungs as well.
        turns = [point for (_, ya), (xb, yb) in pairwise(line) for point in ((xb, ya), (xb, yb))]
        corners.append([line[0], *turns])
    order = sorted(rows, key=lambda r: not r["best"])
    spots = place([Named(*at(r), r["quant"]) for r in order], width_px, _HEIGHT_PX, corners)
    return chart(
        "ladder",
        height=_HEIGHT_PX,
        key=key,
        title=title,
        x_ends=[x0, x1],
        y_ends=[y0, y1],
        models=list(dict.fromkeys(row["model"] for row in rows)),
        rows=rows,
        steps=steps,
        # The closest rung of at most this size, or of at least this speed: between two rungs there is none.
        interpolate="step-after" if smaller_is_better else "step-before",
        names=[
            {key: x0 * exp(spot[0] / wide), "kl": y0 * exp(spot[1] / high), "quant": row["quant"]}
            for row, spot in zip(order, spots, strict=True)
            if spot is not None
        ],
    )


def outline(rows: Sequence[Row], key: str, *, smaller_is_better: bool) -> list[Row]:
    """The rows that no other of the same model beats in ``key`` and divergence, in the order of ``key``, as a line."""
    kept: list[Row] = []
    for model in dict.fromkeys(row["model"] for row in rows):
        closest = float("inf")
        mine = [row for row in rows if row["model"] == model]
        for row in sorted(mine, key=lambda r: (r[key] if smaller_is_better else -r[key], r["kl"])):
            if row["kl"] < closest:
                closest = row["kl"]
                kept.append(row)
    return kept


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
    return figure("ladder-calibration", table, partial(_changes, rows))


def _changes(rows: Sequence[Row], width_px: int) -> Chart:
    """Change of the NLL and of the ECE against the reference, a line a rung: point and 95 % interval."""
    model_count, quant_count = (len({row[key] for row in rows}) for key in ("model", "quant"))
    # From thousandths to whole nats (and a tenth of the ECE): even steps near 0, equal ratios beyond.
    parts = (
        ("nll", "NLL over the reference's, nats", 0.01, [-1, -0.1, -0.03, 0, 0.03, 0.1, 0.3, 1, 3, 10]),
        ("ece", "ECE over the reference's", 0.02, [-0.1, -0.03, -0.01, 0, 0.01, 0.03, 0.1, 0.3]),
    )
    plots = [
        chart(
            "calibration",
            rows=rows,
            width=width_px - 60,
            height=quant_count * max(17, 10 * model_count),
            key=key,
            low=f"{key}_low",
            high=f"{key}_high",
            title=title,
            constant=constant,
            ticks=ticks,
        )
        for key, title, constant, ticks in parts
    ]
    return {"vconcat": plots, "spacing": 18}


class Named(NamedTuple):
    """A mark with its name, in pixels from the left and from the bottom."""

    x: float
    y: float
    text: str


def place(
    marks: Sequence[Named], width: float, height: float, lines: Sequence[Sequence[tuple[float, float]]] = ()
) -> list[tuple[float, float] | None]:
    """Where each name begins (left edge, middle of its height), in pixels; None where there is no free place.

    Right of the mark if it can be, else left, above, below, then the corners; earlier marks choose first, and no name
    covers a mark or a line, or leaves the plot. Greedy: a name may find no place that a better order would have left.
    ``lines`` are the corners of each line in steps, in its order: each piece is level or upright.
    """
    # Boxes that are taken: left, bottom, right, top.
    taken = [(m.x - _MARK_PX, m.y - _MARK_PX, m.x + _MARK_PX, m.y + _MARK_PX) for m in marks]
    for (x0, y0), (x1, y1) in (piece for line in lines for piece in pairwise(line)):
        taken.append((min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1) + 1, max(y0, y1) + 1))

    def free(x: float, y: float, size: float) -> bool:
        left, bottom, right, top = box = x, y - _LINE_PX / 2, x + size, y + _LINE_PX / 2
        if left < 0 or right > width or bottom < 0 or top > height:
            return False
        if any(left < t[2] and t[0] < right and bottom < t[3] and t[1] < top for t in taken):
            return False
        taken.append(box)
        return True

    places = []
    for x, y, text in marks:
        size = _LETTER_PX * len(text)
        right, left, middle = x + _GAP_PX, x - _GAP_PX - size, x - size / 2
        up, down = y + 1.6 * _GAP_PX, y - 1.6 * _GAP_PX
        tried = [(right, y), (left, y), (middle, up), (middle, down)]
        tried += [(right, up), (left, down), (right, down), (left, up)]
        places.append(next((at for at in tried if free(*at, size)), None))
    return places
