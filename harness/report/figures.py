"""Figures of a report: rows for each chart; what is said of them, and their table, is in ``templates/figures.toml``."""

from collections import Counter
from collections.abc import Sequence
from math import isfinite

import numpy as np

from harness.app.trend import trends
from harness.domain.record import RunRecord
from harness.domain.result import Load, Soak
from harness.printable import clean
from harness.records.derive import setting_of, times_of
from harness.records.ladder import cells, rungs_of
from harness.report.charts import PageFigure, Row, chart, figure, plotted
from harness.report.document import RunReport, RunView
from harness.report.text import amount, compared, digits, title_of
from harness.stats.intervals import quantile_interval
from harness.units import GIB, format_bytes

SERIES_MAX = 8
"""Lines of one chart: more cannot be told apart."""
ROWS_MAX = 48
"""Rows of one chart; the tables hold all."""
STACKS_MAX = 16
"""Runs whose memory is drawn part by part, the newest: each has some six marks."""
_LISTED = (0.5, 0.9, 0.99, 1.0)
"""Shares of the tokens whose times are listed."""
_LEAST_KL = 1e-4
"""Nats below which a divergence is drawn there."""


def figures(report: RunReport, records: Sequence[RunRecord]) -> list[PageFigure]:
    """Every figure that these results hold, in the order of the page."""
    runs = labelled(report.runs)
    drawn = [
        agreement(runs),
        budgets(report),
        depth(runs),
        trend(records, report),
        memory(runs),
        latency(runs),
        ladder(records),
        soaks(records),
        loads(records),
    ]
    return [each for each in drawn if each is not None]


def labelled(runs: Sequence[RunView]) -> list[tuple[str, RunView]]:
    """Runs with names that tell them apart: model, mixture, what was special; then a number."""
    labels: list[tuple[str, RunView]] = []
    counts: Counter[str] = Counter()
    for run in runs:
        how = "" if run.record.workload == "generate" else f", {run.record.workload}"
        name = clean(title_of(run.name, run.quant, run.record.scenario.depth_tokens) + how, 60)
        counts[name] += 1
        labels.append((name if counts[name] == 1 else f"{name} #{counts[name]}", run))
    return labels


def agreement(runs: Sequence[tuple[str, RunView]]) -> PageFigure | None:
    """Measured against predicted, with intervals."""
    rows: list[Row] = []
    for label, run in runs:
        for row in run.comparison.rows if run.comparison else ():
            if row.measured is None or row.predicted <= 0 or row.name == "anonymous memory" or row.doubted:
                continue
            words = zip(("predicted", "between", "found", "error", "inside"), compared(row), strict=True)
            drawn = {"measured": row.measured / row.predicted, "high": row.high / row.predicted}
            drawn["low"] = row.low / row.predicted if row.low > 0 else 0.1
            rows.append({"name": f"{row.name} · {label}", "run": label, "quantity": row.name} | dict(words) | drawn)
    if not rows:
        return None
    newest = sorted(rows[-ROWS_MAX:], key=lambda row: str(row["quantity"]))
    low = min(0.5, *(min(row["low"], row["measured"]) for row in newest))
    high = max(2.0, *(max(row["high"], row["measured"]) for row in newest))
    return plotted(
        "agreement",
        rows,
        drawn=newest,
        wide_px=720,
        ratios=[low / 1.05, high * 1.05],
        hit=sum(row["inside"] == "inside" for row in rows),
        count=len(rows),
        left_out=f" Drawn: the newest {ROWS_MAX}." if len(rows) > ROWS_MAX else "",
    )


def budgets(report: RunReport) -> PageFigure | None:
    """What each budget came to, as a share of its limit."""
    rows = [dict(row) for row in report.budgets]
    drawn = [row for row in rows if row["share"] is not None]
    ends = [value for row in drawn for value in (row["share"], row["low"], row["high"]) if value]
    shares = [min(0.8, *ends) / 1.05, max(1.25, *ends) * 1.05] if ends else [0.8, 1.25]
    return plotted("budgets", rows, drawn=drawn, wide_px=720, shares=shares)


