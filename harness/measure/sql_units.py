"""What SQLite takes here, in a database of the probe's own in the folder for temporary files."""

import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from harness.measure.interpreter import usual

_PAGE_BYTES: Final = 4096
_ROWS: Final = 2000
_SCATTERED: Final = 32
_WORDS: Final = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty", "knoll")
_TEXT_TERMS: Final = 8
_REPEATS: Final = 25
_SHM_FRAMES_END: Final = 20


class SqlUnits(NamedTuple):
    """Seconds of a statement, a row, a transaction, a byte of its pages, an index's term, a checkpoint, its byte."""

    statement_s: float
    row_s: float
    commit_s: float
    log_byte_s: float
    text_term_s: float
    checkpoint_s: float
    checkpoint_byte_s: float


def sql_units() -> SqlUnits:
    """Time each; what a call does beside its unit is taken off by units found before."""
    with tempfile.TemporaryDirectory(prefix="edge-harness-units-") as folder:
        db = _filled(Path(folder) / "units.db")
        one = "SELECT a, b, c FROM t WHERE id = ?"
        statement_s = usual(lambda: db.execute(one, (1234,)).fetchone())
        rows_s = usual(lambda: db.execute("SELECT a, b, c FROM t").fetchall())
        row_s = max(rows_s - statement_s, 0.0) / _ROWS
        # A row a page: as many updates of one row change one page, and of as many rows that many.
        few_s, few_bytes = _transaction(db, _updates(db, 1))
        same_s, same_bytes = _transaction(db, _updates(db, _SCATTERED, step=0))
        many_s, many_bytes = _transaction(db, _updates(db, _SCATTERED))
        log_byte_s = max(many_s - same_s, 0.0) / (many_bytes - same_bytes)
        commit_s = max(few_s - statement_s - few_bytes * log_byte_s, 0.0)
        text_s, text_bytes = _transaction(db, _texts(db))
        text_term_s = max(text_s - commit_s - 2 * statement_s - text_bytes * log_byte_s, 0.0) / (2 * _TEXT_TERMS)
        short_s = _checkpoint(db, 1) - few_s
        long_s = _checkpoint(db, _SCATTERED) - many_s
        checkpoint_byte_s = max(long_s - short_s, 0.0) / (many_bytes - few_bytes)
        checkpoint_s = max(short_s - few_bytes * checkpoint_byte_s, 0.0)
        db.close()
    return SqlUnits(statement_s, row_s, commit_s, log_byte_s, text_term_s, checkpoint_s, checkpoint_byte_s)


def flush_s() -> float:
    """Middle time of a page written behind the end of a file and waited for."""
    times = []
    with tempfile.TemporaryFile(prefix="edge-harness-units-", buffering=0) as file:
        for _ in range(_REPEATS):
            file.write(bytes(2 * _PAGE_BYTES))
            begin = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]


def _filled(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(str(path), isolation_level=None)
    db.execute(f"PRAGMA page_size={_PAGE_BYTES}")
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON", "wal_autocheckpoint=0"):
        db.execute(f"PRAGMA {pragma}")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b REAL, c INTEGER)")
    db.execute("CREATE TABLE wide(id INTEGER PRIMARY KEY, a TEXT, c INTEGER)")
    db.execute("CREATE VIRTUAL TABLE texts USING fts5(words)")
    db.execute("INSERT INTO texts(texts, rank) VALUES ('secure-delete', 1)")
    db.execute("BEGIN")
    db.executemany("INSERT INTO t(a, b, c) VALUES (?, ?, ?)", ((f"row {i}", i / 7, i) for i in range(_ROWS)))
    filler = "x" * (_PAGE_BYTES // 2)
    db.executemany("INSERT INTO wide(a, c) VALUES (?, ?)", ((filler, i) for i in range(4 * _SCATTERED)))
    db.executemany("INSERT INTO texts(rowid, words) VALUES (?, ?)", ((i, _text(i)) for i in range(1, _ROWS)))
    db.execute("COMMIT")
    db.execute("INSERT INTO texts(texts) VALUES ('optimize')")
    _truncate(db)
    return db


def _text(number: int) -> str:
    """Eight terms: common words, rarer ones, and one that no other text has."""
    common = [_WORDS[(number * step) % len(_WORDS)] + str(step) for step in range(1, _TEXT_TERMS - 1)]
    return " ".join((*common, f"q{number}", f"r{number % 97}"))


def _updates(db: sqlite3.Connection, count: int, *, step: int = 4) -> Callable[[], None]:
    def change() -> None:
        for at in range(count):
            db.execute("UPDATE wide SET c = c + 1 WHERE id = ?", (step * at + 1,))

    return change


def _texts(db: sqlite3.Connection) -> Callable[[], None]:
    turn = iter(range(1, _ROWS))

    def change() -> None:
        old = next(turn)
        db.execute("DELETE FROM texts WHERE rowid = ?", (old,))
        db.execute("INSERT INTO texts(rowid, words) VALUES (?, ?)", (_ROWS + old, _text(_ROWS + old)))

    return change


def _transaction(db: sqlite3.Connection, change: Callable[[], None]) -> tuple[float, float]:
    """(middle time, bytes put into the log) of a transaction.

    The log has its size already and is written over, as that of a database in use; the first transaction after a
    restart of the log, which waits for its head to be on the disk, is not counted.
    """
    call = _within(db, change)
    for _ in range(_REPEATS + 2):
        call()
    db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    call()
    before = _log_frames(db)
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    frames = (_log_frames(db) - before) / _REPEATS
    return sorted(times)[len(times) // 2], frames * _PAGE_BYTES


def _within(db: sqlite3.Connection, change: Callable[[], None]) -> Callable[[], None]:
    def call() -> None:
        db.execute("BEGIN IMMEDIATE")
        change()
        db.execute("COMMIT")

    return call


def _checkpoint(db: sqlite3.Connection, page_count: int) -> float:
    """Middle time of a transaction of so many pages and a truncating checkpoint.

    So the wait for the head of the next log, which is new after each truncation, is part of it.
    """
    call = _within(db, _updates(db, page_count))
    times = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        call()
        _truncate(db)
        times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2]


def _truncate(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _log_frames(db: sqlite3.Connection) -> int:
    """Frames in the log: ``mxFrame`` of the index beside it. Asking by a checkpoint would let the log begin anew.

    Source: sqlite.org/walformat.html, section 2.1.
    """
    path = db.execute("PRAGMA database_list").fetchone()[2]
    head = Path(f"{path}-shm").read_bytes()[:_SHM_FRAMES_END]
    return int.from_bytes(head[_SHM_FRAMES_END - 4 :], sys.byteorder)
