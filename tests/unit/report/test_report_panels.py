"""Sections that installed packages make of records, on the page."""

from pathlib import Path

import pytest
from report_records import HOSTILE, record

from harness.domain.record import Sample
from harness.domain.result import SystemResult
from harness.records.store import load
from harness.report.formats import html
from harness.report.pages import page_of
from harness.report.panels import sections

pytest.importorskip("harness.workloads")


def sample(label: str, duration_s: float) -> Sample:
    return Sample(phase="workload", label=label, token_count=1, duration_s=duration_s, started_unix_s=0.0)


def measured(**more):
    latency = {"mid": 0.0012, "low": 0.001, "high": 0.0014}
    predicted = {"kind": "ask", "latency_s": latency, "parts_s": {"encoder": 0.001, "glue": 0.0002}}
    told = {
        "size": {"entry_count": 500},
        "parts": {"encoder": "MiniLM"},
        "quality": {"recall": {"mid": 0.68, "low": 0.6, "high": 0.75}, "count": 3},
        "predicted": (predicted,),
    }
    samples = [sample("ask", 0.001), sample("tell", 0.002)]
    return record(
        workload="memory_store", model=None, samples=samples, prediction=None, result=SystemResult(**(told | more))
    )


def test_a_step_stands_beside_its_prediction() -> None:
    ((title, (panel,)),) = sections([measured()])

    assert (title, panel.label) == ("Systems", "memory_store, parts: encoder MiniLM")
    # 1.2 ms predicted, 1 ms measured; telling was not predicted
    assert panel.rows == [
        ["ask", "1 ms", "1 ms", "1.2 ms", "+20%", "encoder"],
        ["tell", "2 ms", "2 ms", "-", "-", ""],
    ]
    assert panel.facts == [("recall", "0.68 (0.6 to 0.75)"), ("count", "3")]


def test_page_folds_the_figures_and_runs_no_strangers_text() -> None:
    pytest.importorskip("jinja2", reason="the report extra is not installed")
    page = html.render(page_of([measured(quality={HOSTILE: HOSTILE})]))
    section = page.partition("<summary>Systems</summary>")[2].partition("</details>")[0]

    assert "<td>1.2 ms</td><td>+20%</td>" in section
    assert "<h3>memory_store, parts: encoder MiniLM</h3>" in section
    assert HOSTILE not in page


def test_a_result_stands_in_the_section_of_its_kind() -> None:
    run = load(Path(__file__).parents[2] / "records" / "v2-speculate.json")

    ((title, (panel,)),) = sections([run])

    assert (title, panel.columns) == ("Speculation", ["", "measured", "predicted"])
    assert ["speedup", f"{run.result.speedup_ratio:.3g}"] in [list(row[:2]) for row in panel.rows]