def depth(runs: Sequence[tuple[str, RunView]]) -> PageFigure | None:
    """Decode speed over the depth of the context, measured and predicted, of models that ran at several depths.

    A line joins runs that differ in nothing else (the room of the cache grows with the depth).
    """
    rows: list[Row] = []
    names: dict[tuple[str, ...], str] = {}
    counts: Counter[str] = Counter()
    for _, run in (each for each in runs if each[1].record.workload == "generate"):
        record = run.record.replace(scenario=run.record.scenario.replace(depth_tokens=0, context_tokens=0))
        name = clean(f"{title_of(run.name, run.quant, 0)}, {run.device}", 60)
        if (line := (name, *setting_of(record))) not in names:
            counts[name] += 1
            names[line] = f"{name} #{counts[name]}" if counts[name] > 1 else name
        at: Row = {"name": names[line], "depth": run.record.scenario.depth_tokens}
        test = next((t for t in run.tests if t.phase == "decode" and t.value is not None), None)
        if test:
            rows.append(at | {"kind": "measured", "speed": test.value, "low": test.low, "high": test.high})
        if run.comparison:
            decode = run.comparison.rows[0]
            speeds = {"speed": decode.predicted, "low": decode.low, "high": decode.high}
            rows.append(at | {"kind": "predicted"} | speeds)
    depths = {(row["name"], row["depth"]) for row in rows if row["kind"] == "measured"}
    several = [name for name, count in Counter(name for name, _ in depths).items() if count > 1][:SERIES_MAX]
    rows = sorted((row for row in rows if row["name"] in several), key=lambda row: (row["name"], row["depth"]))
    for row in rows:
        row["between"] = "" if row["low"] is None else f"{digits(row['low'])} to {digits(row['high'])}"
    return plotted("depth", rows)


def trend(records: Sequence[RunRecord], report: RunReport) -> PageFigure | None:
    """Decode speed over time, of models that ran three times or more, with the limits that budgets set for it."""
    courses = [course for course in trends(records, "decode_tokens_per_s") if len(course.points) > 2]
    rows: list[Row] = []
    for course in courses[-SERIES_MAX:]:
        name = clean(course.name, 60)
        for point in course.points[-ROWS_MAX:]:
            between = "" if point.low is None else f"{digits(point.low)} to {digits(point.high or point.low)}"
            speeds = {"speed": point.value, "low": point.low, "high": point.high, "between": between}
            rows.append({"name": name, "created": point.created, "run": point.run_id} | speeds)
    lines = [{"line": row["line"]} for row in report.budgets if row["metric"] == "decode_tokens_per_s" and row["line"]]
    return plotted("trend", rows, limits=lines)


def memory(runs: Sequence[tuple[str, RunView]]) -> PageFigure | None:
    """Predicted parts, measured peak."""
    bars: list[Row] = []
    peaks: list[Row] = []
    predicted = [(label, run, run.record.prediction) for label, run in runs if run.record.prediction is not None]
    for label, run, prediction in predicted[-STACKS_MAX:]:
        for order, part in enumerate(prediction.memory.parts):
            size = part.anonymous_bytes + part.file_bytes
            words = {"pool": part.pool, "reason": part.reason, "size": f"{format_bytes(size)} predicted"}
            kept = {"held": format_bytes(part.anonymous_bytes), "mapped": format_bytes(part.file_bytes)}
            bars.append({"name": label, "part": part.label, "gib": size / GIB, "order": order} | words | kept)
        if run.peak_memory_bytes:
            peak = format_bytes(run.peak_memory_bytes)
            words = {"part": "measured peak", "pool": "", "held": peak, "mapped": "", "size": peak}
            peaks.append({"name": label, "gib": run.peak_memory_bytes / GIB, "reason": "of the child process"} | words)
    return plotted("memory", [*bars, *peaks], drawn=bars, peaks=peaks)


