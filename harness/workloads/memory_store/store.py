"""Long-term memory: store, retrieve, update and forget, durable in one file."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from harness.errors import RefusedError
from harness.workloads.memory_store.database import Database
from harness.workloads.memory_store.index import Floats, MemoryIndex

DAY_S: Final = 86_400.0
STOP_WORDS: Final = frozenset(
    files("harness.workloads.memory_store").joinpath("stop_words.txt").read_text(encoding="utf-8").split()
)
"""Words that say nothing about a topic; left out of questions only, unless there is nothing else in them."""
_MANY: Final = 1000
"""So many texts stored at once leave the full-text index in pieces, and every later deletion would look into each."""


class Embedder(Protocol):
    """Makes vectors. ``name`` identifies model and version: vectors of two names are never compared."""

    name: str
    dim: int

    def embed(self, texts: Sequence[str]) -> Floats:
        """Vectors [len(texts), dim] of unit length."""


RECENCY: Final = 0.05
HALF_LIFE_S: Final = 30 * DAY_S


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
    vector: NDArray[np.float32] | None = None


class Memory(NamedTuple):
    """One memory as it is kept. ``superseded_by`` is None for the current version."""

    memory_id: int
    content: str
    source: str
    about: str
    created_s: float
    supersedes: int | None
    superseded_by: int | None


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
    """One store: SQLite is the truth, a matrix in memory answers. Nothing is forgotten that nobody asked to forget.

    Safe for several threads; several processes may open the same file, and each sees what the others wrote at its next
    call. RefusedError where it cannot be opened as asked, BadDataError where it is no store.

    Args:
        path: The file; ``-wal`` and ``-shm`` lie beside it while it is open.
        embedder: Makes vectors; its name and width are bound to the file.
        sync: ``process`` or ``power``; see ``Database``.
    """

    def __init__(
        self,
        path: Path,
        embedder: Embedder,
        *,
        sync: str = "process",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._embedder, self._clock = embedder, clock
        self._lock = threading.RLock()
        self.path = path
        self._db = Database(path, dim=embedder.dim, embedder=embedder.name, sync=sync)
        self._seen_version = -1
        try:
            self._refresh()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def __len__(self) -> int:
        with self._lock:
            self._refresh()
            return self._index.count

    def store(self, content: str, **fields: Any) -> int:
        """Remember one text; the fields are those of ``NewMemory``. Returns its identifier once it is durable."""
        return self.store_many([NewMemory(content, **fields)])[0]

    def store_many(self, memories: Iterable[NewMemory]) -> list[int]:
        """Remember many texts in one transaction.

        Raises:
            RefusedError: A text is empty, or a time or a vector is out of range.
        """
        items = list(memories)
        for item in items:
            _check(item)
        vectors = self._vectors(items)
        with self._lock:
            self._refresh()
            with self._db.write() as db:
                ids = [self._insert(item, vector, None) for item, vector in zip(items, vectors, strict=True)]
                if len(items) >= _MANY:
                    db.execute("INSERT INTO words(words) VALUES ('optimize')")
            if ids:
                self._take(ids[0])
            return ids

    def update(self, memory_id: int, content: str, *, source: str = "") -> int:
        """Replace a memory by a newer text; returns the identifier of the new version.

        The old version is found no more, but stays in ``history`` until any version is forgotten. RefusedError where
        there is no such memory, or it is superseded already.
        """
        with self._lock:
            self._refresh()
            old = self.get(memory_id)
            if old.superseded_by is not None:
                raise RefusedError(f"memory {memory_id} is superseded by {old.superseded_by}: update that one")
            item = NewMemory(content, source or old.source, old.about)
            _check(item)
            unit = self._vectors([item])[0]
            with self._db.write() as db:
                self._db.unindex(memory_id)
                new_id = self._insert(item, unit, memory_id)
                change = "UPDATE memories SET superseded_by = ?, superseded_s = ? WHERE id = ?"
                db.execute(change, (new_id, self._clock(), memory_id))
            self._index.remove([memory_id])
            self._take(new_id)
            return new_id

    def get(self, memory_id: int) -> Memory:
        """One memory, superseded ones included; RefusedError where there is none."""
        with self._lock:
            return Memory(*self._db.row(memory_id))

    def history(self, memory_id: int) -> list[Memory]:
        """All versions of a memory, oldest first; any version's identifier will do."""
        with self._lock:
            return [self.get(version) for version in self._db.chain(memory_id)]

    def about(self, fact: str) -> list[Memory]:
        """Current memories that state this fact, the newest first."""
        query = "SELECT id FROM memories WHERE about = ? AND superseded_by IS NULL ORDER BY id DESC"
        with self._lock:
            return [self.get(i) for (i,) in self._db.select(query, fact)]

    def retrieve(
        self,
        query: str,
        *,
        top_k: int = 5,
        words_only: bool = False,
        vector: NDArray[np.float32] | None = None,
        now_s: float | None = None,
    ) -> list[Hit]:
        """The memories that score best for a question, best first; of equal ones the older.

        The score is minmax(BM25) + minmax(cosine) + 0.05 x 2 ** (-age / 30 days), where minmax maps the candidates'
        range onto [0, 1], and a text that shares no word has BM25 0; with ``words_only`` it is the first term alone.
        Age adds at most its weight, so it can lift no text past one that is that much more relevant.

        Changes nothing. ``vector`` [dim] is the question's if already
        made; ages are counted to ``now_s``, the clock's when None.
        """
        unit = self._vectors([NewMemory(query, vector=vector)])[0]
        with self._lock:
            self._refresh()
            top_k = min(top_k, self._index.count)
            if top_k < 1:
                return []
            lexical = np.zeros(self._index.count, np.float32)
            for memory_id, score in self._db.bm25(_telling(query)):
                if memory_id in self._index.slot_of_id:  # else another process has just stored it
                    lexical[self._index.slot_of_id[memory_id]] = score
            scores = lexical / np.float32(lexical.max() or 1.0)
            if not words_only:
                cosines = self._index.cosines(unit)
                scores += (cosines - cosines.min()) / np.float32(max(float(np.ptp(cosines)), 1e-9))
                now = self._clock() if now_s is None else now_s
                scores += self._index.recency(now, HALF_LIFE_S) * np.float32(RECENCY)
            near = np.flatnonzero(scores >= np.partition(scores, -top_k)[-top_k])
            best = near[np.argsort(-scores[near], kind="stable")][:top_k]
            ids = self._index.ids[best]
            return [Hit(self.get(int(i)), float(scores[at])) for i, at in zip(ids, best, strict=True)]

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
        with self._lock:
            self._refresh()
            where = " AND ".join(given)
            chosen = self._db.select(f"SELECT id FROM memories WHERE {where}", *given.values())  # noqa: S608
            every = sorted({version for (i,) in chosen for version in self._db.chain(i)})
            memories = tuple(self.get(i) for i in every)
            if dry_run:
                return Forgotten(memories, is_erased=False)
            with self._db.write():
                self._db.delete(every)
            self._index.remove(every)
            return Forgotten(memories, is_erased=self.erase())

    def erase(self) -> bool:
        """Take everything deleted out of the log; False while another process still reads an older state."""
        with self._lock:
            return self._db.erase_log()

    def _insert(self, item: NewMemory, vector: Floats, supersedes: int | None) -> int:
        created_s = self._clock() if item.created_s is None else item.created_s
        return self._db.insert(item.content, vector, (item.source, item.about, created_s, supersedes))

    def _take(self, first_id: int) -> None:
        """Take into memory what the database holds from an identifier on."""
        for rows in self._db.current(self._embedder.dim, first_id):
            self._index.extend(rows)

    def _vectors(self, items: Sequence[NewMemory]) -> list[Floats]:
        wanted = [i.content for i in items if i.vector is None]
        made = iter(self._embedder.embed(wanted)) if wanted else iter(())
        return [unit_vector(next(made) if i.vector is None else i.vector, self._embedder.dim) for i in items]

    def _refresh(self) -> None:
        """Read everything anew when another connection has written, or nothing was read yet."""
        version = self._db.version()
        if version != self._seen_version:
            self._seen_version = version
            self._index = MemoryIndex(self._embedder.dim)
            self._take(0)


def _telling(query: str) -> list[str]:
    """The words of a question that may tell something; all of them where none does."""
    words = re.findall(r"\w+", query)
    return [word for word in words if word.lower() not in STOP_WORDS] or words


def _check(item: NewMemory) -> None:
    if not item.content.strip():
        raise RefusedError("an empty text cannot be remembered")
    if item.created_s is not None and not abs(item.created_s) < float("inf"):
        raise RefusedError(f"created_s must be a finite time, got {item.created_s}")


def unit_vector(vector: NDArray[np.float32], dim: int) -> Floats:
    """The vector [dim] at length 1; RefusedError where it has another shape, is not finite, or zero."""
    array = np.asarray(vector, np.float32)
    if array.shape != (dim,):
        raise RefusedError(f"a vector must have the shape ({dim},), got {array.shape}")
    norm = float(np.linalg.norm(array))
    if not 0.0 < norm < float("inf"):
        raise RefusedError("a vector must be finite and not zero")
    return array / np.float32(norm)
