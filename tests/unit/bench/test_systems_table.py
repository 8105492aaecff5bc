"""The table of systems against a record written by hand: figures, intervals, percentiles, and what is missing."""

import json
from pathlib import Path

import pytest

from bench.renderers import router_table, systems_table

RECORDS = Path(__file__).parents[3] / "reports" / "workloads" / "default.json"


@pytest.fixture
def records(tmp_path):
    """(speeds, evaluations): one workload of the real records, times and answers replaced by hand."""
    (record,) = [r for r in json.loads(RECORDS.read_text()) if r["workload"] == "grounded_vision"]
    (other,) = [r for r in json.loads(RECORDS.read_text()) if r["workload"] == "training_efficiency"]
    sample = record["samples"][0] | {"token_count": 2, "warm_up": False}
    record["samples"] = [
        sample | {"label": label, "duration_s": 2 * seconds, "energy_joules": joules}
        for label, seconds, joules in [("cut", 0.001, None), *(("encode", 0.1 * n, 3.0 * n) for n in range(1, 21))]
    ]
    speeds, judged = tmp_path / "speeds.json", tmp_path / "judged.json"
    speeds.write_text(json.dumps([record]))
    record["result"]["evaluation"] = {
        "read": {
            "regions": {"share": 0.75, "low": 0.7, "high": 0.8},
            "base": {"share": 0.5, "low": 0.4, "high": 0.6},
        },
        "tracking": {"misses": {"idf1": 0.9}, "none": {"idf1": 1.0}},
    }
    hits = {"measured": 0.5, "most_wanted": 0.4, "by_default_skew": 0.45, "by_skew": 0.3, "by_skew_and_reuse": 0.35}
    other["result"]["evaluation"] = {"hits": {"50% of the experts in memory": hits}}
    judged.write_text(json.dumps([record, other]))
    return speeds, judged


def cells(text, words):
    (line,) = [line for line in text.splitlines() if words in line]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_quality_stands_beside_its_baseline_and_the_slowest_operation(records):
    row = cells(systems_table(*records), "words read from regions")
    assert row[2:4] == ["0.75 (0.7 to 0.8)", "one copy, as many pixels: 0.5 (0.4 to 0.6)"]
    # twenty calls of 0.1 to 2 s: the median 1.05 s, the nineteenth is the 95th percentile; joules 1.5 to 30 a call
    assert row[4] == "encode: 1.05 s / 1.9 s"
    assert row[7] == "15.8 J a call"
    later = cells(systems_table(*records), "IDF1")
    assert later[2:5] == ["0.9", "nothing missed: 1", ""]


def test_what_was_not_evaluated_says_so(records):
    speeds, _ = records
    assert cells(systems_table(speeds), "words read from regions")[2] == "not evaluated here"
    assert cells(systems_table(*records), "HOTA")[2] == "-"


def test_a_table_without_its_evaluation_is_refused(records):
    speeds, _ = records
    with pytest.raises(ValueError, match=r"no evaluation with 'hits' in .*speeds\.json"):
        router_table(speeds)


def test_hits_of_a_router(records):
    row = cells(router_table(records[1]), "50% of the experts")
    assert row[1:] == ["50.0%", "40.0%", "45.0%", "30.0%", "35.0%"]
