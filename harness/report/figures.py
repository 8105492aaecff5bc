"""Figures of a report: rows for each chart, and the same numbers as a table for those who cannot see or point."""

from collections import Counter
from collections.abc import Sequence
from math import isfinite

import numpy as np

from harness.app.resolve import resolve_model
from harness.domain.record import RunRecord
from harness.domain.result import Load, Soak, Speculation, Stream
from harness.errors import HarnessError
from harness.predict.quality import perplexity_growth_percent
from harness.predict.quant_mix import quant_named
from harness.printable import clean
from harness.records.derive import times_of
from harness.records.ladder import cells, rungs_of
from harness.report.charts import Figure, Row, chart, figure
from harness.report.choices import Choices
from harness.report.document import Report, RunView
from harness.report.text import amount, compared, digits, title_of
from harness.stats.intervals import quantile_interval
from harness.units import GIB, format_bytes

SERIES_MAX = 8
"""Lines of one chart: more cannot be told apart."""
ROWS_MAX = 48
"""Rows of one chart; the tables hold all."""
_LEAST_KL = 1e-4
"""Nats below which a divergence is drawn there."""


def figures(report: Report, records: Sequence[RunRecord]) -> list[Figure]:
    """Every figure that these results hold, in the order of the page."""
    runs = labelled(report.runs)
    found = [
        agreement(runs),
        depth(runs),
        memory(runs),
        *latency(runs, records),
        ladder(records),
        frontier(report.choices, runs) if report.choices else None,
        acceptance(records),
        soaks(records),
        loads(records),
    ]
    return [each for each in found if each is not None]


def labelled(runs: Sequence[RunView]) -> list[tuple[str, RunView]]:
    """Runs with names that tell them apart: model, mixture, what was special; then a number."""
    labels: list[tuple[str, RunView]] = []
    counts: Counter[str] = Counter()
    for run in runs:
        how = "" if run.workload == "generate" else f", {run.workload}"
        name = clean(title_of(run.name, run.quant, run.scenario.depth_tokens) + how, 60)
        counts[name] += 1
        labels.append((name if counts[name] == 1 else f"{name} #{counts[name]}", run))
    return labels


def agreement(runs: Sequence[tuple[str, RunView]]) -> Figure | None:
    """Measured against predicted, with intervals."""
    rows: list[Row] = []
    table: list[tuple[str, ...]] = []
    for label, run in runs:
        for row in run.comparison.rows if run.comparison else ():
            if row.measured is None or row.predicted <= 0 or row.name == "anonymous memory" or row.doubted:
                continue
            predicted, between, measured, error, inside = compared(row)
            drawn: Row = {"name": f"{row.name} · {label}", "measured": row.measured / row.predicted, "inside": inside}
            drawn |= {"low": row.low / row.predicted if row.low > 0 else 0.1, "high": row.high / row.predicted}
            rows.append(drawn | {"says": f"{label}, {row.name}: measured {measured}, predicted {between}"})
            table.append((label, row.name, predicted, between, measured, error, inside))
    if not rows:
        return None
    newest = sorted(rows[-ROWS_MAX:], key=lambda row: str(row["name"].partition(" · ")[0]))
    low = min(0.5, *(min(row["low"], row["measured"]) for row in newest))
    high = max(2.0, *(max(row["high"], row["measured"]) for row in newest))
    return figure(
        "agreement",
        table,
        wide_px=720,
        rows=newest,
        ratios=[low / 1.05, high * 1.05],
        hit=sum(row["inside"] == "inside" for row in rows),
        count=len(rows),
        left_out=f" Drawn: the newest {ROWS_MAX}." if len(rows) > ROWS_MAX else "",
    )


