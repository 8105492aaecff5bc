"""Markdown for a pull request's comment: short, every name escaped."""

from collections.abc import Sequence

from harness import __version__
from harness.domain.record import RunRecord
from harness.printable import clean
from harness.printable import escape_markdown as escape
from harness.report.document import RunReport
from harness.report.figures import labelled
from harness.report.text import RUN_COLUMNS, amount, compared, run_cells

SIGNS = {"ok": "✅", "inconclusive": "❔"}
_MEANING = (
    "Predictions were made before the models ran. Each run is a process of its own: random tokens, one warm-up; "
    "samples during which the machine was disturbed are left out. Error = (predicted - measured) / measured."
)


def render(_records: Sequence[RunRecord], report: RunReport) -> str:
    """Runs, and their predictions beside their measurements."""
    named = labelled(report.runs)
    lines = ["### edge-harness report", ""]
    runs, agreed = [], []
    for label, run in named:
        cells = run_cells(run.record)
        if run.record.workload != "generate":
            tests = ", ".join(f"{test.label}: {amount(test.unit, test.value)}" for test in run.tests)
            cells = (tests, *["–"] * 4, cells[-1])
        detail = f" ({clean(run.record.detail, 160)})" if run.record.detail else ""
        runs.append((label, *cells, f"{SIGNS.get(run.record.outcome, '❌')} {run.record.outcome}{detail}"))
        for row in run.comparison.rows if run.comparison else ():
            if row.measured is None:
                continue
            predicted, between, measured, error, inside = compared(row)
            measured = f"~~{measured}~~" if row.doubted else measured
            inside = "**outside**" if inside == "outside" else inside
            agreed.append((label, row.name, predicted, between, measured, error, inside))
    lines += _table(("run", *RUN_COLUMNS, "outcome"), runs) if runs else []
    if agreed:
        columns = ("run", "quantity", "predicted", "90 % interval", "measured", "error", "")
        head = ["<details><summary>Predicted against measured</summary>", "", _MEANING, ""]
        lines += [*head, *_table(columns, agreed), "</details>", ""]
    machines = {
        f"{r.record.machine.cpu_model}, {r.record.machine.core_count} cores, {r.record.machine.system}"
        for r in report.runs
    }
    engines = {f"{r.record.engine.name} {r.record.engine.version}" for r in report.runs if r.record.engine}
    said = [f"edge-harness {__version__}", *sorted(machines), *sorted(engines)]
    lines.append(f"<sub>{escape('; '.join(clean(s, 200) for s in said))}</sub>")
    return "\n".join(lines).rstrip() + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c if c == "**outside**" else escape(c) for c in cells) + " |"

    return [line(columns), "|" + "---|" * len(columns), *(line(row) for row in rows), ""]
