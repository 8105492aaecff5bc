"""Plots of a quantisation ladder: divergence over size and over speed, and what became of calibration."""

from collections.abc import Sequence
from itertools import pairwise
from math import exp, log
from typing import Any, Final

from harness.report.labels import Named, place
from harness.report.plots import Row, altair
from harness.report.svg import SERIES, colour

LEAST_KL: Final = 1e-4
"""Nats below which a divergence is drawn there."""

_HEIGHT: Final = 250
_ROW_PX: Final = 17
_BAR_PX: Final = 10


def frontiers(rows: Sequence[Row], width: int) -> Any:
    """Divergence over file size, and below it over decode speed where that was measured.

    Rows: model, quant, mb, kl, rate (None: not measured), best, says.
    """
    alt = altair()
    plots = [_scatter(rows, "mb", "file, MB (left is smaller)", width, smaller_is_better=True)]
    timed = [row for row in rows if row["rate"]]
    if timed:
        plots.append(_scatter(timed, "rate", "decode, tokens/s (right is faster)", width, smaller_is_better=False))
    return alt.vconcat(*plots, spacing=18)


def outline(rows: Sequence[Row], key: str, *, smaller_is_better: bool) -> list[Row]:
    """The rows that no other of the same model beats in ``key`` and divergence, in the order of ``key``, as a line."""
    kept: list[Row] = []
    for model in dict.fromkeys(row["model"] for row in rows):
        closest = float("inf")
        mine = sorted(
            (r for r in rows if r["model"] == model), key=lambda r: (r[key] if smaller_is_better else -r[key], r["kl"])
        )
        for row in mine:
            if row["kl"] < closest:
                closest = row["kl"]
                kept.append(row)
    return kept


def _scatter(rows: Sequence[Row], key: str, title: str, width: int, *, smaller_is_better: bool) -> Any:
    alt = altair()
    models = list(dict.fromkeys(row["model"] for row in rows))
    colours = alt.Scale(domain=models, range=list(SERIES[: len(models)]))
    x_ends = min(r[key] for r in rows) / 1.12, max(r[key] for r in rows) * 1.12
    y_ends = min(LEAST_KL, *(r["kl"] for r in rows)) / 1.5, max(r["kl"] for r in rows) * 1.6
    x = alt.X(
        f"{key}:Q", title=title, scale=_ends(alt, x_ends), axis=alt.Axis(format="~s", tickCount=5, labelOverlap=True)
    )
    y = alt.Y(
        "kl:Q",
        title="KL to the reference, nats",
        scale=_ends(alt, y_ends),
        axis=alt.Axis(format="~g", values=[10.0**n for n in range(-4, 2)]),
    )
    hue = alt.Color("model:N", title=None, scale=colours, legend=_legend(alt, width))
    base = alt.Chart(alt.Data(values=list(rows))).encode(x=x, y=y, color=hue)
    marks = base.mark_point(size=60, opacity=1, strokeWidth=1.5).encode(
        description="says:N",
        shape=alt.Shape("model:N", legend=None),
        fillOpacity=alt.condition("datum.best", alt.value(1), alt.value(0)),
        fill=alt.Color("model:N", legend=None, scale=colours),
    )
    steps = outline(rows, key, smaller_is_better=smaller_is_better)
    lines = (
        alt.Chart(alt.Data(values=steps))
        # The closest rung of at most this size, or of at least this speed: between two rungs there is none.
        .mark_line(opacity=0.45, interpolate="step-after" if smaller_is_better else "step-before")
        .encode(x=x, y=y, color=hue)
    )
    names = _names(rows, steps, key, (x_ends, y_ends), width)
    text = (
        alt.Chart(alt.Data(values=names))
        .mark_text(align="left", baseline="middle", fontSize=10, color=colour("ink"))
        .encode(x=x, y=y, text="quant:N")
    )
    return (lines + marks + text).properties(width=width, height=_HEIGHT)


