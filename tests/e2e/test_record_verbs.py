"""Verbs that read records: history, doctor."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

KEPT = Path(__file__).parents[1] / "records"
REAL = KEPT / "v2-smollm2-135m.json"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "EDGE_HARNESS_HOME": str(tmp_path / "home"), "EDGE_HARNESS_CACHE": str(tmp_path / "cache")}


def verb(*arguments: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_history_shows_the_error_of_each_quantity(environment: dict[str, str]) -> None:
    done = verb("history", str(REAL), "--json", environment=environment)

    assert done.returncode == 0, done.stderr
    (comparison,) = json.loads(done.stdout)["comparisons"]
    errors = {row["name"]: row["predicted"] / row["measured"] - 1 for row in comparison["rows"]}
    # Predicted 159.7 tokens/s; the samples' durations and counts in the file give 133.9 as their median.
    assert round(errors["decode"], 3) == 0.193
    assert set(errors) >= {"decode", "prefill", "first token", "load", "peak memory"}


def test_the_list_draws_a_speed_on_its_prediction(environment: dict[str, str]) -> None:
    verb("history", "--import", str(REAL), environment=environment)
    lines = verb("history", environment={**environment, "COLUMNS": "100"}).stdout.splitlines()

    (head,) = [line for line in lines if "━ likely ● run" in line]
    (row,) = [line for line in lines if "SmolLM2" in line]
    at = head.index("━ likely")
    bar = row[at : at + 12]
    assert set(bar) == set("·━●")
    assert bar.index("●") < bar.rindex("━")  # 133.9 tokens/s, 159.7 were the likeliest


def test_a_speed_that_was_disturbed_all_along_is_shown_and_marked(environment: dict[str, str], tmp_path: Path) -> None:
    told = json.loads(REAL.read_text())
    samples = [s for s in told["samples"] if s["phase"] == "decode"]
    rates = [s["token_count"] / s["duration_s"] for s in samples if not s.get("warm_up")]
    for sample in samples:
        sample["validity"] = {**sample.get("validity", {}), "doubts": ["other processes used 75% of all CPU time"]}
    path = tmp_path / "busy.json"
    path.write_text(json.dumps({**told, "outcome": "inconclusive"}))
    assert verb("history", "--import", str(path), environment=environment).returncode == 0

    done = verb("history", told["run_id"], environment=environment)

    assert f" ({statistics.median(rates):.0f}) tokens/s " in done.stdout, done.stdout + done.stderr


def test_a_stranger_s_file_ends_in_one_line(environment: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "evil.json"
    path.write_text('{"schema_version": 1, "run_id": "x"}')

    done = verb("history", str(path), environment=environment)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "evil.json" in done.stderr


def test_history_lists_speeds_and_takes_the_time_of_a_run(environment: dict[str, str]) -> None:
    for name in ("v2-smollm2-135m.json", "v2-generate.json"):
        assert verb("history", "--import", str(KEPT / name), environment=environment).returncode == 0
    zone = {**environment, "TZ": "UTC", "COLUMNS": "80"}
    lines = verb("history", environment=zone).stdout.splitlines()
    assert lines[0].startswith("2 runs on this machine; 25 Nov")
    assert len(lines) <= 14
    (row,) = [line for line in lines if " 01:00 " in line]
    assert row.split()[3:7] == ["SmolLM2", "135M", "Q4_1", "130"]  # 133.9 of samples a tenth apart
    told = json.loads(REAL.read_text())
    assert told["run_id"] in verb("history", "01:00", "--json", environment=zone).stdout


def test_runs_of_other_files_are_not_compared(environment: dict[str, str], tmp_path: Path) -> None:
    other = json.loads(REAL.read_text())
    other["run_id"] = "20261126T010026217Z-00000000"
    again = tmp_path / "again.json"
    again.write_text(json.dumps(other))
    other["model"]["sha256"] = "0" * 64
    file = tmp_path / "other.json"
    file.write_text(json.dumps(other))
    same = verb("history", str(REAL), str(again), environment=environment)
    assert "95 % interval" in same.stdout.partition(other["run_id"])[2]
    apart = verb("history", str(REAL), str(file), "--json", environment=environment)
    document = json.loads(apart.stdout)
    assert document["differences"] == []
    assert [line.partition(":")[0] for line in document["not_alike"][0]] == ["file"]


def test_doctor_names_what_is_broken(environment: dict[str, str], tmp_path: Path) -> None:
    done = verb("doctor", "--json", environment=environment)
    findings = {f["name"]: f["state"] for f in json.loads(done.stdout)["items"]}
    assert done.returncode == 0
    assert findings["runtime fake"] == "ok"
    assert "history" not in findings

    (tmp_path / "home/history.sqlite").write_bytes(b"torn" * 500)
    done = verb("doctor", "--json", environment=environment)
    assert done.returncode == 4
    assert {f["name"]: f["state"] for f in json.loads(done.stdout)["items"]}["history"] == "broken"


def test_an_unknown_run_is_said_so(environment: dict[str, str]) -> None:
    done = verb("history", "20200101", environment=environment)

    assert done.returncode == 2
    assert "no history yet" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("20260101", "--trend", "load_s"), "--trend' has no meaning with RUN"),
        (("--import", "x.json", "--model", "m"), "--model' has no meaning with RUN or --import"),
        (("20260101", "--limit", "3"), "--limit' has no meaning with RUN"),
        (("--trend", "load_s", "--limit", "3"), "--limit' has no meaning with --trend"),
    ],
)
def test_history_drops_no_option(words: tuple[str, ...], said: str, environment: dict[str, str]) -> None:
    done = verb("history", *words, environment=environment)

    assert done.returncode == 2
    assert said in done.stderr
