"""Runs as a table, read back by other readers."""

import csv
import json
from pathlib import Path

import pytest
from msgspec import structs

from harness.core.errors import CouldNotRunError
from harness.core.metric import FIGURES
from harness.records.store import load
from harness.records.table import COLUMNS, write_table

GOOD = load(Path(__file__).parents[2] / "records" / "v2-smollm2-135m.json")
FAILED = structs.replace(GOOD, run_id="f", outcome="out of memory", detail="=1+1", samples=(), memory=None)


def test_csv_and_json_lines_hold_the_same_rows(tmp_path: Path) -> None:
    assert write_table([GOOD, FAILED], tmp_path / "t.csv") == 2
    assert write_table([GOOD, FAILED], tmp_path / "t.jsonl") == 2
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert list(rows[0]) == list(COLUMNS)
    assert [row["run_id"] for row in rows] == [line["run_id"] for line in lines]
    # the record's five clean decode samples: 121.3, 127.7, 133.9, 139.0, 142.7
    assert float(rows[0]["decode_tokens_per_s"]) == pytest.approx(133.9, rel=1e-3)
    assert lines[1]["decode_tokens_per_s"] is None and lines[1]["outcome"] == "out of memory"
    assert rows[1]["detail"] == "'=1+1"  # no formula for a spreadsheet
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_parquet_is_read_by_its_own_library(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    many = [structs.replace(GOOD, run_id=f"r{number}") for number in range(25)]
    assert write_table(many, tmp_path / "t.parquet") == 25
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table.num_rows == 25
    assert table.column("decode_tokens_per_s")[7].as_py() == pytest.approx(133.9, rel=1e-3)
    assert set(FIGURES) <= set(table.column_names)


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CouldNotRunError):
        write_table([GOOD], tmp_path / "file" / "t.csv")
