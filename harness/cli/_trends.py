"""Changes and trends as tables, shared by the verbs that print them."""

from typing import TYPE_CHECKING, Any

from harness.cli._output import Answer, say, table
from harness.errors import UnknownNameError

if TYPE_CHECKING:
    from harness.app.trend import Change, Trend
    from harness.domain.record import RunRecord
    from harness.records.history import History

_MOST_ROWS = 40
_BARS = "▁▂▃▄▅▆▇█"


def difference_view(before: "RunRecord", after: "RunRecord") -> list[Any]:
    """What to print of two runs: a table, and what makes them hard to compare."""
    from harness.app.trend import differences, not_alike

    rows = [(change.metric, *_cells(change)) for change in differences(before, after)]
    names = ("metric", before.run_id[:15], after.run_id[:15], "ratio", "95 % interval", "effect", "n", "")
    view: list[Any] = [table(f"{after.run_id} against {before.run_id}", names, rows, right=range(1, 7))]
    return view + [f"not alike: {line}" for line in not_alike(before, after)]


def trends(past: "History", metric: str, **wanted: Any) -> Answer:
    """The course of a metric over the runs wanted, as ``History.figures`` takes them.

    Raises:
        UnknownNameError: There is no such metric.
    """
    from harness.app.trend import METRICS, trends_of

    known = next((m for m in METRICS if m == metric), None)
    if known is None:
        raise UnknownNameError("metric", metric, METRICS)
    found = trends_of(past.figures(known, **wanted), known)

    def show() -> None:
        newest = sorted(found, key=lambda trend: trend.points[-1].created)[-_MOST_ROWS:]
        names = ("runs", "", "over time", "last", "against", "ratio", "95 % interval", "effect", "")
        say(table(metric, names, [_row(trend) for trend in newest], right=(1, 3, 5, 6, 7)))
        if len(found) > len(newest):
            say(f"the newest {len(newest)} of {len(found)}: narrow them with --model or --device, or take --json")

    return Answer(found, show)


def _row(trend: "Trend") -> tuple[str, ...]:
    values = [p.value for p in trend.points]
    bars = "".join(_BARS[int(7 * v / max(values))] for v in values[-24:])
    change = trend.step
    if change is None:
        return (trend.name, str(len(values)), bars, f"{values[-1]:.4g}", "", "", "", "", "one run")
    _, after, ratio, interval, effect, _, word = _cells(change)
    return (trend.name, str(len(values)), bars, after, trend.points[-2].created[:16], ratio, interval, effect, word)


def _cells(change: "Change") -> tuple[str, ...]:
    from harness.app.trend import effect_size
    from harness.units import format_bytes, format_seconds

    def amount(value: float) -> str:
        if change.unit == "bytes":
            return format_bytes(value)
        return format_seconds(value) if change.unit == "s" else f"{value:.4g} {change.unit}"

    none = change.low is None or change.high is None
    interval = "none: fewer than 3 samples" if none else f"{change.low:.3f} to {change.high:.3f}"
    counts = f"{change.before_count}, {change.after_count}"
    ratio = f"{change.ratio:.3f}"
    return (
        amount(change.before),
        amount(change.after),
        ratio,
        interval,
        effect_size(change.effect),
        counts,
        change.word,
    )
