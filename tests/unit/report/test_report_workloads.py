"""Workloads on the page: operations beside their predictions, and what they answered."""

import pytest
from report_records import HOSTILE, record

from harness.domain.record import Sample
from harness.domain.result import System
from harness.report.document import build
from harness.report.figures import labelled
from harness.report.formats import html
from harness.report.workloads import better, flat, workload_panels


def sample(label: str, duration_s: float, calls: int) -> Sample:
    return Sample(phase="workload", label=label, token_count=calls, duration_s=duration_s, started_unix_s=0.0)


def measured(**more):
    said = {"operation": "retrieve", "latency_s": {"mid": 0.0012, "low": 0.001, "high": 0.0014}, "limit": "memory"}
    told = {
        "size": {"entry_count": 500},
        "quality": {"recall_ratio": 0.68, "index_bytes": 3 * 2**20},
        "predicted": (said,),
        "units": {"python_op_s": 1e-9},
    }
    calls = [sample("retrieve", 0.004, 4), sample("store", 0.02, 10)]
    return record(workload="memory_store", model=None, samples=calls, prediction=None, result=System(**(told | more)))


def test_an_operation_stands_beside_its_prediction() -> None:
    run = measured()
    (panel,) = workload_panels(labelled(build([run]).runs), [run])

    # 4 ms for 4 calls: 1 ms each, predicted 1.2 ms; storing was not predicted
    assert panel.rows == [
        ("retrieve", "1 ms", "1.2 ms", "+20%", "memory", "1"),
        ("store", "2 ms", "–", "–", "–", "1"),
    ]
    assert panel.results == [("entry count", "500"), ("recall ratio", "0.68"), ("index bytes", "3 MiB")]


def test_page_folds_the_answers() -> None:
    pytest.importorskip("vl_convert", reason="the report extra is not installed")
    run = measured(quality={HOSTILE: HOSTILE})
    page = html.render([run], build([run]))
    section = page.partition('<section id="workloads"')[2].partition("</section>")[0]

    assert '<td class="n">1.2 ms</td><td class="n">+20%</td>' in section
    assert "<details><summary>memory_store: what it answered</summary>" in section
    assert HOSTILE not in section
    assert "python op" not in section


def test_values_in_the_unit_of_their_name() -> None:
    told = {
        "a": {
            "b_bytes": 1024,
            "c_s": 0.5,
            "d_per_s": 2.5,
            "e": True,
            "f": None,
            "g": [1] * 9,
            "i": [{"x": 1}],
            "h": "word",
        }
    }
    assert flat("", told) == [
        ("a.b_bytes", "1 KiB"),
        ("a.c_s", "500 ms"),
        ("a.d_per_s", "2.5"),
        ("a.e", "yes"),
        ("a.h", "word"),
    ]


@pytest.mark.parametrize(
    ("key", "way"),
    [
        ("quality.smooth_ece", "lower"),
        ("quality.tracks.idf1", "higher"),
        ("quality.top_overlap.ort int4", "higher"),
        ("evaluation.gsm8k.false_alarm_ratio", "lower"),
        ("quality.loss_after", "lower"),
        ("quality.pieces_count", ""),
        ("quality.lora.available_bytes", ""),
    ],
)
def test_a_figure_says_which_way_is_better(key, way):
    assert better(key) == way
