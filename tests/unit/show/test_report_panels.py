"""Sections that installed packages make of records, on the page."""

from pathlib import Path

import pytest
from report_records import HOSTILE, record

from harness.core.record import MemoryUse, Sample
from harness.core.result import PartMemory, PassFigures, Score, SystemResult
from harness.records.store import load
from harness.show import html
from harness.show.findings import result_panels
from harness.show.pages import page_of
from harness.show.panels import offered

pytest.importorskip("harness.workloads")


def sample(label: str, duration_s: float) -> Sample:
    return Sample(phase="workload", label=label, token_count=1, duration_s=duration_s, started_unix_s=0.0)


def measured(**more):
    whole = PassFigures(
        step="ask", part="", op="all", p50_s=0.001, p95_s=0.002, predicted_p50_s=0.0012, predicted_p95_s=0.003
    )
    known = PassFigures(step="ask", part="encoder", op="embed", tokens=9, p50_s=0.0009, p95_s=0.001)
    score = Score(
        name="recall_at_10", group="ask", value=0.68, low=0.6, high=0.75, count=3, nulls={"newest first": 0.7}
    )
    told = {
        "size": {"entry_count": 500},
        "parts": {"encoder": "MiniLM"},
        "scores": (score,),
        "passes": (whole, known),
        "memory": (PartMemory(part="encoder", file_bytes=43 << 20, arena_bytes=2 << 20, predicted_bytes=10 << 20),),
        "predicted_anonymous_bytes": 100 << 20,
    }
    samples = [sample("ask", 0.001)]
    memory = MemoryUse(peak_rss_bytes=90 << 20, peak_anonymous_bytes=80 << 20)
    result = SystemResult(**(told | more))
    return record(workload="memory", model=None, samples=samples, prediction=None, memory=memory, result=result)


def test_a_step_stands_beside_its_prediction_and_a_figure_beside_its_null() -> None:
    (panel,) = offered([measured()])

    assert (panel.title, panel.label) == ("Systems", "memory, parts: encoder MiniLM")
    # 1.2 ms predicted, 1 ms measured; the other part has no law
    assert panel.rows == [
        ["ask", "-", "all", "-", "1 ms", "2 ms", "1.2 ms", "3 ms", "+20%"],
        ["ask", "encoder", "embed", "9", "900 µs", "1 ms", "-", "-", "-"],
        ["memory", "encoder", "file 43 MiB, cache 0 B, arena 2 MiB", "-", "-", "-", "10 MiB", "-", "-"],
        ["memory", "-", "all", "-", "80 MiB", "-", "100 MiB", "-", "+25%"],
    ]
    facts = dict(panel.facts)
    assert facts["ask: recall at 10"] == "0.68 (0.6 to 0.75), 3 cases; newest first: 0.7 does not beat it"


def test_page_folds_the_figures_and_runs_no_strangers_text() -> None:
    pytest.importorskip("jinja2", reason="the report extra is not installed")
    page = html.render(page_of([measured(scores=(Score(name=HOSTILE, group=HOSTILE, value=1.0),))]))
    section = page.partition("<summary>Systems</summary>")[2].partition("</details>")[0]

    assert ">1.2 ms</td>" in section and ">+20%</td>" in section
    assert "<h3>memory, parts: encoder MiniLM</h3>" in section
    assert HOSTILE not in page


def test_a_result_stands_in_the_section_of_its_kind() -> None:
    run = load(Path(__file__).parents[2] / "records" / "v2-speculate.json")

    (panel,) = result_panels(run)

    assert panel.title == "Speculation"
    assert "<summary>Speculation</summary>" in html.render(page_of([run]))
    assert ["speedup", f"{run.result.speedup_ratio:.3g}"] in [list(row[:2]) for row in panel.rows]
