"""What CONTRIBUTING calls one place is one: a row more is enough."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.core.metric import FIGURES
from harness.core.tables import shipped_rows
from harness.models import ggml

RECORD = Path(__file__).parents[1] / "records" / "v2-smollm2-135m.json"


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_can_be_budgeted_and_followed(name: str, tmp_path: Path) -> None:
    budget = tmp_path / "budgets.toml"
    budget.write_text(f'[[budget]]\nmetric = "{name}"\nceiling = 1e12\n')
    judged = CliRunner().invoke(cli, ["gate", "--budget", str(budget), str(RECORD)])
    assert judged.exit_code in {0, 1, 3, 4}, judged.output + repr(judged.exception)
    shown = CliRunner(env={"EDGE_HARNESS_HOME": str(tmp_path)}).invoke(cli, ["history", "--trend", name])
    assert shown.exit_code == 0, shown.output + repr(shown.exception)


def test_a_type_is_its_row() -> None:
    rows = shipped_rows("data/ggml_types.csv")
    assert list(ggml.BLOCKS) == [row["type"] for row in rows]
    python = [path for path in (Path(ggml.__file__).parents[1]).rglob("*.py") if path.name != "ggml.py"]
    numbers = {f"type_id={row['type_id']}" for row in rows}
    assert [path.name for path in python if any(number in path.read_text("utf-8") for number in numbers)] == []
