"""Markdown for a pull request's comment: short, every name escaped."""

from collections.abc import Sequence

from harness.domain.record import RunRecord
from harness.printable import clean
from harness.printable import escape_markdown as escape
from harness.report.document import Measured, Report, RunView
from harness.report.figures import labelled
from harness.report.text import amount, compared, digits
from harness.units import format_bytes, format_seconds

SIGNS = {"ok": "✅", "inconclusive": "❔"}
_MEANING = (
    "Predictions were made before the models ran. Each run is a process of its own: random tokens, one warm-up; "
    "samples during which the machine was disturbed are left out. Error = (predicted - measured) / measured."
)


def render(_records: Sequence[RunRecord], report: Report) -> str:
    """Four tables at most: runs, times of tokens, predictions beside measurements, and what fits where."""
    named = labelled(report.runs)
    lines = ["### edge-harness report", ""]
    if named:
        lines += _runs(named) + _latency(named) + _agreement(named)
    if report.choices:
        lines += _fits(report)
    machines = {f"{r.machine.cpu_model}, {r.machine.core_count} cores, {r.machine.system}" for r in report.runs}
    engines = {f"{r.engine.name} {r.engine.version}" for r in report.runs if r.engine}
    said = [f"edge-harness {report.harness_version}", *sorted(machines), *sorted(engines)]
    lines.append(f"<sub>{escape('; '.join(clean(s, 200) for s in said))}</sub>")
    return "\n".join(lines).rstrip() + "\n"


def _runs(named: list[tuple[str, RunView]]) -> list[str]:
    rows = []
    for label, run in named:
        first = [t for t in run.tests if "@" not in t.label or run.scenario.depth_tokens]
        tests = {t.phase: t for t in reversed(first)}
        shown = [_value(tests.get(phase)) for phase in ("prefill", "decode", "first_token")]
        if run.workload != "generate":
            shown = [", ".join(f"{t.label}: {amount(t.unit, t.value)}" for t in run.tests), "–", "–"]
        peak = format_bytes(run.peak_memory_bytes) if run.peak_memory_bytes else "–"
        detail = f" ({clean(run.detail, 160)})" if run.detail else ""
        rows.append((label, *shown, peak, f"{SIGNS.get(run.outcome, '❌')} {run.outcome}{detail}"))
    return _table(("run", "prefill", "decode", "first token", "peak memory", "outcome"), rows)


def _latency(named: list[tuple[str, RunView]]) -> list[str]:
    rows = [
        (label, each.label, *map(format_seconds, (each.p50_s, each.p90_s, each.p99_s)), str(each.token_count))
        for label, run in named
        for each in run.latency
    ]
    return _table(("run", "test", "median of a token", "90 %", "99 %", "tokens"), rows) if rows else []


def _agreement(named: list[tuple[str, RunView]]) -> list[str]:
    rows = []
    for label, run in named:
        for row in run.comparison.rows if run.comparison else ():
            if row.measured is None:
                continue
            predicted, between, measured, error = compared(row)
            measured = f"~~{measured}~~" if row.doubted else measured
            inside = "disturbed" if row.doubted else "inside" if row.inside else "**outside**"
            rows.append((label, row.name, predicted, between, measured, error, inside))
    if not rows:
        return []
    columns = ("run", "quantity", "predicted", "90 % interval", "measured", "error", "")
    head = ["<details><summary>Predicted against measured</summary>", "", _MEANING, ""]
    return [*head, *_table(columns, rows), "</details>", ""]


def _fits(report: Report, devices_max: int = 20) -> list[str]:
    """The largest model that fits on each device."""
    c = report.choices
    assert c is not None
    rows = []
    for d, device in enumerate(c.devices[:devices_max]):
        words = c.shown(d)
        fits = [m for m, word in enumerate(words) if word == "0"]
        best = c.models[fits[-1]].title if fits else "none"
        speed = f"{digits(c.shown_speed(d, fits[-1]))} tokens/s" if fits else "–"
        rows.append((device.title, str(len(fits)), str(words.count("1")), str(words.count("2")), best, speed))
    quant, context = c.quants[c.default_quant], c.contexts[c.default_context]
    head = f"Predicted in {escape(quant)} with {context} tokens of context:"
    rest = [f"… and {len(c.devices) - devices_max} devices more.", ""] if len(c.devices) > devices_max else []
    columns = ("device", "fit", "fit with streaming", "do not", "largest that fits", "its speed")
    return [head, "", *_table(columns, rows), *rest]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c if c == "**outside**" else escape(c) for c in cells) + " |"

    return [line(columns), "|" + "---|" * len(columns), *(line(row) for row in rows), ""]


def _value(test: Measured | None) -> str:
    return "–" if test is None or test.value is None else amount(test.unit, test.value)
