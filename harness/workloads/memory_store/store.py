"""Long-term memory in one SQLite file: store, retrieve, update, and forget with an erasure that overwrites.

The file is the truth: texts, vectors, and a full-text index that triggers keep. The vectors of current memories also
lie in one array, which answers. A superseded version keeps its text for the history, and nothing else.

A plain DELETE leaves the words of a text in the full-text index, also after VACUUM and with ``secure_delete`` alone.
Three things together clear them: ``PRAGMA secure_delete`` (freed pages are zeroed), FTS5's own ``secure-delete``
(index entries are removed, not marked), and a truncating checkpoint (old pages leave the log).
"""

import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self

import numpy as np

from harness.arrays import Doubles, Singles
from harness.domain.base import shipped_text
from harness.errors import BadDataError, RefusedError

FORMAT: Final = 4
RECENCY: Final = 0.05
HALF_LIFE_S: Final = 30 * 86_400.0
STOP_WORDS: Final = frozenset(shipped_text("stop_words.txt", "harness.workloads.memory_store").split())
"""Words that say nothing about a topic; left out of questions only, unless there is nothing else in them."""
_OLDEST_SQLITE: Final = (3, 42, 0)
_MANY: Final = 1000
"""So many texts stored at once leave the full-text index in pieces, and every later deletion would look into each."""
_PRAGMAS: Final = (
    "page_size=8192; journal_mode=WAL; synchronous=NORMAL; secure_delete=ON; temp_store=MEMORY; cache_size=-16384"
)
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE memories(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    content TEXT NOT NULL,
    source TEXT NOT NULL,
    about TEXT NOT NULL,
    created_s REAL NOT NULL,
    first_id INTEGER,
    vector BLOB
);
CREATE INDEX by_source ON memories(source);
CREATE INDEX by_about ON memories(about);
CREATE INDEX by_first ON memories(coalesce(first_id, id));
CREATE VIRTUAL TABLE words USING fts5(
    content, content='memories', content_rowid='id', tokenize='porter unicode61'
);
INSERT INTO words(words, rank) VALUES ('secure-delete', 1);
CREATE TRIGGER told AFTER INSERT ON memories
BEGIN INSERT INTO words(rowid, content) VALUES (new.id, new.content); END;
CREATE TRIGGER replaced AFTER UPDATE OF vector ON memories WHEN old.vector NOTNULL AND new.vector ISNULL
BEGIN INSERT INTO words(words, rowid, content) VALUES ('delete', old.id, old.content); END;
CREATE TRIGGER forgotten AFTER DELETE ON memories WHEN old.vector NOTNULL
BEGIN INSERT INTO words(words, rowid, content) VALUES ('delete', old.id, old.content); END;
CREATE TABLE embedder(name TEXT, dim INTEGER);
PRAGMA user_version={FORMAT};
"""  # noqa: S608  the format is a constant
_KEPT: Final = "SELECT id, content, source, about, created_s, vector NOTNULL FROM memories"


class Embedder(Protocol):
    """Makes vectors. ``name`` identifies model and version: vectors of two names are never compared."""

    name: str
    dim: int

    def embed(self, texts: Sequence[str]) -> Singles:
        """Vectors [len(texts), dim] of unit length."""


class NewMemory(NamedTuple):
    """Something to remember.

    Attributes:
        about: What fact it states, such as ``I lives in``; empty where nobody says.
        created_s: None means now.
        vector: None lets the embedder make it.
    """

    content: str
    source: str = ""
    about: str = ""
    created_s: float | None = None
    vector: Singles | None = None


class Memory(NamedTuple):
    """One memory as it is kept; one that is not current was replaced by a later version."""

    memory_id: int
    content: str
    source: str
    about: str
    created_s: float
    is_current: bool


class Hit(NamedTuple):
    """A retrieved memory and its score."""

    memory: Memory
    score: float


class Forgotten(NamedTuple):
    """What was, or in a dry run would be, forgotten.

    Attributes:
        memories: The memories, all their older versions included.
        is_erased: True when no file of the store holds any of it; False in a dry run, or while another process still
            reads an older state from the log (then ``erase`` finishes the work).
    """

    memories: tuple[Memory, ...]
    is_erased: bool


class MemoryStore:
    """One store. Nothing is forgotten that nobody asked to forget; a write that returned survives ``kill -9``.

    Several processes may open the same file, and each sees what the others wrote at its next call.

    Args:
        path: The file; ``-wal`` and ``-shm`` lie beside it while it is open.
        embedder: Makes vectors; its name and width are bound to the file.
        clock: Unix time, s.

    Raises:
        RefusedError: SQLite is too old to forget, or the file belongs to another embedder or width.
        BadDataError: The file is no store, or of another format.
    """

    def __init__(self, path: Path, embedder: Embedder, *, clock: Callable[[], float] = time.time) -> None:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise RefusedError(f"SQLite {sqlite3.sqlite_version} cannot erase index words: 3.42 or newer is needed")
        self.path, self._embedder, self._clock = path, embedder, clock
        row = [
            ("id", np.int64),
            ("created_s", np.float64),
            ("vector", np.float32, embedder.dim),
            ("is_alive", np.bool_),
        ]
        self._row_type = np.dtype(row, align=True)
        self._seen_version = -1
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undone:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0)
            undone.callback(self._db.close)
            try:
                self._open()
                self._refresh()
            except sqlite3.DatabaseError as error:
                raise BadDataError(path, "", str(error), "a memory store") from error
            undone.pop_all()

    def _open(self) -> None:
        bound = (self._embedder.name, self._embedder.dim)
        for pragma in _PRAGMAS.split("; "):
            self._db.execute(f"PRAGMA {pragma}")
        if not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            self._db.executescript(_SCHEMA)
            self._db.execute("INSERT INTO embedder VALUES (?, ?)", bound)
            self._db.execute("COMMIT")
            self.path.chmod(0o600)  # memories are nobody else's business
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version != FORMAT:
            raise BadDataError(self.path, "user_version", str(version), str(FORMAT))
        name, dim = self._db.execute("SELECT name, dim FROM embedder").fetchone()
        if (name, dim) != bound:
            raise RefusedError(f"{self.path} holds vectors of {name!r} ({dim} wide), not of {bound[0]!r} ({bound[1]})")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __len__(self) -> int:
        self._refresh()
        return int(self._rows["is_alive"].sum())

    def store(self, content: str, **fields: Any) -> int:
        """Remember one text; the fields are those of ``NewMemory``. Returns its identifier once it is durable."""
        return self.store_many([NewMemory(content, **fields)])[0]

    def store_many(self, memories: Iterable[NewMemory]) -> list[int]:
        """Remember many texts in one transaction.

        Raises:
            RefusedError: A text is empty, or a time or a vector is out of range.
        """
        return self._insert(list(memories))

    def update(self, memory_id: int, content: str, **fields: Any) -> int:
        """Replace a memory by a newer text; returns the identifier of the new version.

        Its source and fact are the old ones unless ``fields`` say otherwise. The old version is found no more, but
        stays in ``history`` until any version is forgotten. RefusedError where there is no such memory, or it is
        superseded already.
        """
        old = self.get(memory_id)
        if not old.is_current:
            raise RefusedError(f"memory {memory_id} is superseded: update {self.history(memory_id)[-1].memory_id}")
        kept = {"source": old.source, "about": old.about}
        return self._insert([NewMemory(content, **kept | fields)], memory_id)[0]

    def get(self, memory_id: int) -> Memory:
        """One memory, superseded ones included; RefusedError where there is none."""
        for memory in self._chosen("id = ?", memory_id):
            return memory
        raise RefusedError(f"no memory {memory_id}")

    def history(self, memory_id: int) -> list[Memory]:
        """All versions of a memory, oldest first; any version's identifier will do."""
        first = "(SELECT coalesce(first_id, id) FROM memories WHERE id = ?)"
        return self._chosen(f"coalesce(first_id, id) = {first}", memory_id)

    def about(self, fact: str) -> list[Memory]:
        """Current memories that state this fact, the newest first."""
        return self._chosen("about = ? AND vector NOTNULL", fact)[::-1]

    def retrieve(
        self,
        query: str,
        *,
        top_k: int = 5,
        words_only: bool = False,
        vector: Singles | None = None,
        now_s: float | None = None,
    ) -> list[Hit]:
        """The memories that score best for a question, best first; of equal ones the older.

        The score is minmax(BM25) + minmax(cosine) + 0.05 x 2 ** (-age / 30 days), where minmax maps the candidates'
        range onto [0, 1], and a text that shares no word has BM25 0; with ``words_only`` it is the first term alone.
        Age adds at most its weight, so it can lift no text past one that is that much more relevant.

        Changes nothing. ``vector`` [dim] is the question's if already made; ages are counted to ``now_s``, the clock's
        when None.
        """
        unit = self._vectors([NewMemory(query, vector=vector)])[0]
        self._refresh()
        alive = np.flatnonzero(self._rows["is_alive"])
        top_k = min(top_k, len(alive))
        if top_k < 1:
            return []
        scores = np.zeros(len(self._rows), np.float32)
        words = " OR ".join(f'"{word}"' for word in _telling(query))
        matched = self._select("SELECT rowid, -bm25(words) FROM words WHERE words MATCH ?", words) if words else []
        for memory_id, score in matched:
            at = np.searchsorted(self._rows["id"], memory_id)
            if at < len(scores):  # else another process has just stored it
                scores[at] = score
        scores = scores[alive] / np.float32(scores.max() or 1.0)
        if not words_only:
            # Row by row: twice as fast as BLAS where no cache holds them.
            cosines = np.einsum("ij,j->i", self._rows["vector"], unit)[alive]
            scores += (cosines - cosines.min()) / np.float32(max(float(np.ptp(cosines)), 1e-9))
            now = self._clock() if now_s is None else now_s
            scores += np.float32(RECENCY) * recency(self._rows["created_s"][alive], now)
        near = np.flatnonzero(scores >= np.partition(scores, -top_k)[-top_k])
        best = near[np.argsort(-scores[near], kind="stable")][:top_k]
        return [Hit(self.get(int(self._rows["id"][alive[at]])), float(scores[at])) for at in best]

    def forget(
        self,
        *,
        ids: Sequence[int] | None = None,
        source: str | None = None,
        before_s: float | None = None,
        words: str | None = None,
        dry_run: bool = False,
    ) -> Forgotten:
        """Forget the memories that fulfil every condition given, all their versions too, and erase them on disk.

        ``words`` is an FTS5 expression that their text matches; ``dry_run`` only lists them. RefusedError for no
        condition at all, or a malformed expression.
        """
        conditions = {
            "id IN (SELECT value FROM json_each(?))": None if ids is None else json.dumps([int(i) for i in ids]),
            "source = ?": source,
            "created_s < ?": before_s,
            "id IN (SELECT rowid FROM words WHERE words MATCH ?)": words,
        }
        given = {condition: value for condition, value in conditions.items() if value is not None}
        if not given:
            raise RefusedError("say what to forget: ids, source, before_s or words")
        chains = f"SELECT coalesce(first_id, id) FROM memories WHERE {' AND '.join(given)}"  # noqa: S608
        memories = tuple(self._chosen(f"coalesce(first_id, id) IN ({chains})", *given.values()))
        if dry_run:
            return Forgotten(memories, is_erased=False)
        self._refresh()
        chosen = [memory.memory_id for memory in memories]
        with self._db:  # all of it, or nothing
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM memories WHERE id = ?", ((i,) for i in chosen))
        self._drop(chosen)
        return Forgotten(memories, is_erased=self.erase())

    def erase(self) -> bool:
        """Take everything deleted out of the log; False while another process still reads an older state."""
        busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def _chosen(self, condition: str, *values: Any) -> list[Memory]:
        rows = self._select(f"{_KEPT} WHERE {condition} ORDER BY id", *values)
        return [Memory._make((*row[:-1], bool(row[-1]))) for row in rows]

    def _select(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            raise RefusedError(f"not a full-text expression: {values!r} ({error})") from error

    def _insert(self, items: Sequence[NewMemory], replaced: int | None = None) -> list[int]:
        """Insert memories, or the next version of the one ``replaced``, on disk and in the array."""
        for item in items:
            if not item.content.strip():
                raise RefusedError("an empty text cannot be remembered")
            if item.created_s is not None and not abs(item.created_s) < float("inf"):
                raise RefusedError(f"created_s must be a finite time, got {item.created_s}")
        vectors = self._vectors(items)
        now = self._clock()
        times = [now if item.created_s is None else item.created_s for item in items]
        first = None if replaced is None else self.history(replaced)[0].memory_id
        insert = "INSERT INTO memories(content, source, about, created_s, first_id, vector) VALUES (?, ?, ?, ?, ?, ?)"
        self._refresh()
        ids = []
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            if replaced is not None:
                self._db.execute("UPDATE memories SET vector = NULL WHERE id = ?", (replaced,))
            for item, created_s, vector in zip(items, times, vectors, strict=True):
                row = (*item[:3], created_s, first, vector.astype("<f4").tobytes())
                ids.append(int(self._db.execute(insert, row).lastrowid or 0))
            if len(items) >= _MANY:
                self._db.execute("INSERT INTO words(words) VALUES ('optimize')")
        if replaced is not None:
            self._drop([replaced])
        self._take(zip(ids, times, vectors, strict=True))
        return ids

    def _vectors(self, items: Sequence[NewMemory]) -> list[Singles]:
        wanted = [item.content for item in items if item.vector is None]
        made = iter(self._embedder.embed(wanted)) if wanted else iter(())
        return [unit_vector(next(made) if i.vector is None else i.vector, self._embedder.dim) for i in items]

    def _refresh(self) -> None:
        """Read everything anew when another connection has written, or nothing was read yet."""
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._seen_version:
            return
        self._seen_version = version
        self._buffer = self._rows = np.zeros(0, self._row_type)
        rows = self._db.execute("SELECT id, created_s, vector FROM memories WHERE vector NOTNULL ORDER BY id")
        width = 4 * self._embedder.dim
        while chunk := rows.fetchmany(_MANY):
            if any(len(vector) != width for *_, vector in chunk):
                raise BadDataError(self.path, "vector", "another width", f"{width} bytes")
            self._take((i, created_s, np.frombuffer(vector, "<f4")) for i, created_s, vector in chunk)

    def _take(self, rows: Iterable[tuple[int, float, Singles]]) -> None:
        """Append rows to the array, whose identifiers ascend; it grows by halves."""
        new = np.array([(*row, True) for row in rows], self._row_type)
        start, end = len(self._rows), len(self._rows) + len(new)
        if end > len(self._buffer):
            self._buffer = np.concatenate([self._rows, np.zeros(max(_MANY, start // 2) + len(new), self._row_type)])
        self._buffer[start:end] = new
        self._rows = self._buffer[:end]

    def _drop(self, memory_ids: Sequence[int]) -> None:
        """Blank rows of the array."""
        gone = np.isin(self._rows["id"], memory_ids)
        self._rows["is_alive"][gone] = False
        self._rows["vector"][gone] = 0.0


def recency(created_s: Doubles, now_s: float) -> Singles:
    """2 ** (-age / half-life) of each time: 1 now, 1/2 after one half-life."""
    return np.asarray(np.exp2(-np.maximum(now_s - created_s, 0.0) / HALF_LIFE_S), np.float32)


def _telling(query: str) -> list[str]:
    """The words of a question that may tell something; all of them where none does."""
    words = re.findall(r"\w+", query)
    return [word for word in words if word.lower() not in STOP_WORDS] or words


def unit_vector(vector: Singles, dim: int) -> Singles:
    """The vector [dim] at length 1; RefusedError where it has another shape, is not finite, or zero."""
    array = np.asarray(vector, np.float32)
    if array.shape != (dim,):
        raise RefusedError(f"a vector must have the shape ({dim},), got {array.shape}")
    norm = float(np.linalg.norm(array))
    if not 0.0 < norm < float("inf"):
        raise RefusedError("a vector must be finite and not zero")
    return array / np.float32(norm)
