"""Plots of a quantisation ladder: divergence over size and over speed, and what became of calibration."""

from collections.abc import Sequence
from math import exp, log
from typing import Any, Final

from harness.report.labels import Named, place
from harness.report.plots import Row, altair
from harness.report.svg import SERIES, colour

LEAST_KL: Final = 1e-4
"""Nats below which a divergence is drawn there."""

_HEIGHT: Final = 250
_ROW_PX: Final = 17


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
    hue = alt.Color("model:N", title=None, scale=colours, legend=alt.Legend(columns=max(1, width // 210), orient="top"))
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
        # Between two rungs there is none: the line goes level from a rung to where the next better one is reached.
        .mark_line(opacity=0.45, interpolate="step-after")
        .encode(x=x, y=y, color=hue)
    )
    names = _names(rows, key, (x_ends, y_ends), width)
    text = (
        alt.Chart(alt.Data(values=names))
        .mark_text(align="left", baseline="middle", fontSize=10, color=colour("ink"))
        .encode(x=x, y=y, text="quant:N")
    )
    return (lines + marks + text).properties(width=width, height=_HEIGHT)


def _names(
    rows: Sequence[Row], key: str, ends: tuple[tuple[float, float], tuple[float, float]], width: int
) -> list[Row]:
    """Names where they cover nothing, as rows of the plot's own coordinates; the frontier's names come first."""
    (x0, x1), (y0, y1) = ends
    order = sorted(rows, key=lambda r: not r["best"])
    marks = [
        Named(width * log(r[key] / x0) / log(x1 / x0), _HEIGHT * log(r["kl"] / y0) / log(y1 / y0), r["quant"])
        for r in order
    ]
    found = place(marks, width, _HEIGHT)
    return [
        {
            key: x0 * exp(at[0] / width * log(x1 / x0)),
            "kl": y0 * exp(at[1] / _HEIGHT * log(y1 / y0)),
            "quant": r["quant"],
        }
        for r, at in zip(order, found, strict=True)
        if at is not None
    ]


def calibration(rows: Sequence[Row], width: int) -> Any:
    """Change of the NLL and of the ECE against the reference, a line a rung: point and 95 % interval.

    Rows: model, quant, nll, nll_low, nll_high, ece, ece_low, ece_high, says.
    """
    alt = altair()
    plots = [
        _changes(rows, "nll", "NLL over the reference's, nats", 0.01, width),
        _changes(rows, "ece", "ECE over the reference's", 0.01, width),
    ]
    return alt.vconcat(*plots, spacing=18)


def _changes(rows: Sequence[Row], key: str, title: str, constant: float, width: int) -> Any:
    alt = altair()
    models = list(dict.fromkeys(row["model"] for row in rows))
    quants = list(dict.fromkeys(row["quant"] for row in rows))
    x = alt.X(
        f"{key}_low:Q",
        title=title,
        scale=alt.Scale(type="symlog", constant=constant, nice=False),
        axis=alt.Axis(format="~g", values=[-1, -0.1, -0.03, 0, 0.03, 0.1, 0.3, 1, 3, 10], labelOverlap=True),
    )
    y = alt.Y("quant:N", sort=quants, title=None, axis=alt.Axis(grid=True))
    side = alt.YOffset("model:N", sort=models)
    hue = alt.Color(
        "model:N",
        title=None,
        scale=alt.Scale(domain=models, range=list(SERIES[: len(models)])),
        legend=alt.Legend(columns=max(1, width // 210), orient="top"),
    )
    base = alt.Chart(alt.Data(values=list(rows))).encode(y=y, yOffset=side, color=hue)
    bars = base.mark_rule(strokeWidth=3, opacity=0.5).encode(x=x, x2=f"{key}_high:Q", description="says:N")
    points = base.mark_point(filled=True, size=36, opacity=1).encode(
        x=alt.X(f"{key}:Q"), shape=alt.Shape("model:N", legend=None), description="says:N"
    )
    zero = alt.Chart(alt.Data(values=[{"x": 0}])).mark_rule(strokeDash=[4, 3]).encode(x="x:Q")
    return (zero + bars + points).properties(width=width - 60, height=_ROW_PX * max(1, len(models)) * len(quants) // 1)


def _ends(alt: Any, ends: tuple[float, float]) -> Any:
    return alt.Scale(type="log", domain=list(ends), nice=False)
