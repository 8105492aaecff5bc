"""Every run ever made here, in one SQLite file that a killed writer cannot tear (write-ahead log, full sync).

Each record is a row that holds its whole JSON beside the columns by which runs are listed.
"""

import itertools
import sqlite3
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from harness.core.base import Frozen
from harness.core.errors import BadDataError, CouldNotRunError, RefusedError
from harness.core.record import Record
from harness.core.tables import shipped_text
from harness.core.units import counted
from harness.records.store import decode, encode

FORMAT: Final = 5
_BATCH: Final = 500
_BUSY_S: Final = 30.0


class HistoryEntry(Frozen):
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

    def extend(self, records: Iterable[Record], *, cell: str = "") -> None:
        """Keep records, all of them or none; a second one of the same run replaces nothing.

        But its ``cell``, where it has one: a lab finds what its processes kept under a key of its own.

        They are taken a batch at a time, never all in memory. ``cell`` is the key of the matrix cell that
        they are the result of; lets an interrupted matrix go on where it stopped.

        Raises:
            CouldNotRunError: The file cannot be written (disk full, read-only, locked, or no history at all).
        """
        records = iter(records)
        with self._open() as connection, connection:
            while batch := list(itertools.islice(records, _BATCH)):
                rows = []
                for one in batch:
                    of = (one.run_id, one.created, one.workload, one.name, one.quant, one.machine.device)
                    rows.append((*of, one.outcome, cell, encode(one)))
                connection.executemany(
                    "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_id) DO UPDATE"
                    " SET cell = excluded.cell WHERE excluded.cell != ''",
                    rows,
                )

    def get(self, run_id: str) -> Record:
        """The record of that run; an unambiguous beginning of its identifier is enough.

        Raises:
            RefusedError: No run of that name, or several.
            BadDataError: The record stored breaks the schema.
        """
        with self._open() as connection:
            rows = connection.execute(
                # As a range, not as a prefix: that is what the index can find.
                "SELECT run_id, record FROM runs WHERE run_id >= ? AND run_id < ? ORDER BY run_id LIMIT 2",
                (run_id, run_id + "\U0010ffff"),
            ).fetchall()
        if not rows or not run_id:
            raise RefusedError(f"no run {run_id!r} in {self.path}. List them with: edge-harness history")
        if len(rows) > 1 and rows[0][0] != run_id:
            raise RefusedError(f"several runs begin with {run_id!r}: give more of the identifier")
        return self._decoded(*rows[0])

    def entries(self, *, limit: int = 50, **wanted: str) -> list[HistoryEntry]:
        """A line for each of the :meth:`records`."""
        return [
            HistoryEntry(
                run_id=record.run_id,
                created=record.created,
                workload=record.workload,
                model=record.name,
                quant=record.quant,
                device=record.machine.device,
                outcome=record.outcome,
            )
            for record in self.records(limit=limit, **wanted)
        ]

    def records(self, *, limit: int = 1000, **wanted: str) -> Iterator[Record]:
        """Records that match, newest first, decoded one at a time; a warning says how many cannot be read, and why.

        ``wanted``: ``model``, ``device``, ``workload``, ``outcome``; an empty one matches all.
        """
        asked = {
            column: value for column, value in wanted.items() if value
        }  # so that an index serves the rest
        where = " AND ".join(f"{column} = ?" for column in asked) or "true"
        newest = f"FROM runs WHERE {where} ORDER BY created DESC, run_id DESC LIMIT ?"
        faults = []
        with self._open() as connection:
            for row in connection.execute(f"SELECT run_id, record {newest}", (*asked.values(), limit)):
                try:
                    record = self._decoded(*row)
                except BadDataError as error:
                    faults.append(str(error))
                else:
                    yield record
        if faults:
            warnings.warn(f"{counted(len(faults), 'run')} left out: {faults[0]}", stacklevel=2)

    def of_cell(self, cell: str) -> Record | None:
        """Completed record of a matrix cell that was kept last; interrupted runs do not count.

        The order is that of keeping, since the clock may have been set back between two runs.
        """
        with self._open() as connection:
            row = connection.execute(
                "SELECT run_id, record FROM runs WHERE cell = ? AND cell != ''"  # as the index has it
                " AND outcome != 'interrupted' ORDER BY rowid DESC LIMIT 1",
                (cell,),
            ).fetchone()
        with suppress(BadDataError):  # of another schema version: it is made again
            return self._decoded(*row) if row else None
        return None

    def count(self) -> int:
        """Number of runs."""
        with self._open() as connection:
            return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])

    def faults(self) -> list[str]:
        """What SQLite's own check finds wrong with the file; empty when it is whole."""
        with self._open() as connection:
            rows = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
        return [] if rows == ["ok"] else rows

    def _decoded(self, run_id: str, data: bytes) -> Record:
        return decode(data, f"{self.path} run {run_id}")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_BUSY_S)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version not in {0, FORMAT}:
                    raise RefusedError(
                        f"{self.path} was written by another edge-harness, older or newer (format {version})"
                    )
                if not version:
                    connection.executescript(shipped_text("data/history.sql"))
                    connection.execute(f"PRAGMA user_version = {FORMAT}")
                    connection.commit()
                yield connection
        except (sqlite3.DatabaseError, OSError) as error:
            raise CouldNotRunError(
                f"history {self.path}: {error}. Can its folder be written, and is it a history?"
            ) from error
