"""A slip in any table that ships is an error that names the file, the row and the column."""

from pathlib import Path

import pytest

import harness
from tests.recipes.planted import Typo, plant, typos

TYPOS = typos()
ROOT = Path(harness.__file__).parent
NOT_YET = {"ruff.toml", "data/quantisations.toml", "data/names.toml", "data/formats.toml", "data/other_models.toml"}
"""Tables whose words no reader declares yet."""


def test_at_least_forty_typos_are_planted_over_all_tables() -> None:
    assert len(TYPOS) >= 40
    paths = {file.relative_to(ROOT).as_posix() for kind in ("csv", "toml") for file in ROOT.rglob(f"*.{kind}")}
    tables = {path for path in paths if not path.startswith("published/") and path not in NOT_YET}
    assert [path for path in tables if not any(path.endswith(one.table) for one in TYPOS)] == []


@pytest.mark.parametrize("one", TYPOS, ids=lambda one: f"{one.table.rsplit('/')[-1]}: {one.typo}")
def test_a_typo_is_an_error_with_file_row_and_column(one: Typo) -> None:
    error, place = plant(one)

    assert error.startswith(place), f"found {error or 'no error'}"
