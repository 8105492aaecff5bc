"""Every run ever made here, in one SQLite file that a killed writer cannot tear (write-ahead log, full sync)."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from harness.domain.base import Frozen
from harness.domain.record import RunRecord
from harness.errors import CouldNotRunError, RefusedError
from harness.records.store import decode, encode

FORMAT: Final = 1
_BUSY_S: Final = 30.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY,
    created TEXT NOT NULL,
    workload TEXT NOT NULL,
    model TEXT NOT NULL,
    quant TEXT NOT NULL,
    device TEXT NOT NULL,
    outcome TEXT NOT NULL,
    cell TEXT NOT NULL,
    record BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS runs_by_time ON runs (created);
CREATE INDEX IF NOT EXISTS runs_by_model ON runs (model, quant);
CREATE INDEX IF NOT EXISTS runs_by_cell ON runs (cell);
"""


class HistoryEntry(Frozen, frozen=True, kw_only=True):
    """One line of the history."""

    run_id: str
    created: str
    workload: str
    model: str
    quant: str
    device: str
    outcome: str


class History:
    """The runs in one file.

    Args:
        path: The SQLite file; made when absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: RunRecord, *, cell: str = "") -> None:
        """Keep a record; a second one of the same run replaces nothing and is ignored.

        Args:
            record: The run.
            cell: Key of the matrix cell it is the result of; lets an interrupted matrix go on where it stopped.

        Raises:
            CouldNotRunError: The file cannot be written (disk full, read-only, locked, or no history at all).
        """
        model = record.model
        with self._open() as connection, connection:
            connection.execute(
                "INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    record.run_id,
                    record.created,
                    record.workload,
                    model.name if model else "",
                    model.quant if model else "",
                    record.machine.device,
                    record.outcome,
                    cell,
                    encode(record),
                ),
            )

    def get(self, run_id: str) -> RunRecord:
        """The record of that run; an unambiguous beginning of its identifier is enough.

        Raises:
            RefusedError: No run of that name, or several.
            BadDataError: The record stored breaks the schema.
        """
        with self._open() as connection:
            rows = connection.execute(
                "SELECT run_id, record FROM runs WHERE substr(run_id, 1, ?) = ? ORDER BY run_id LIMIT 2",
                (len(run_id), run_id),
            ).fetchall()
        exact = [row for row in rows if row[0] == run_id] or rows
        if not exact or not run_id:
            raise RefusedError(f"no run {run_id!r} in {self.path}. List them with: edge-harness history")
        if len(exact) > 1:
            raise RefusedError(f"several runs begin with {run_id!r}: give more of the identifier")
        return decode(exact[0][1], f"{self.path} run {exact[0][0]}")

    def entries(
        self,
        *,
        model: str = "",
        device: str = "",
        workload: str = "",
        outcome: str = "",
        limit: int = 50,
    ) -> list[HistoryEntry]:
        """Lines of the newest runs that match, newest first; an empty filter matches all."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT run_id, created, workload, model, quant, device, outcome FROM runs"
                " WHERE (?1 = '' OR model = ?1) AND (?2 = '' OR device = ?2)"
                " AND (?3 = '' OR workload = ?3) AND (?4 = '' OR outcome = ?4)"
                " ORDER BY created DESC, run_id DESC LIMIT ?5",
                (model, device, workload, outcome, limit),
            ).fetchall()
        names = HistoryEntry.__struct_fields__
        return [HistoryEntry(**dict(zip(names, row, strict=True))) for row in rows]

    def records(self, *, model: str = "", workload: str = "", limit: int = 1000) -> Iterator[RunRecord]:
        """Records that match, newest first, decoded one at a time."""
        for entry in self.entries(model=model, workload=workload, limit=limit):
            yield self.get(entry.run_id)

    def of_cell(self, cell: str) -> RunRecord | None:
        """Completed record of a matrix cell that was kept last; interrupted runs do not count.

        The order is that of keeping, since the clock may have been set back between two runs.
        """
        with self._open() as connection:
            row = connection.execute(
                "SELECT record FROM runs WHERE cell = ? AND outcome != 'interrupted' ORDER BY rowid DESC LIMIT 1",
                (cell,),
            ).fetchone()
        return decode(row[0], f"{self.path} cell {cell}") if row else None

    def count(self) -> int:
        """Number of runs."""
        with self._open() as connection:
            return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])

    def faults(self) -> list[str]:
        """What SQLite's own check finds wrong with the file; empty when it is whole."""
        with self._open() as connection:
            rows = [str(row[0]) for row in connection.execute("PRAGMA integrity_check").fetchall()]
        return [] if rows == ["ok"] else rows

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_BUSY_S)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                found = connection.execute("PRAGMA user_version").fetchone()[0]
                if found > FORMAT:
                    raise RefusedError(f"{self.path} was written by a newer edge-harness (format {found}): update")
                if found < FORMAT:
                    connection.executescript(_SCHEMA)
                    connection.execute(f"PRAGMA user_version = {FORMAT}")
                yield connection
        except sqlite3.DatabaseError as error:
            raise CouldNotRunError(
                f"history {self.path}: {error}. Is the disk full, or the file no history?"
            ) from error
        except OSError as error:
            raise CouldNotRunError(f"history {self.path}: {error.strerror}") from error
