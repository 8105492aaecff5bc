"""A run is no evidence beside itself; what is told while runs are made in turns."""

from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from harness.cli import cli
from harness.records.store import load

RECORD = Path(__file__).parents[2] / "records" / "v2-generate.json"


def test_a_run_that_is_its_own_baseline_is_refused(tmp_path: Path) -> None:
    budget = tmp_path / "budgets.toml"
    budget.write_text('[[budget]]\nmetric = "decode_tokens_per_s"\nbaseline_ratio = 0.9\n')
    words = ["gate", "--budget", str(budget), "--baseline", str(RECORD), str(RECORD)]
    done = CliRunner(env={"EDGE_HARNESS_HOME": str(tmp_path)}).invoke(cli, words)
    assert done.exit_code != 0
    assert "is in --baseline too" in str(done.exception)


def test_each_turn_has_a_line_where_there_is_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, numbers = load(RECORD), count()
    monkeypatch.setattr(
        "harness.gates.live.run_side", lambda _command, timeout_s: replace(one, run_id=f"r{next(numbers)}")
    )
    budget = tmp_path / "budgets.toml"
    budget.write_text('[[budget]]\nmetric = "decode_tokens_per_s"\nbaseline_ratio = 0.9\n')
    words = ["gate", "live", "--budget", str(budget), "--candidate", "new", "--baseline", "old", "--max-turns", "6"]
    told = CliRunner(env={"EDGE_HARNESS_HOME": str(tmp_path)}).invoke(cli, words).stderr.splitlines()
    assert "running the gate, at most 6 turns" in told
    assert [line for line in told if line.startswith("turn ")] == [f"turn {n} of at most 6" for n in range(1, 7)]
