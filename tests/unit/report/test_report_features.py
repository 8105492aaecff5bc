"""Features that an evaluation found, on the page."""

import pytest
from report_records import HOSTILE, record

from harness.domain.result import System
from harness.report.document import build
from harness.report.features import excerpt, feature_panels
from harness.report.figures import labelled
from harness.report.formats import html


def feature(index: int, **more) -> dict:
    place = {"activation": 12.5, "before": "the quick\n", "token": " brown", "after": " fox jumps"}
    return {
        "index": index,
        "firing_ratio": 0.0125,
        "mean_activation": 3.0,
        "same_token_ratio": 1.0,
        "contexts": [place | more],
    }


def evaluated(*features: dict, **more):
    return record(
        workload="sparse_autoencoder",
        model=None,
        result=System(
            size={},
            evaluation={
                "model": "small.gguf",
                "tensor": "l_out-15",
                "held_out": {"active_count": 32.0, "fvu_ratio": 0.181},
                "loss": {"recovered_zero_ratio": 0.972},
                "generation": {"plain_s": 0.004, "reading_s": 0.0041, "spliced_s": 0.005},
                "features": list(features),
            },
        ),
        **more,
    )


def panels(*records):
    return feature_panels(labelled(build(list(records)).runs), records)


def test_page_shows_each_feature_with_its_marked_token() -> None:
    pytest.importorskip("vl_convert", reason="the report extra is not installed")
    records = [evaluated(feature(17), feature(4000, token="\n"))]
    page = html.render(records, build(records))

    section = page.partition('<section id="features"')[2].partition("</section>")[0]
    assert '<th scope="row" class="n">17</th><td class="n">1.25 %</td>' in section
    assert "the quick⏎<mark> brown</mark> fox jumps</p>" in section
    assert "<mark>⏎</mark> fox" in section
    assert "32.0 features a token leave 0.181 of the variance" in section
    assert "recover 0.972 of the loss" in section
    assert "4.00 ms a token without them and 5.00 ms with them" in section
    assert '<a href="#features">' in page


def test_text_of_strangers_is_escaped() -> None:
    pytest.importorskip("vl_convert", reason="the report extra is not installed")
    records = [evaluated(feature(1, before=HOSTILE, token=HOSTILE, after=HOSTILE))]
    page = html.render(records, build(records))
    assert "<img src=x" not in page
    assert "\u202e" not in page


def test_other_records_and_other_shapes_have_no_panel() -> None:
    broken = {"index": 3, "contexts": "none"}
    assert (
        panels(
            record(),
            evaluated(),
            evaluated(broken),
            record(run_id="x", result=System(size={}, evaluation={"features": 7})),
        )
        == []
    )
    held_is_text = record(
        run_id="y", result=System(size={}, evaluation={"features": [feature(6)], "held_out": "?", "loss": [1]})
    )
    assert [p.note for p in panels(held_is_text)] == [""]
    (panel,) = panels(evaluated(broken, feature(5)))
    assert [feature.index for feature in panel.features] == [5]


def test_long_text_keeps_what_stands_next_to_the_token() -> None:
    before, after = excerpt("a" * 100 + "near", end=True), excerpt("next" + "b" * 100)
    assert before.startswith("…") and before.endswith("near")
    assert after.startswith("next") and after.endswith("…")