def _names(
    rows: Sequence[Row],
    steps: Sequence[Row],
    key: str,
    ends: tuple[tuple[float, float], tuple[float, float]],
    width: int,
) -> list[Row]:
    """Names where they cover nothing, as rows of the plot's own coordinates; the frontier's names come first."""
    (x0, x1), (y0, y1) = ends

    def at(row: Row) -> tuple[float, float]:
        return width * log(row[key] / x0) / log(x1 / x0), _HEIGHT * log(row["kl"] / y0) / log(y1 / y0)

    corners: list[list[tuple[float, float]]] = []
    for model in dict.fromkeys(row["model"] for row in steps):
        line = [at(row) for row in steps if row["model"] == model]
        # Towards larger files the line is level first and then falls; towards slower rungs as well.
        turns = [point for (_, ya), (xb, yb) in pairwise(line) for point in ((xb, ya), (xb, yb))]
        corners.append([line[0], *turns])
    order = sorted(rows, key=lambda r: not r["best"])
    found = place([Named(*at(r), r["quant"]) for r in order], width, _HEIGHT, corners)
    return [
        {
            key: x0 * exp(spot[0] / width * log(x1 / x0)),
            "kl": y0 * exp(spot[1] / _HEIGHT * log(y1 / y0)),
            "quant": row["quant"],
        }
        for row, spot in zip(order, found, strict=True)
        if spot is not None
    ]


def calibration(rows: Sequence[Row], width: int) -> Any:
    """Change of the NLL and of the ECE against the reference, a line a rung: point and 95 % interval.

    Rows: model, quant, nll, nll_low, nll_high, ece, ece_low, ece_high, says.
    """
    alt = altair()
    plots = [
        # From thousandths to whole nats (and a tenth of the ECE): even steps near 0, equal ratios beyond.
        _changes(
            *(rows, "nll", "NLL over the reference's, nats", width),
            alt.Scale(type="symlog", constant=0.01, nice=False),
            alt.Axis(format="~g", values=[-1, -0.1, -0.03, 0, 0.03, 0.1, 0.3, 1, 3, 10], labelOverlap=True),
        ),
        _changes(
            *(rows, "ece", "ECE over the reference's", width),
            alt.Scale(type="symlog", constant=0.02, nice=False),
            alt.Axis(format="~g", values=[-0.1, -0.03, -0.01, 0, 0.01, 0.03, 0.1, 0.3], labelOverlap=True),
        ),
    ]
    return alt.vconcat(*plots, spacing=18)


def _changes(rows: Sequence[Row], key: str, title: str, width: int, scale: Any, axis: Any) -> Any:
    alt = altair()
    models = list(dict.fromkeys(row["model"] for row in rows))
    quants = list(dict.fromkeys(row["quant"] for row in rows))
    x = alt.X(f"{key}_low:Q", title=title, scale=scale, axis=axis)
    y = alt.Y("quant:N", sort=quants, title=None, axis=alt.Axis(grid=True))
    side = alt.YOffset("model:N", sort=models)
    hue = alt.Color(
        "model:N",
        title=None,
        scale=alt.Scale(domain=models, range=list(SERIES[: len(models)])),
        legend=_legend(alt, width),
    )
    base = alt.Chart(alt.Data(values=list(rows))).encode(y=y, yOffset=side, color=hue)
    bars = base.mark_rule(strokeWidth=3, opacity=0.5).encode(x=x, x2=f"{key}_high:Q", description="says:N")
    points = base.mark_point(filled=True, size=36, opacity=1).encode(
        x=alt.X(f"{key}:Q"), shape=alt.Shape("model:N", legend=None), description="says:N"
    )
    zero = alt.Chart(alt.Data(values=[{"x": 0}])).mark_rule(strokeDash=[4, 3]).encode(x="x:Q")
    return (zero + bars + points).properties(width=width - 60, height=len(quants) * max(_ROW_PX, _BAR_PX * len(models)))


def _legend(alt: Any, width: int) -> Any:
    return alt.Legend(columns=max(1, width // 210), orient="top", symbolOpacity=1)


def _ends(alt: Any, ends: tuple[float, float]) -> Any:
    return alt.Scale(type="log", domain=list(ends), nice=False)
