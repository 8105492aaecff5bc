"""Every workload that needs no model runs from the command line, in a child, and checks itself."""

import json
import subprocess
import sys

import pytest

from harness import plugins

SMALL = {
    "grounded_vision": "small",
    "memory_store": "entry_count=400",
    "reasoning": "trace_count=50",
    "calibration": "row_count=4000",
    "training_efficiency": "small",
    "sparse_autoencoder": "small",
    "probe": "small",
}


def call(*arguments):
    command = [sys.executable, "-m", "harness", "workloads", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def test_list_names_every_workload():
    status, found = call("list")
    assert status == 0
    assert [w["name"] for w in found] == plugins.names("harness.workloads")
    assert all("default" in w["sizes"] for w in found)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("reasoning", "--cases", "3"), "--cases needs --evaluate"),
        (("calibration", "--cases", "all", "--evaluate"), "calibration was asked for"),
        (("reasoning", "--cases", "1", "--evaluate"), "expected 2 to"),
    ],
)
def test_a_number_of_cases_is_refused_where_it_would_change_nothing(arguments, says):
    status, found = call("run", *arguments)
    assert status == 2
    assert says in str(found)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_run_measures_predicts_and_checks(name, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path))
    status, found = call("run", name, "--size", SMALL[name], "-r", "3", "--predict-for", "iphone-16-pro")
    record = found["record"]
    # A busy machine is no failure of the workload: the run says so and ends with 4.
    assert (status, record["outcome"]) in {(0, "ok"), (4, "inconclusive")}, found
    assert record["workload"] == name
    assert record["result"]["quality"]
    assert record["memory"]["peak_rss_bytes"] > 10 << 20
    assert len(found["operations"]) == len(found["elsewhere"]["iphone-16-pro"])
    for operation in found["operations"]:
        assert 0 < operation["p50_s"] <= operation["p95_s"]
        assert operation["predicted"]["latency_s"]["mid"] > 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("run", "memory_stor"), "memory_store"),
        (("run", "calibration", "--size", "huge"), "small, default, large"),
        (("run", "calibration", "--predict-for", "no-such-device"), "no-such-device"),
    ],
)
def test_bad_input_says_what_is_wrong(arguments, word):
    status, found = call(*arguments)
    assert status == 2
    assert word in found["error"]["message"]