def depth(runs: Sequence[tuple[str, RunView]]) -> Figure | None:
    """Decode speed over the depth of the context, measured and predicted, of models that ran at several depths."""
    rows: list[Row] = []
    for _, run in runs:
        name = clean(f"{title_of(run.name, run.quant, 0)}, {run.device}", 60)
        at = {"name": name, "depth": run.scenario.depth_tokens}
        test = next((t for t in run.tests if t.phase == "decode" and t.value is not None), None)
        predicted = next((r for r in run.comparison.rows if r.name == "decode"), None) if run.comparison else None
        if test:
            rows.append(at | {"kind": "measured", "speed": test.value, "low": test.low, "high": test.high})
        if predicted:
            speeds = {"speed": predicted.predicted, "low": predicted.low, "high": predicted.high}
            rows.append(at | {"kind": "predicted"} | speeds)
    depths = {(row["name"], row["depth"]) for row in rows if row["kind"] == "measured"}
    several = [name for name, count in Counter(name for name, _ in depths).items() if count > 1][:SERIES_MAX]
    rows = sorted((row for row in rows if row["name"] in several), key=lambda row: (row["name"], row["depth"]))
    table = []
    for row in rows:
        between = f"{amount('tokens/s', row['low'])} to {amount('tokens/s', row['high'])}"
        cells = (row["name"], str(row["depth"]), row["kind"], amount("tokens/s", row["speed"]), between)
        row["says"] = "{}, {} tokens deep, {}: {} ({})".format(*cells)
        table.append(cells)
    return figure("depth", table, rows=rows)


def memory(runs: Sequence[tuple[str, RunView]]) -> Figure | None:
    """Predicted parts, measured peak."""
    bars: list[Row] = []
    ticks: list[Row] = []
    table: list[tuple[str, ...]] = []
    for label, run in runs[-ROWS_MAX:]:
        if run.memory is None:
            continue
        for order, part in enumerate(run.memory.parts):
            size = part.anonymous_bytes + part.file_bytes
            says = f"{label}, {part.name}: {format_bytes(size)} predicted ({part.reason})"
            bars.append({"name": label, "part": part.name, "gib": size / GIB, "order": order, "says": says})
            kept = format_bytes(part.anonymous_bytes), format_bytes(part.file_bytes)
            table.append((label, part.name, part.pool, *kept, part.reason))
        if run.peak_memory_bytes:
            says = f"{label}: peak of {format_bytes(run.peak_memory_bytes)} measured"
            ticks.append({"name": label, "gib": run.peak_memory_bytes / GIB, "says": says})
            table.append((label, "measured peak", "", format_bytes(run.peak_memory_bytes), "", "of the child process"))
    return figure("memory", table, rows=bars, peaks=ticks)


