"""The truth on disk: one SQLite file, write-ahead log, full-text index, and deletion that overwrites.

A plain DELETE leaves the words of a text in the full-text index, also after VACUUM and with ``secure_delete`` alone.
Three things together clear them: ``PRAGMA secure_delete`` (freed pages are zeroed), FTS5's own ``secure-delete``
(index entries are removed, not marked), and a truncating checkpoint (old pages leave the log).
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.errors import BadDataError, RefusedError

FORMAT: Final = 3
_OLDEST_SQLITE: Final = (3, 42, 0)
_CHUNK_ROWS: Final = 512
_TOKENIZER: Final = "porter unicode61"

_SCHEMA: Final = f"""
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE memories(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    content TEXT NOT NULL,
    source TEXT NOT NULL,
    about TEXT NOT NULL,
    created_s REAL NOT NULL,
    supersedes INTEGER,
    superseded_by INTEGER,
    superseded_s REAL
);
CREATE INDEX memories_by_source ON memories(source);
CREATE INDEX memories_by_about ON memories(about);
CREATE TABLE vectors(id INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING fts5(content, content='memories', content_rowid='id', tokenize='{_TOKENIZER}');
INSERT INTO words(words, rank) VALUES ('secure-delete', 1);
"""  # noqa: S608  the tokenizer is a constant

_KEPT: Final = """
SELECT id, content, source, about, created_s, supersedes, superseded_by
FROM memories WHERE id = ?
"""
_CURRENT: Final = """
SELECT m.id, m.created_s, v.vector
FROM memories m LEFT JOIN vectors v ON v.id = m.id
WHERE m.superseded_by IS NULL AND m.id >= ? ORDER BY m.id
"""


class Database:
    """One store's file.

    Args:
        path: The file; made if absent.
        embedder: Name of what makes the vectors; a store is never opened with another.
        sync: ``process``: an acknowledged write survives the death of the process (and the log is consistent after a
            power cut, though its last writes may be lost). ``power``: it survives a power cut too, at the price of one
            flush to the disk for each write.

    Raises:
        RefusedError: SQLite is too old to forget, or the file belongs to another embedder or width.
        BadDataError: The file is no store.
    """

    def __init__(self, path: Path, *, dim: int, embedder: str, sync: str) -> None:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise RefusedError(f"SQLite {sqlite3.sqlite_version} cannot erase index words: 3.42 or newer is needed")
        if sync not in {"process", "power"}:
            raise RefusedError(f"sync is 'process' or 'power', not {sync!r}")
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
        try:
            self._open(dim, embedder, sync)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise BadDataError(path, "", str(error), "a memory store") from error
        except BaseException:
            self._db.close()
            raise

    def _open(self, dim: int, embedder: str, sync: str) -> None:
        db = self._db
        synchronous = f"synchronous={'FULL' if sync == 'power' else 'NORMAL'}"
        fixed = ("page_size=8192", "journal_mode=WAL", "secure_delete=ON", "temp_store=MEMORY", "cache_size=-16384")
        for pragma in (*fixed, synchronous):
            db.execute(f"PRAGMA {pragma}")
        known = db.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('meta', 'memories')").fetchone()[0]
        if not known:
            new: dict[str, Any] = {"format": FORMAT, "dim": dim, "embedder": embedder}
            db.executescript("BEGIN IMMEDIATE;" + _SCHEMA)
            db.executemany("INSERT INTO meta VALUES (?, ?)", new.items())
            db.execute("COMMIT")
            os.chmod(self.path, 0o600)  # noqa: PTH101  memories are nobody else's business
        meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
        if meta.get("format") != FORMAT:
            raise BadDataError(self.path, "meta.format", str(meta.get("format")), str(FORMAT))
        if (meta["dim"], meta["embedder"]) != (dim, embedder):
            raise RefusedError(
                f"{self.path} holds vectors of {meta['embedder']!r} ({meta['dim']} wide), not of {embedder!r} ({dim})"
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def version(self) -> int:
        """A number that changes when another connection has written."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it, or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def insert(self, content: str, vector: NDArray[np.float32], row: tuple[str, str, float, int | None]) -> int:
        """Add one memory inside a transaction; ``row`` is (source, about, created_s, supersedes)."""
        db = self._db
        cursor = db.execute(
            "INSERT INTO memories(content, source, about, created_s, supersedes) VALUES (?,?,?,?,?)",
            (content, *row),
        )
        memory_id = int(cursor.lastrowid or 0)
        db.execute("INSERT INTO vectors VALUES (?, ?)", (memory_id, vector.astype("<f4").tobytes()))
        db.execute("INSERT INTO words(rowid, content) VALUES (?, ?)", (memory_id, content))
        return memory_id

    def unindex(self, memory_id: int) -> None:
        """Take a memory out of the vectors and the full-text index inside a transaction; its row stays."""
        db = self._db
        found = db.execute("SELECT content FROM memories WHERE id = ?", (memory_id,)).fetchone()
        if db.execute("DELETE FROM vectors WHERE id = ?", (memory_id,)).rowcount and found:
            db.execute("INSERT INTO words(words, rowid, content) VALUES ('delete', ?, ?)", (memory_id, found[0]))

    def delete(self, memory_ids: Iterable[int]) -> None:
        """Delete memories inside a transaction, overwriting what they leave."""
        for memory_id in memory_ids:
            self.unindex(memory_id)
            self._db.execute("DELETE FROM memories WHERE id = ?", (memory_id,))

    def erase_log(self) -> bool:
        """Move everything out of the write-ahead log and truncate it; False when another reader holds it."""
        busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def chain(self, memory_id: int) -> list[int]:
        """Identifiers of all versions of a memory, oldest first; empty when there is none."""
        found = self._db.execute("SELECT id FROM memories WHERE id = ?", (memory_id,)).fetchall()
        for query in (
            "SELECT o.id FROM memories m JOIN memories o ON o.id = m.supersedes WHERE m.id = ?",
            "SELECT n.id FROM memories m JOIN memories n ON n.id = m.superseded_by WHERE m.id = ?",
        ):
            row = (memory_id,)
            while row := self._db.execute(query, row).fetchone():
                found.append(row)
        return sorted(i for (i,) in found)

    def row(self, memory_id: int) -> tuple[Any, ...]:
        """What is kept of one memory, in the order of ``store.Memory``; RefusedError where there is none."""
        found: tuple[Any, ...] | None = self._db.execute(_KEPT, (memory_id,)).fetchone()
        if found is None:
            raise RefusedError(f"no memory {memory_id}")
        return found

    def select(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a query that may hold a full-text expression; RefusedError where the expression is malformed."""
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            raise RefusedError(f"not a full-text expression: {values!r} ({error})") from error

    def bm25(self, words: Iterable[str]) -> list[tuple[int, float]]:
        """(identifier, BM25) of each memory that holds some of the words, by SQLite's own full-text index."""
        wanted = " OR ".join(f'"{word}"' for word in words)
        return self.select("SELECT rowid, -bm25(words) FROM words WHERE words MATCH ?", wanted) if wanted else []

    def current(self, dim: int, first_id: int = 0) -> Iterator[list[tuple[Any, ...]]]:
        """What is current from an identifier on, ascending, some rows at a time.

        A row is (identifier, created_s, bytes of the vector). BadDataError where a vector has another width
        than ``dim``, or a row has none.
        """
        cursor = self._db.execute(_CURRENT, (first_id,))
        while chunk := cursor.fetchmany(_CHUNK_ROWS):
            if {len(vector or b"") for *_, vector in chunk} != {4 * dim}:
                raise BadDataError(self.path, "vectors", "rows that do not match", "one vector for each memory")
            yield chunk
