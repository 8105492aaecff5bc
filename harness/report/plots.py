"""The figures of a report, each a function from measured and predicted values to an Altair chart of a given width.

A chart gets rows of plain values; ``says`` of a row is what a pointer or a screen reader tells of its mark.
"""

from collections.abc import Sequence
from typing import Any

from harness.errors import MissingPackageError
from harness.report.svg import SERIES, colour

Row = dict[str, Any]


def altair() -> Any:
    """The plotting library.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        import altair as alt
    except ImportError as error:
        raise MissingPackageError("altair", "report") from error
    return alt


def agreement(rows: Sequence[Row], width: int) -> Any:
    """Measured over predicted, a line each: bar = the 90 % interval predicted, point = measured.

    Rows: name, low, high, measured (ratios to the prediction), inside, says.
    """
    alt = altair()
    data = alt.Data(values=list(rows))
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(grid=False, labelLimit=min(330, width // 2)))
    low = min([0.5, *(r["low"] for r in rows), *(r["measured"] for r in rows)])
    high = max([2.0, *(r["high"] for r in rows), *(r["measured"] for r in rows)])
    x = alt.X(
        "low:Q",
        scale=alt.Scale(type="log", domain=[low / 1.05, high * 1.05], nice=False),
        axis=alt.Axis(values=[0.1, 0.25, 0.5, 0.7, 1, 1.4, 2, 4, 8], format="~g", grid=True),
        title="measured / predicted (1 = exactly as predicted)",
    )
    base = alt.Chart(data)
    bars = base.mark_bar(height=10, color=SERIES[1], opacity=0.45, cornerRadius=3).encode(
        x=x, x2="high:Q", y=y, description="says:N"
    )
    points = base.mark_point(filled=True, size=80, opacity=1).encode(
        x="measured:Q",
        y=y,
        description="says:N",
        shape=alt.Shape("inside:N", scale=_inside(alt, ["circle", "diamond"]), title=None),
        color=alt.Color(
            "inside:N",
            scale=_inside(alt, [SERIES[0], colour("bad")]),
            title=None,
        ),
    )
    one = alt.Chart(alt.Data(values=[{"x": 1}])).mark_rule(strokeDash=[4, 3]).encode(x="x:Q")
    return (bars + one + points).properties(width=width, height={"step": 22})


def roofline(roofs: Sequence[Row], points: Sequence[Row], width: int) -> Any:
    """Attained arithmetic over intensity, under the roofs of memory and arithmetic.

    Rows of ``roofs``: name, x, y (corners of each roof, in order); of ``points``: x, y, test, says.
    """
    alt = altair()
    x = alt.X("x:Q", scale=_log(alt), title="FLOP per byte read", axis=_plain(alt))
    y = alt.Y("y:Q", scale=_log(alt), title="GFLOP/s", axis=_plain(alt))
    lines = (
        alt.Chart(alt.Data(values=list(roofs)))
        .mark_line(color=colour("muted"), strokeDash=[6, 3])
        .encode(x=x, y=y, detail="name:N", description="name:N")
    )
    marks = (
        alt.Chart(alt.Data(values=list(points)))
        .mark_point(filled=True, size=90, opacity=0.95)
        .encode(
            x=x,
            y=y,
            color=alt.Color("model:N", title=None, scale=alt.Scale(range=list(SERIES)), legend=_legend(alt, width)),
            shape=alt.Shape("test:N", title=None, legend=alt.Legend(orient="bottom", direction="horizontal")),
            description="says:N",
        )
    )
    return (lines + marks).properties(width=width, height=280)


def memory(rows: Sequence[Row], peaks: Sequence[Row], width: int) -> Any:
    """Predicted memory by part, a bar a run; the black tick is the measured peak.

    Rows: name, part, gib, order, says; peaks: name, gib, says.
    """
    alt = altair()
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=min(230, width // 2)))
    bars = (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_bar(height=16)
        .encode(
            x=alt.X("gib:Q", stack="zero", title="GiB"),
            y=y,
            color=alt.Color(
                "part:N", sort=None, title=None, scale=alt.Scale(range=list(SERIES)), legend=_legend(alt, width)
            ),
            order="order:Q",
            description="says:N",
        )
    )
    ticks = (
        alt.Chart(alt.Data(values=list(peaks)))
        .mark_tick(thickness=3, height=24, color=colour("ink"))
        .encode(x="gib:Q", y=y, description="says:N")
    )
    return (bars + ticks).properties(width=width, height={"step": 30})


def latency_share(rows: Sequence[Row], width: int) -> Any:
    """Share of tokens that took at most so long. Rows: name, ms, share, says."""
    alt = altair()
    x = alt.X("ms:Q", scale=_log(alt), title="ms for one token", axis=_plain(alt))
    y = alt.Y("share:Q", title="share of tokens", axis=alt.Axis(format="%"))
    dash = {"strokeDash": alt.StrokeDash("name:N", legend=None)}
    return _lines(rows, width, 220, {"interpolate": "step-after"}, x=x, y=y, **dash)


def latency_time(rows: Sequence[Row], width: int) -> Any:
    """Time of the i-th token of an answer: median of the samples. Rows: name, token, ms, says."""
    alt = altair()
    x = alt.X("token:Q", title="token of the answer")
    y = alt.Y("ms:Q", title="ms", scale=_log(alt), axis=_plain(alt))
    dash = {"strokeDash": alt.StrokeDash("name:N", legend=None)}
    return _lines(rows, width, 200, {"strokeWidth": 1.5}, x=x, y=y, **dash)


def soak(rows: Sequence[Row], width: int) -> Any:
    """Speed over minutes, from zero: what is lost must be seen. Rows: name, minute, speed, says."""
    alt = altair()
    x = alt.X("minute:Q", title="minutes")
    y = alt.Y("speed:Q", title="tokens/s", scale=alt.Scale(zero=True))
    return _lines(rows, width, 200, {"strokeWidth": 1.5}, x=x, y=y)


def acceptance(rows: Sequence[Row], width: int) -> Any:
    """Share of drafted tokens accepted, by their place in the draft. Rows: name, position, share, says."""
    alt = altair()
    x = alt.X("position:O", title="place in the draft", axis=alt.Axis(labelAngle=0))
    y = alt.Y("share:Q", title="accepted", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1]))
    return _lines(rows, width, 180, {"point": True}, x=x, y=y)


def _lines(rows: Sequence[Row], width: int, height: int, mark: dict[str, Any], **encoding: Any) -> Any:
    """A line for each ``name``."""
    alt = altair()
    colours = alt.Color("name:N", title=None, scale=alt.Scale(range=list(SERIES)), legend=_legend(alt, width))
    lines = alt.Chart(alt.Data(values=list(rows))).mark_line(**mark)
    return lines.encode(color=colours, description="says:N", **encoding).properties(width=width, height=height)


def load(rows: Sequence[Row], width: int) -> Any:
    """Latency over load, in times since a queue grows without end. Rows: name, load, wait, says."""
    alt = altair()
    return (
        alt.Chart(alt.Data(values=list(rows)))
        .mark_line(strokeWidth=1.5, point=True)
        .encode(
            x=alt.X("load:Q", title="users, or requests a second"),
            y=alt.Y("wait:Q", title="seconds", scale=_log(alt)),
            color=alt.Color("name:N", title=None, scale=alt.Scale(range=list(SERIES)), legend=_legend(alt, width)),
            description="says:N",
        )
        .properties(width=width, height=220)
    )


def frontier(rows: Sequence[Row], width: int) -> Any:
    """Quality lost over size, a line a model, a point a mixture. Rows: model, quant, gib, loss, says."""
    alt = altair()
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X(
            "gib:Q",
            title="weights, GiB",
            scale=_log(alt),
            axis=_plain(alt),
        ),
        y=alt.Y(
            "loss:Q",
            title="perplexity over F16, %",
            scale=alt.Scale(type="symlog", constant=0.5),
            axis=_plain(alt),
        ),
        color=alt.Color("model:N", title=None, scale=alt.Scale(range=list(SERIES)), legend=_legend(alt, width)),
    )
    marks = base.mark_point(filled=True, size=60, opacity=1).encode(
        description="says:N", shape=alt.Shape("model:N", legend=None)
    )
    names = base.mark_text(align="left", dx=6, dy=-6, fontSize=10).encode(text="quant:N")
    return (base.mark_line(opacity=0.5) + marks + names).properties(width=width, height=260)


def _legend(alt: Any, width: int) -> Any:
    return alt.Legend(columns=max(1, width // 210), orient="top")


def _inside(alt: Any, values: Sequence[str]) -> Any:
    return alt.Scale(domain=["inside", "outside"], range=list(values))


def _log(alt: Any) -> Any:
    return alt.Scale(type="log", nice=False)


def _plain(alt: Any) -> Any:
    return alt.Axis(format="~g", tickCount=6)
