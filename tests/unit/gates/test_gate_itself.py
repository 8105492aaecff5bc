"""A run is no evidence beside itself."""

from pathlib import Path

from click.testing import CliRunner

from harness.cli import cli

RECORD = Path(__file__).parents[2] / "records" / "v2-generate.json"


def test_a_run_that_is_its_own_baseline_is_refused(tmp_path: Path) -> None:
    budget = tmp_path / "budgets.toml"
    budget.write_text('[[budget]]\nmetric = "decode_tokens_per_s"\nbaseline_ratio = 0.9\n')
    words = ["gate", "--budget", str(budget), "--baseline", str(RECORD), str(RECORD)]
    done = CliRunner(env={"EDGE_HARNESS_HOME": str(tmp_path)}).invoke(cli, words)
    assert done.exit_code != 0
    assert "is in --baseline too" in str(done.exception)
