"""Several targets in one run: real processes, each an edge-harness of its own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

QUICK = ("--runtime", "fake", "-c", "256", "-p", "16", "-n", "4", "-t", "1", "-r", "1", "--cold-loads", "0")


def run(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "harness", "run", *QUICK, "--json", "--out", str(folder / "out"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def of(done: "subprocess.CompletedProcess[str]", field: str) -> Sequence[str]:
    return [record[field] for record in json.loads(done.stdout)["items"]]


@pytest.mark.shared_machine
def test_a_target_that_cannot_be_reached_is_a_failed_record_and_the_others_go_on(tmp_path: Path) -> None:
    for name in ("good", "half"):
        (tmp_path / f"{name}.json").write_text("{}")
    models = [str(tmp_path / "good.json"), str(tmp_path / "half.json")]

    done = run(tmp_path, *models, "--on", "local,ssh://127.0.0.1:1")

    assert done.returncode == 4, done.stderr
    assert of(done, "outcome") == ["ok", "ok", "failed"]
    lost = json.loads(done.stdout)["items"][-1]
    assert lost["machine"]["device"] == "ssh://127.0.0.1:1"
    assert "refused" in lost["detail"]
    assert len(list((tmp_path / "out").glob("*.json"))) == 2, "each record is kept as it comes"


def test_what_is_no_record_fails_that_target_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "no-such-model.json", "--on", "adb://none,ssh://-oProxyCommand=x")

    assert done.returncode == 4, done.stderr
    assert of(done, "outcome") == ["failed", "failed"]
    assert "Traceback" not in done.stderr


def test_one_target_twice_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "m.json", "--on", "local,local")

    assert done.returncode == 2
    assert "once" in done.stderr
