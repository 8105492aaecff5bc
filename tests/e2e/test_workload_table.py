"""The table of workloads, and their records in the history, from the command line."""

import json
import os
import subprocess
import sys

import pytest


def call(home, *arguments):
    command = [sys.executable, "-m", "harness", *arguments]
    environment = {"EDGE_HARNESS_HOME": str(home), "EDGE_HARNESS_CACHE": str(home)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, env={**os.environ, **environment}
    )
    return done.returncode, done.stdout, done.stderr


def test_table_predicts_for_five_devices_and_tells_what_was_skipped(tmp_path):
    out = tmp_path / "table.md"
    names = ("calibration", "reasoning", "debate")
    status, text, told = call(
        tmp_path, "workloads", "table", *names, "--size", "small", "-r", "3", "--table", str(out), "--json"
    )
    assert status in {0, 4}, told  # 4: the machine was busy, and the table says so
    found = json.loads(text)
    assert len(found["devices"]) == 5
    rows = found["rows"]
    assert {r["workload"] for r in rows} == {"calibration", "reasoning"}
    for row in rows:
        assert set(row["elsewhere"]) == set(found["devices"])
        assert all(seconds > 0 for seconds in row["elsewhere"].values())
        assert row["peak_rss_bytes"] > 10 << 20
        assert row["error_ratio"] == pytest.approx(row["predicted_s"] / row["p50_s"] - 1)
    disturbed = {r["workload"] for r in found["failed"]}
    errors = sorted(abs(r["error_ratio"]) for r in rows if r["workload"] not in disturbed)
    if errors:
        middle = (errors[(len(errors) - 1) // 2] + errors[len(errors) // 2]) / 2
        assert found["median_error_ratio"] == pytest.approx(middle)
    else:
        assert found["median_error_ratio"] is None
    assert [s["workload"] for s in found["skipped"]] == ["debate"]  # it needs a language model
    assert "iphone-16-pro" in out.read_text()

    status, text, told = call(tmp_path, "history", "--json")
    assert status == 0, told
    assert "calibration" in text
    assert "reasoning" in text


def test_fit_counts_what_lives_beside_the_model(tmp_path):
    plain = ("fit", "llama-3.2-1b", "-d", "iphone-16-pro", "--no-advice", "--json")
    alone = json.loads(call(tmp_path, *plain)[1])["prediction"]
    status, text, told = call(tmp_path, *plain, "--with", "memory_store:large")
    assert status == 0, told
    both = json.loads(text)["prediction"]
    part = both["memory"]["parts"][-1]
    assert part["name"] == "memory_store large"
    added = part["anonymous_bytes"] + part["file_bytes"]
    assert both["verdict"]["needed_bytes"] == alone["verdict"]["needed_bytes"] + added
    status, _, told = call(tmp_path, *plain, "--with", "memory_store:huge")
    assert status == 2
    assert "small, default, large" in told
