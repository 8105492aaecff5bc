"""Long-term memory in one SQLite file: store, retrieve, and forget with an erasure that overwrites.

The file is the truth: texts, vectors, and a full-text index that triggers keep. The vectors also lie in one
array, which answers. Nothing that was told is replaced: of two memories of one thing the newer stands first,
and the older says that there is a newer one.

A plain DELETE leaves the words of a text in the full-text index, also after VACUUM and with ``secure_delete``
alone. Three things together clear them: ``PRAGMA secure_delete`` (freed pages are zeroed), FTS5's own
``secure-delete`` (index entries are removed, not marked), and a truncating checkpoint (old pages leave the
log).
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

from harness.arrays import Singles
from harness.domain.base import shipped_text
from harness.errors import BadDataError, RefusedError
from harness.workloads.passes import Meter, Op, Pass

FORMAT: Final = 5
STOP_WORDS: Final = frozenset(shipped_text("stop_words.txt", "harness.workloads.memory").split())
"""Words that say nothing about a topic; left out of questions only, unless there is nothing else in them."""
SAME_COSINE, SAME_TOGETHER = 0.55, 0.8
"""Cosine, and cosine with the share of the longer one's telling words, from which on two memories are of one
thing."""
NEAR_SHARE: Final = 0.4
"""Share of the older one's score that a newer memory of the same thing needs to stand before it."""
_COMPARED: Final = 20
"""Memories that score best, among which newer ones are looked for."""
_OLDEST_SQLITE: Final = (3, 42, 0)
_MANY: Final = 1000
"""So many texts stored at once leave the full-text index in pieces, and every later deletion would look into
each."""
_PRAGMAS: Final = "page_size=8192; journal_mode=WAL; synchronous=NORMAL; secure_delete=ON; temp_store=MEMORY; cache_size=-16384"
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE memories(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    content TEXT NOT NULL,
    source TEXT NOT NULL,
    created_s REAL NOT NULL,
    vector BLOB NOT NULL
);
CREATE INDEX by_source ON memories(source);
CREATE VIRTUAL TABLE words USING fts5(
    content, content='memories', content_rowid='id', tokenize='porter unicode61'
);
INSERT INTO words(words, rank) VALUES ('secure-delete', 1);
CREATE TRIGGER told AFTER INSERT ON memories
BEGIN INSERT INTO words(rowid, content) VALUES (new.id, new.content); END;
CREATE TRIGGER forgotten AFTER DELETE ON memories
BEGIN INSERT INTO words(words, rowid, content) VALUES ('delete', old.id, old.content); END;
CREATE TABLE embedder(name TEXT, dim INTEGER);
PRAGMA user_version={FORMAT};
"""  # noqa: S608  the format is a constant
_KEPT: Final = "SELECT id, content, source, created_s FROM memories"


class Embedder(Protocol):
    """Makes vectors. ``name`` identifies model and version: vectors of two names are never compared."""

    name: str
    dim: int

    def embed(self, texts: Sequence[str]) -> Singles:
        """Vectors [len(texts), dim] of unit length."""


class WordsOnly:
    """No vectors: the store compares words alone."""

    name = "words"
    dim = 0

    def embed(self, texts: Sequence[str]) -> Singles:
        """Vectors [len(texts), 0]."""
        return np.zeros((len(texts), 0), np.float32)


class NewMemory(NamedTuple):
    """Something to remember; ``created_s`` None means now, ``vector`` None lets the embedder make it."""

    content: str
    source: str = ""
    created_s: float | None = None
    vector: Singles | None = None


class Memory(NamedTuple):
    """One memory as it is kept; ``created_s`` is Unix time."""

    memory_id: int
    content: str
    source: str
    created_s: float


class Hit(NamedTuple):
    """A retrieved memory, its score, and the identifiers of newer memories of the same thing among the best."""

    memory: Memory
    score: float
    newer: tuple[int, ...] = ()


class Forgotten(NamedTuple):
    """What was, or in a dry run would be, forgotten.

    Attributes:
        is_erased: True when no file of the store holds any of it; False in a dry run, or while another
            process still reads an older state from the log (then ``erase`` finishes the work).
    """

    memories: tuple[Memory, ...]
    is_erased: bool


class MemoryStore:
    """One store. Nothing is forgotten that nobody asked to forget.

    A write that returned survives ``kill -9``.

    Several processes may open the same file, and each sees what the others wrote at its next call.

    Args:
        path: The file; ``-wal`` and ``-shm`` lie beside it while it is open.
        embedder: Makes vectors; its name and width are bound to the file.
        clock: Unix time, s.
        meter: Times the search through the vectors.

    Raises:
        RefusedError: SQLite is too old to forget, or the file belongs to another embedder or width.
        BadDataError: The file is no store, or of another format.
    """

    def __init__(
        self,
        path: Path,
        embedder: Embedder,
        *,
        clock: Callable[[], float] = time.time,
        meter: Meter | None = None,
    ) -> None:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise RefusedError(
                f"SQLite {sqlite3.sqlite_version} cannot erase index words: 3.42 or newer is needed"
            )
        self.path, self._embedder, self._clock, self._meter = path, embedder, clock, meter or Meter()
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
            raise RefusedError(
                f"{self.path} holds vectors of {name!r} ({dim} wide), not of {bound[0]!r} ({bound[1]})"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __len__(self) -> int:
        self._refresh()
        return len(self._ids)

    def store(self, content: str, **fields: Any) -> int:
        """Remember one text; the fields are those of ``NewMemory``.

        Returns its identifier once it is durable.
        """
        return self.store_many([NewMemory(content, **fields)])[0]

    def store_many(self, memories: Iterable[NewMemory]) -> list[int]:
        """Remember many texts in one transaction.

        Raises:
            RefusedError: A text is empty, or a time or a vector is out of range.
        """
        items = list(memories)
        now_s = self._clock()
        times = [now_s if item.created_s is None else item.created_s for item in items]
        for item, created_s in zip(items, times, strict=True):
            if not item.content.strip():
                raise RefusedError("an empty text cannot be remembered")
            if not abs(created_s) < float("inf"):
                raise RefusedError(f"created_s must be a finite time, got {created_s}")
        vectors = self._vectors(items)
        insert = "INSERT INTO memories(content, source, created_s, vector) VALUES (?, ?, ?, ?)"
        self._refresh()
        ids = []
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for item, created_s, vector in zip(items, times, vectors, strict=True):
                row = (item.content, item.source, created_s, vector.astype("<f4").tobytes())
                ids.append(int(self._db.execute(insert, row).lastrowid or 0))
            if len(items) >= _MANY:
                self._db.execute("INSERT INTO words(words) VALUES ('optimize')")
        self._take(ids, times, vectors)
        return ids

    def get(self, memory_id: int) -> Memory:
        """One memory; RefusedError where there is none."""
        for memory in self._chosen("id = ?", memory_id):
            return memory
        raise RefusedError(f"no memory {memory_id}")

    def retrieve(self, query: str, *, top_k: int = 5, vector: Singles | None = None) -> list[Hit]:
        """The memories that score best for a question, best first; of equal ones the older.

        The score is minmax(BM25) + minmax(cosine), where minmax maps the candidates' range onto [0, 1], and a
        text that shares no word has BM25 0; without an embedder it is the first term alone. Among the best a
        newer memory of the same thing is lifted just above the older one, which keeps its place behind it.

        Changes nothing. ``vector`` [dim] is the question's if already made.
        """
        unit = self._vectors([NewMemory(query, vector=vector)])[0]
        self._refresh()
        scores = np.zeros(len(self._ids), np.float32)
        if not len(scores):
            return []
        words = " OR ".join(f'"{word}"' for word in _telling(query))
        matched = (
            self._select("SELECT rowid, -bm25(words) FROM words WHERE words MATCH ?", words) if words else []
        )
        for memory_id, score in matched:
            at = np.searchsorted(self._ids, memory_id)
            if at < len(scores):  # else another process has just stored it
                scores[at] = score
        scores /= scores.max() or 1.0
        if self._embedder.dim:
            table = self._buffer[: len(self._ids)]
            with self._meter.timed(Pass(part="store", op=Op.SEARCH, moved_bytes=table.nbytes)):
                cosines = np.einsum(
                    "ij,j->i", table, unit
                )  # row by row: faster than BLAS where no cache holds them
            scores += (cosines - cosines.min()) / np.float32(max(float(np.ptp(cosines)), 1e-9))
        count = min(max(top_k, _COMPARED), len(scores))
        near = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
        best = near[np.argsort(-scores[near], kind="stable")][:count]
        memories = [self.get(int(self._ids[at])) for at in best]
        newer = self._newer(best, scores[best], memories)
        lifted = scores[best].astype(np.float64)
        for old in sorted(range(len(best)), key=lambda at: memories[at].created_s):
            if newer[old]:  # the likest of them
                lifted[newer[old][0]] = max(lifted[newer[old][0]], lifted[old] + 1e-6)
        hits = []
        for at in np.argsort(-lifted, kind="stable")[:top_k]:
            marked = tuple(memories[other].memory_id for other in newer[at])
            hits.append(Hit(memories[at], float(scores[best[at]]), marked))
        return hits

    def _newer(self, best: Any, scores: Singles, memories: Sequence[Memory]) -> list[list[int]]:
        """Of each of the best memories the newer ones about the same thing, nearly as relevant.

        The likest first.
        """
        if not self._embedder.dim:
            return [[] for _ in memories]
        alike = self._buffer[best] @ self._buffer[best].T
        words = [{word[:5] for word in _telling(memory.content.lower())} for memory in memories]
        found = []
        for old, memory in enumerate(memories):
            newer = [
                at
                for at, other in enumerate(memories)
                if other.created_s > memory.created_s
                and alike[old, at] >= SAME_COSINE
                and scores[at] >= NEAR_SHARE * scores[old]
                and alike[old, at] + _common(words[old], words[at]) >= SAME_TOGETHER
            ]
            found.append(sorted(newer, key=lambda at: -float(alike[old, at])))
        return found

    def forget(
        self,
        *,
        ids: Sequence[int] | None = None,
        source: str | None = None,
        before_s: float | None = None,
        words: str | None = None,
        dry_run: bool = False,
    ) -> Forgotten:
        """Forget the memories that fulfil every condition given, and erase them on disk.

        ``words`` is an FTS5 expression that their text matches; ``dry_run`` only lists them. RefusedError for
        no condition at all, or a malformed expression.
        """
        conditions = {
            "id IN (SELECT value FROM json_each(?))": None
            if ids is None
            else json.dumps([int(i) for i in ids]),
            "source = ?": source,
            "created_s < ?": before_s,
            "id IN (SELECT rowid FROM words WHERE words MATCH ?)": words,
        }
        given = {condition: value for condition, value in conditions.items() if value is not None}
        if not given:
            raise RefusedError("say what to forget: ids, source, before_s or words")
        memories = tuple(self._chosen(" AND ".join(given), *given.values()))
        if dry_run:
            return Forgotten(memories, is_erased=False)
        self._refresh()
        chosen = [memory.memory_id for memory in memories]
        with self._db:  # all of it, or nothing
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM memories WHERE id = ?", ((i,) for i in chosen))
        kept = ~np.isin(self._ids, chosen)
        self._keep(self._ids[kept], self._times[kept], self._buffer[: len(self._ids)][kept])
        return Forgotten(memories, is_erased=self.erase())

    def erase(self) -> bool:
        """Take everything deleted out of the log; False while another process still reads an older state."""
        busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def _chosen(self, condition: str, *values: Any) -> list[Memory]:
        return [Memory._make(row) for row in self._select(f"{_KEPT} WHERE {condition} ORDER BY id", *values)]

    def _select(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            raise RefusedError(f"not a full-text expression: {values!r} ({error})") from error

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
        dim = self._embedder.dim
        rows = self._db.execute("SELECT id, created_s, vector FROM memories ORDER BY id").fetchall()
        if any(len(vector) != 4 * dim for *_, vector in rows):
            raise BadDataError(self.path, "vector", "another width", f"{4 * dim} bytes")
        ids = np.array([row[0] for row in rows], np.int64)
        times = np.array([row[1] for row in rows], np.float64)
        self._keep(ids, times, np.frombuffer(b"".join(row[2] for row in rows), "<f4").reshape(len(rows), dim))

    def _keep(self, ids: Any, times: Any, vectors: Singles) -> None:
        """Hold these rows, with room for as many as a half of them."""
        self._ids, self._times = ids, times
        self._buffer = np.zeros((len(ids) + max(_MANY, len(ids) // 2), self._embedder.dim), np.float32)
        self._buffer[: len(ids)] = vectors

    def _take(self, ids: Sequence[int], times: Sequence[float], vectors: Sequence[Singles]) -> None:
        """Append rows, whose identifiers ascend."""
        start = len(self._ids)
        self._ids = np.append(self._ids, np.array(ids, np.int64))
        self._times = np.append(self._times, np.array(times, np.float64))
        if len(self._ids) > len(self._buffer):
            room = np.zeros((max(_MANY, start // 2) + len(ids), self._embedder.dim), np.float32)
            self._buffer = np.concatenate([self._buffer[:start], room])
        if len(ids):
            self._buffer[start : len(self._ids)] = np.stack(list(vectors))


def _common(one: set[str], two: set[str]) -> float:
    """Share of the longer one's words that the other has too."""
    return len(one & two) / max(1, len(one), len(two))


def _telling(query: str) -> list[str]:
    """The words of a question that may tell something; all of them where none does."""
    words = re.findall(r"\w+", query)
    return [word for word in words if word.lower() not in STOP_WORDS] or words


def unit_vector(vector: Singles, dim: int) -> Singles:
    """The vector [dim] at length 1; RefusedError where it has another shape, is not finite, or zero."""
    array = np.asarray(vector, np.float32)
    if array.shape != (dim,):
        raise RefusedError(f"a vector must have the shape ({dim},), got {array.shape}")
    if not dim:
        return array
    norm = float(np.linalg.norm(array))
    if not 0.0 < norm < float("inf"):
        raise RefusedError("a vector must be finite and not zero")
    return array / np.float32(norm)