def latency(runs: Sequence[tuple[str, RunView]], records: Sequence[RunRecord]) -> list[Figure | None]:
    """Distribution of token times, and their course over an answer."""
    by_id = {record.run_id: record for record in records}
    shares: list[Row] = []
    course: list[Row] = []
    table: list[tuple[str, ...]] = []
    for label, run in reversed(runs):
        samples = [s.token_times_s for s in by_id[run.run_id].believed("decode") if s.token_times_s]
        if not samples or len({r["name"] for r in shares}) >= SERIES_MAX:
            continue
        times = np.sort(np.concatenate([np.asarray(s) for s in samples])) * 1e3
        levels = np.unique(np.concatenate([np.linspace(0, 0.9, 31), np.linspace(0.9, 1, 21)]))
        for share, ms in zip(levels, np.quantile(times, levels), strict=True):
            says = f"{label}: {share:.1%} of tokens within {digits(float(ms))} ms"
            shares.append({"name": label, "ms": float(ms), "share": float(share), "says": says})
        length = min(len(s) for s in samples)
        middle = np.median(np.array([s[:length] for s in samples]), axis=0) * 1e3
        step = max(1, length // 100)
        for token in range(0, length, step):
            ms = float(np.median(middle[token : token + step]))
            course.append({"name": label, "token": token, "ms": ms, "says": f"{label}: token {token}, {digits(ms)} ms"})
        p50, p90, p99 = (digits(float(v)) for v in np.quantile(times, (0.5, 0.9, 0.99)))
        table.append((label, str(len(times)), p50, p90, p99, digits(float(times[-1]))))
    return [figure("latency", table, rows=shares), figure("course", table, rows=course)]


def frontier(choices: Choices, runs: Sequence[tuple[str, RunView]]) -> Figure | None:
    """Size against published loss of quality, for the models that ran or else for a small, a middle and a large one."""
    ran = [m.name for m in choices.models if any(run.model and run.name.startswith(m.name) for _, run in runs)]
    known = [m.name for m in choices.models]
    wanted = ran[-3:] or [known[i * (len(known) - 1) // 4] for i in (1, 2, 3)]
    rows: list[Row] = []
    table: list[tuple[str, ...]] = []
    for name in dict.fromkeys(wanted):
        for quant in ("Q2_K", "Q3_K_M", "IQ4_XS", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16"):
            try:
                model = resolve_model(name, quant_named(quant))
            except HarnessError:
                continue
            count = sum(t.element_count for t in model.weights.tensors)
            loss = 0.0 if quant == "F16" else perplexity_growth_percent(quant, count)
            if loss is None:
                continue
            gib = sum(t.size_bytes for t in model.weights.tensors) / GIB
            says = f"{name} {quant}: {digits(gib)} GiB, perplexity {loss:+.1f} % over F16"
            rows.append({"model": name, "quant": quant, "gib": gib, "loss": max(loss, 0.0), "says": says})
            table.append((name, quant, f"{digits(gib)} GiB", f"{loss:+.2f} %"))
    return figure("frontier", table, rows=rows)


def ladder(records: Sequence[RunRecord]) -> Figure | None:
    """Divergence of each measured quantisation over its size, and over its speed where that was measured."""
    rows: list[Row] = []
    table: list[tuple[str, ...]] = []
    for rung in rungs_of(records):
        if rung.quality is None or not isfinite(rung.divergence):
            continue
        name, quant, speed = clean(rung.model, 40), clean(rung.quant, 20), rung.decode_tokens_per_s
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


def acceptance(records: Sequence[RunRecord]) -> Figure | None:
    """Accepted share by place in the draft, where runs with speculation tell it."""
    rows: list[Row] = []
    table: list[tuple[str, ...]] = []
    for record in records:
        result = record.result
        if not isinstance(result, Speculation | Stream):
            continue
        told = result.speculative if isinstance(result, Speculation) else result.decoding
        name = clean(f"{record.name}, {result.draft}", 60)
        pairs = zip(told.accepted_by_position, told.tried_by_position, strict=False)
        for place, (accepted, tried) in enumerate(pairs, 1):
            if not tried:
                continue
            says = f"{name}: token {place} of the draft accepted {accepted} of {tried} times"
            rows.append({"name": name, "position": place, "share": accepted / tried, "says": says})
            table.append((name, str(place), str(accepted), str(tried), f"{accepted / tried:.0%}"))
    return figure("acceptance", table, rows=rows)


def soaks(records: Sequence[RunRecord]) -> Figure | None:
    """Speed over minutes, with where it fell."""
    rows: list[Row] = []
    table: list[tuple[str, ...]] = []
    for record, found in [(r, r.result) for r in records if isinstance(r.result, Soak)][:SERIES_MAX]:
        name = clean(f"{record.name}, {record.machine.device}", 60)
        for window in found.windows:
            minute, heat = window.since_start_s / 60, "" if window.celsius is None else f", {window.celsius:.0f} C"
            says = f"{name}: {digits(window.tokens_per_s)} tokens/s after {minute:.1f} minutes{heat}"
            rows.append({"name": name, "minute": minute, "speed": window.tokens_per_s, "says": says})
        knee = "never" if found.knee_s is None else f"{found.knee_s:.0f} s"
        speeds = digits(found.burst_tokens_per_s), digits(found.sustained_tokens_per_s)
        table.append((name, speeds[0], knee, speeds[1]))
    return figure("soak", table, rows=rows)


def loads(records: Sequence[RunRecord]) -> Figure | None:
    """Latency of requests over the load on a server, and where it was saturated."""
    rows: list[Row] = []
    table: list[tuple[str, ...]] = []
    several = [(r, r.result) for r in records if isinstance(r.result, Load)][: SERIES_MAX // 4]
    for record, found in several:
        unit = "requests/s" if found.open_loop else "users"
        name = clean(record.name, 40)
        for level in found.levels:
            shown = [f"{name}, {level.label.removeprefix('@ ')}", digits(level.requests_per_s)]
            for kind, what, phase in (("TTFT", "ttft", "first_token"), ("end to end", "e2el", "workload")):
                times_s = times_of(record, phase, f"{what} {level.label}")  # type: ignore[arg-type]
                for share, word in ((0.5, "median"), (0.99, "99 %")) if times_s else ():
                    wait_s = quantile_interval(times_s, share).mid
                    says = f"{name}, {kind}, {word}, at {level.offered:g} {unit}: {amount('s', wait_s)}"
                    line = f"{kind}, {word}" + (f" ({name})" if len(several) > 1 else "")
                    rows.append({"name": line, "load": level.offered, "wait": wait_s, "says": says})
                    shown.append(amount("s", wait_s))
            table.append((*shown, str(sum(level.failures.values()))))
    return figure("load", table, rows=rows)
