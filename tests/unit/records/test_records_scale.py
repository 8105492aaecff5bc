"""The history with many runs: indices are used, trends read no records, memory does not grow with their number."""

import sqlite3
from pathlib import Path

import pytest

from bench.records_scale import measure, trends, year
from harness.app.trend import comparable, trend_of
from harness.errors import BadDataError
from harness.records import bulk
from harness.records.history import FORMAT, History
from harness.records.store import encode


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    made = History(tmp_path_factory.mktemp("home") / "history.sqlite")
    made.extend(year(900))
    return made


@pytest.mark.parametrize("metric", ["decode_tokens_per_s", "load_s", "peak_memory_bytes"])
def test_a_trend_from_figures_is_the_trend_from_the_records(history: History, metric: str) -> None:
    groups = comparable(history.figures(metric, limit=10**6))  # type: ignore[arg-type]
    from_figures = [trend_of(runs, metric) for runs in groups]  # type: ignore[arg-type]
    assert from_figures == trends(list(year(900)), metric)  # type: ignore[arg-type]
    assert len(from_figures) == 800
    assert sum(len(t.points) for t in from_figures) == 900


def test_filters_and_limits_are_those_of_the_list(history: History) -> None:
    ids = [e.run_id for e in history.entries(device="board-03", limit=7)]
    found = [f.run_id for f in history.figures("load_s", device="board-03", limit=7)]
    assert found == ids[::-1]
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


def test_a_history_of_the_first_format_gets_its_figures(tmp_path: Path) -> None:
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

    assert len(list(History(path).figures("decode_tokens_per_s", limit=10))) == 3
    assert History(path).count() == 4
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (FORMAT,)


def test_a_broken_line_keeps_nothing_of_the_file(history: History, tmp_path: Path) -> None:
    lines = tmp_path / "some.jsonl"
    lines.write_bytes(b"".join(encode(r) + b"\n" for r in year(3)) + b"{}\n")
    fresh = History(tmp_path / "history.sqlite")
    with pytest.raises(BadDataError, match=r"some\.jsonl:4: schema_version"):
        fresh.keep(bulk.rows(lines))
    assert fresh.count() == 0


@pytest.mark.parametrize("ending", [".jsonl", ".sqlite", ".parquet"])
def test_a_year_comes_back_from_each_kind_of_file(
    history: History, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In many parts, decoded by several processes: each record once, with its figures, and a second time none."""
    monkeypatch.setattr(bulk, "_PART_BYTES", 100_000)
    monkeypatch.setattr(bulk, "_PART_RUNS", 90)
    path = tmp_path / f"year{ending}"
    if ending == ".jsonl":
        path.write_bytes(b"".join(encode(r) + b"\n" for r in year(900)))
    elif ending == ".sqlite":
        History(path).extend(year(900))
    else:
        assert bulk.export(history, path, limit=2**62) == 900

    fresh = History(tmp_path / "history.sqlite")
    for _ in range(2):
        fresh.keep(bulk.rows(path))
        assert fresh.count() == 900
    assert {r.run_id: r for r in fresh.records()} == {r.run_id: r for r in year(900)}
    figures = [sorted(h.figures("load_s", limit=10**6)) for h in (fresh, history)]
    assert figures[0] == figures[1]


def test_a_table_holds_what_other_tools_read(history: History, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "board.parquet"
    assert bulk.export(history, path, limit=7, device="board-03") == 7
    table = parquet.read_table(path)
    newest = [r for r in year(900) if r.machine.device == "board-03"][::-1][:7]
    assert table["run_id"].to_pylist() == [r.run_id for r in newest]
    # Duration of the k-th load sample, a warm-up for k = 0, from the formula in ``year``.
    loads = [[0.5 * (1 + ((7 * i + 3 * k) % 11) / 100) for k in range(1, 5)] for i in range(899, 0, -1) if i % 40 == 3]
    assert table["load_s"].to_pylist() == loads[:7]
    assert table["acceptance_ratio"].to_pylist() == [None] * 7


@pytest.mark.parametrize("bad", [3, 7_000])
def test_a_broken_line_is_named_in_any_part(tmp_path: Path, bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_PART_BYTES", 200_000)
    monkeypatch.setattr(bulk, "_AHEAD", 2)
    one = encode(next(year(2)))
    line = one.replace(b'"duration_s":0.5,', b'"duration_s":-0.5,', 1)
    lines = tmp_path / "some.jsonl"
    lines.write_bytes((one + b"\n") * (bad - 1) + line + b"\n" + (one + b"\n") * 50)
    fresh = History(tmp_path / "history.sqlite")
    with pytest.raises(BadDataError, match=rf"some\.jsonl:{bad}: samples\[0\]\.duration_s: found -0\.5, expected"):
        fresh.keep(bulk.rows(lines))
    assert fresh.count() == 0


@pytest.mark.parametrize("payload", [b"\x04\x22\x4d\x18", b"\x04\x22\x4d\x18" + b"\xff" * 40, b"{"])
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
    assert steps["trend of all"].cpu_seconds < 2.0
    assert steps["query: newest of a model"].cpu_seconds < 2.0
