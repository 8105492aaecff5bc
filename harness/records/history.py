"""Every run ever made here, in one SQLite file that a killed writer cannot tear (write-ahead log, full sync).

A record is one row with its JSON.
"""

import itertools
import sqlite3
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from harness.domain.base import Frozen, shipped_text
from harness.domain.record import RunRecord
from harness.errors import BadDataError, CouldNotRunError, RefusedError
from harness.records.store import RECORD_MAX_BYTES, decode, encode
from harness.units import counted

FORMAT: Final = 5
"""Before it there were figures beside the records."""
_BATCH: Final = 500
_BUSY_S: Final = 30.0
_CACHE_KIB: Final = 32 << 10
_PAGE_BYTES: Final = 16 << 10
_FROM_OLDER: Final = (
    "DROP INDEX IF EXISTS runs_by_model; DROP INDEX IF EXISTS runs_by_cell; DROP TABLE IF EXISTS figures"
)


class HistoryEntry(Frozen):
    """One line of the history."""

    run_id: str
    created: str
    workload: str
    model: str
    quant: str
    device: str
    outcome: str


def _row(record: RunRecord, cell: str) -> tuple[str | bytes, ...]:
    name = ""
    if record.model or "model" in record.extra:
        name = record.name
    of = (record.run_id, record.created, record.workload, name, record.quant, record.machine.device)
    return (*of, record.outcome, cell, encode(record))


class History:
    """The runs in one file.

    Args:
        path: The SQLite file; made when absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def extend(self, records: Iterable[RunRecord], *, cell: str = "") -> None:
        """Keep records, all of them or none; a second one of the same run replaces nothing and is ignored.

        They are taken a batch at a time, never all in memory. ``cell`` is the key of the matrix cell that
        they are the result of; lets an interrupted matrix go on where it stopped.

        Raises:
            CouldNotRunError: The file cannot be written (disk full, read-only, locked, or no history at all).
        """
        records = iter(records)
        with self._open() as connection, connection:
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            while batch := [_row(record, cell) for record in itertools.islice(records, _BATCH)]:
                connection.executemany("INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", batch)

    def get(self, run_id: str) -> RunRecord:
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
        exact = [row for row in rows if row[0] == run_id] or rows
        if not exact or not run_id:
            raise RefusedError(f"no run {run_id!r} in {self.path}. List them with: edge-harness history")
        if len(exact) > 1:
            raise RefusedError(f"several runs begin with {run_id!r}: give more of the identifier")
        return self._decoded(*exact[0])

    def entries(
        self, *, limit: int = 50, model: str = "", device: str = "", workload: str = "", outcome: str = ""
    ) -> list[HistoryEntry]:
        """Lines of the newest runs that match, newest first; an empty name matches all."""
        wanted = {"model": model, "device": device, "workload": workload, "outcome": outcome}
        newest, values = _newest(limit, wanted)
        names = HistoryEntry.__struct_fields__
        with self._open() as connection:
            rows = connection.execute(f"SELECT {', '.join(names)} {newest}", values).fetchall()
        return [HistoryEntry(**dict(zip(names, row, strict=True))) for row in rows]

    def records(
        self, *, limit: int = 1000, model: str = "", device: str = "", workload: str = "", outcome: str = ""
    ) -> Iterator[RunRecord]:
        """Records that match, newest first, decoded one at a time.

        A warning says how many cannot be read, and why.
        """
        wanted = {"model": model, "device": device, "workload": workload, "outcome": outcome}
        newest, values = _newest(limit, wanted)
        faults = []
        with self._open() as connection:
            for run_id, data in connection.execute(f"SELECT run_id, record {newest}", values):
                try:
                    record = self._decoded(run_id, data)
                except BadDataError as error:
                    faults.append(str(error))
                else:
                    yield record
        if faults:
            warnings.warn(f"{counted(len(faults), 'run')} left out: {faults[0]}", stacklevel=2)

    def of_cell(self, cell: str) -> RunRecord | None:
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
            if row:
                return self._decoded(*row)
            return None
        return None

    def count(self) -> int:
        """Number of runs."""
        with self._open() as connection:
            return int(connection.execute("SELECT count(*) FROM runs").fetchone()[0])

    def faults(self) -> list[str]:
        """What SQLite's own check finds wrong with the file; empty when it is whole."""
        with self._open() as connection:
            rows = [str(row[0]) for row in connection.execute("PRAGMA integrity_check").fetchall()]
        if rows == ["ok"]:
            return []
        return rows

    def _decoded(self, run_id: str, data: bytes) -> RunRecord:
        return decode(data, f"{self.path} run {run_id}")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_BUSY_S)) as connection:
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, RECORD_MAX_BYTES + _PAGE_BYTES)
                connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # of a new file
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version > FORMAT:
                    raise RefusedError(
                        f"{self.path} was written by a newer edge-harness (format {version}): update"
                    )
                if version < FORMAT:
                    connection.executescript(_FROM_OLDER)
                    connection.executescript(shipped_text("data/history.sql"))
                    connection.execute(f"PRAGMA user_version = {FORMAT}")
                    connection.commit()
                yield connection
        except sqlite3.DatabaseError as error:
            raise CouldNotRunError(
                f"history {self.path}: {error}. Can its folder be written, and is it a history?"
            ) from error
        except OSError as error:
            raise CouldNotRunError(f"history {self.path}: {error.strerror}") from error


def _newest(limit: int, wanted: dict[str, str]) -> tuple[str, list[str | int]]:
    """The newest runs with these columns.

    Those not asked for are left out, so that an index serves the rest.
    """
    asked = {column: value for column, value in wanted.items() if value}
    where = " AND ".join(f"{column} = ?" for column in asked) or "true"
    return f"FROM runs WHERE {where} ORDER BY created DESC, run_id DESC LIMIT ?", [*asked.values(), limit]
