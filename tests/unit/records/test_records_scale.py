"""The history with many runs: indices are used, memory does not grow with their number."""

import sqlite3
from pathlib import Path

import pytest

from bench.records_scale import measure, year
from harness.app.trend import trends
from harness.errors import BadDataError
from harness.records.history import FORMAT, History
from harness.records.store import encode
from harness.records.store import lines as read_lines


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    made = History(tmp_path_factory.mktemp("home") / "history.sqlite")
    made.extend(year(900))
    return made


def test_trends_are_of_all_runs_that_hold_the_metric(history: History) -> None:
    courses = trends(history.records(limit=10**6), "decode_tokens_per_s")

    assert len(courses) == 800  # 40 boards with 20 models; 100 of them ran twice
    assert sum(len(t.points) for t in courses) == 900
    assert [len(t.points) for t in courses].count(2) == 100


def test_filters_and_limits_are_those_of_the_list(history: History) -> None:
    assert [r.run_id for r in history.records(model="model-01", limit=3)] == [
        e.run_id for e in history.entries(model="model-01", limit=3)
    ]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("SELECT run_id FROM runs WHERE model = 'm' ORDER BY created DESC LIMIT 5", "runs_by_model"),
        ("SELECT run_id FROM runs WHERE device = 'd' ORDER BY created DESC LIMIT 5", "runs_by_device"),
        ("SELECT record FROM runs WHERE run_id >= 'a' AND run_id < 'b'", "sqlite_autoindex_runs_1"),
    ],
)
def test_queries_use_their_index(history: History, query: str, index: str) -> None:
    with sqlite3.connect(history.path) as connection:
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}"))
    assert index in plan


def test_a_history_of_the_first_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    columns = "run_id TEXT PRIMARY KEY, created TEXT, workload TEXT, model TEXT, quant TEXT, device TEXT, outcome TEXT,"
    with sqlite3.connect(path) as old:
        old.execute(f"CREATE TABLE runs ({columns} cell TEXT, record BLOB)")
        old.execute("CREATE INDEX runs_by_model ON runs (model, quant)")
        for r in year(3):
            row = (r.run_id, r.created, r.workload, "m", "q", r.machine.device, r.outcome, "", encode(r))
            old.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        old.execute("INSERT INTO runs VALUES ('broken', '', '', '', '', '', 'ok', '', x'00')")
        old.execute("PRAGMA user_version = 1")
    old.close()

    assert History(path).get(next(year(3)).run_id) == next(year(3))
    assert History(path).count() == 4
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (FORMAT,)


def test_a_broken_line_keeps_nothing_of_the_file(history: History, tmp_path: Path) -> None:
    lines = tmp_path / "some.jsonl"
    lines.write_bytes(b"".join(encode(r) + b"\n" for r in year(3)) + b"{}\n")
    fresh = History(tmp_path / "history.sqlite")
    with pytest.raises(BadDataError, match=r"some\.jsonl:4: schema_version"):
        fresh.extend(read_lines(lines))
    assert fresh.count() == 0


def test_a_run_that_cannot_be_read_is_left_out_and_said_so(tmp_path: Path) -> None:
    past = History(tmp_path / "history.sqlite")
    past.extend(year(3), cell="c")
    with sqlite3.connect(past.path) as connection:
        older = encode(next(year(1))).replace(b'"schema_version":2', b'"schema_version":1')
        row = ("old", "2020", "boundary", "m", "q", "d", "ok", "c", older)
        connection.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    with pytest.warns(UserWarning, match=r"1 run left out: .*schema_version"):
        assert len(list(past.records())) == 3
    assert past.of_cell("c") is None


def test_a_year_comes_back_from_json_lines(history: History, tmp_path: Path) -> None:
    """Each record once, and a second time none."""
    path = tmp_path / "year.jsonl"
    path.write_bytes(b"".join(encode(r) + b"\n" for r in year(900)))

    fresh = History(tmp_path / "history.sqlite")
    for _ in range(2):
        fresh.extend(read_lines(path))
        assert fresh.count() == 900
    assert {r.run_id: r for r in fresh.records()} == {r.run_id: r for r in year(900)}


@pytest.mark.parametrize("bad", [3, 700])
def test_a_broken_line_is_named(tmp_path: Path, bad: int) -> None:
    one = encode(next(year(2)))
    line = one.replace(b'"duration_s":0.5,', b'"duration_s":-0.5,', 1)
    lines = tmp_path / "some.jsonl"
    lines.write_bytes((one + b"\n") * (bad - 1) + line + b"\n" + (one + b"\n") * 50)
    fresh = History(tmp_path / "history.sqlite")
    with pytest.raises(BadDataError, match=rf"some\.jsonl:{bad}: samples\[0\]\.duration_s: found -0\.5, expected"):
        fresh.extend(read_lines(lines))
    assert fresh.count() == 0


@pytest.mark.parametrize("payload", [b"\x04\x22\x4d\x18" + b"\xff" * 40, b"{"])
def test_a_torn_record_is_one_error_with_its_run(tmp_path: Path, payload: bytes) -> None:
    history = History(tmp_path / "history.sqlite")
    history.extend(year(2))
    with sqlite3.connect(history.path) as connection:
        (run_id,) = connection.execute("SELECT min(run_id) FROM runs").fetchone()
        connection.execute("UPDATE runs SET record = ? WHERE run_id = ?", (payload, run_id))
    connection.close()
    with pytest.raises(BadDataError, match=f"run {run_id}: found"):
        history.get(run_id)
    assert len(history.entries()) == 2


@pytest.mark.slow
def test_ten_thousand_records(tmp_path: Path) -> None:
    """Processor time, since others may share the machine: a tenth of the year, so a tenth of what it may take."""
    steps = {step.name: step for step in measure(10_000, tmp_path)}
    assert all(step.status == 0 for step in steps.values())
    assert all(step.peak_bytes < 500 << 20 for step in steps.values())
    assert steps["trend of all"].cpu_seconds < 3.0
    assert steps["query: newest of a model"].cpu_seconds < 2.0