def latency(runs: Sequence[tuple[str, RunView]]) -> PageFigure | None:
    """Distribution of token times."""
    rows: list[Row] = []
    timed = [(label, [t for s in run.record.believed("decode") for t in s.token_times_s]) for label, run in runs[::-1]]
    levels = sorted({*np.linspace(0, 0.9, 31).tolist(), *np.linspace(0.9, 1, 21).tolist(), *_LISTED})
    for label, times_s in [each for each in timed if each[1]][:SERIES_MAX]:
        for share, seconds in zip(levels, np.quantile(times_s, levels).tolist(), strict=True):
            rows.append({"name": label, "ms": 1e3 * seconds, "share": share, "is_listed": share in _LISTED})
    return plotted("latency", rows)


def ladder(records: Sequence[RunRecord]) -> PageFigure | None:
    """Divergence of each measured quantisation over its size, and over its speed where that was measured."""
    rows: list[Row] = []
    table: list[tuple[str, ...]] = []
    for rung in rungs_of(records):
        if rung.quality is None or not isfinite(rung.divergence):
            continue
        name, quant, speed = clean(rung.model, 40), clean(cells(rung)[0], 40), rung.decode_tokens_per_s
        size, drawn = rung.size_bytes / 1e6, max(rung.divergence, _LEAST_KL)
        says = f"{name} {quant}: {digits(size)} MB, KL {rung.divergence:.4f} nats"
        row = {"model": name, "quant": quant, "kl": drawn, "best": rung.on_frontier, "says": says}
        rows.append(row | {"file, MB": size, "decode, tokens/s": speed})
        table.append((name, *cells(rung)))
    plots = []
    for key in ("file, MB", "decode, tokens/s"):
        if values := [row[key] for row in rows if row[key]]:
            ends = {
                "x_ends": [min(values) / 1.1, max(values) * 1.2],
                "y_ends": [_LEAST_KL, max(r["kl"] for r in rows) * 2],
            }
            plots.append(chart("ladder-plot", rows=[row for row in rows if row[key]], key=key, **ends))
    return figure("ladder", table, plots=plots)


def soaks(records: Sequence[RunRecord]) -> PageFigure | None:
    """Speed over minutes."""
    rows: list[Row] = []
    for record, soak in [(r, r.result) for r in records if isinstance(r.result, Soak)][:SERIES_MAX]:
        name = clean(f"{record.name}, {record.machine.device}", 60)
        for window in soak.windows:
            heat = "" if window.celsius is None else f"{window.celsius:.0f} C"
            rows.append({"name": name, "minute": window.since_start_s / 60, "speed": window.tokens_per_s, "heat": heat})
    return plotted("soak", rows)


def loads(records: Sequence[RunRecord]) -> PageFigure | None:
    """Latency of requests over the load on a server."""
    rows: list[Row] = []
    several = [(r, r.result) for r in records if isinstance(r.result, Load)][: SERIES_MAX // 4]
    for record, load in several:
        name = f" ({clean(record.name, 40)})" if len(several) > 1 else ""
        for level in load.levels:
            at = {"load": level.offered, "unit": "requests/s" if load.open_loop else "users"}
            for kind, what, phase in (("TTFT", "ttft", "first_token"), ("end to end", "e2el", "workload")):
                times_s = times_of(record, phase, f"{what} {level.label}")  # type: ignore[arg-type]
                for share, word in ((0.5, "median"), (0.99, "99 %")) if times_s else ():
                    wait_s = quantile_interval(times_s, share).mid
                    words = {"name": f"{kind}, {word}{name}", "time": amount("s", wait_s)}
                    rows.append(at | {"wait": wait_s} | words)
    return plotted("load", rows)
