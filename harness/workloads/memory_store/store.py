"""Long-term memory: store, retrieve, update and forget, durable in one file."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from harness.errors import RefusedError
from harness.workloads._language.figures import ENGLISH
from harness.workloads.memory_store.database import Database
from harness.workloads.memory_store.embedders import Embedder
from harness.workloads.memory_store.index import MemoryIndex
from harness.workloads.memory_store.scoring import DEFAULT, Scoring, top

_SEARCH: Final = "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ? ORDER BY 2 DESC, 1 LIMIT ?"
_MANY: Final = 1000
"""So many texts stored at once leave the full-text index in pieces, and every later deletion would look into each."""
_WORD: Final = re.compile(r"\w+")
_STOP_WORDS: Final = frozenset(ENGLISH["search"]["stop_words"].split())
"""English words that say nothing about a topic; left out of questions only, never out of what is stored."""


class NewMemory(NamedTuple):
    """Something to remember; ``created_s`` None means now, ``vector`` None lets the embedder make it."""

    content: str
    namespace: str = "default"
    source: str = "conversation"
    importance: float = 0.5
    created_s: float | None = None
    vector: NDArray[np.float32] | None = None


class Memory(NamedTuple):
    """One memory as it is kept. ``superseded_by`` is None for the current version."""

    memory_id: int
    content: str
    namespace: str
    source: str
    created_s: float
    importance: float
    access_count: int
    supersedes: int | None
    superseded_by: int | None


class Hit(NamedTuple):
    """A retrieved memory and its score, in the unit of the scoring used."""

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
    """One store: SQLite is the truth, a matrix in memory answers.

    Safe for several threads; several processes may open the same file, and each sees what the others wrote at its next
    call. RefusedError where it cannot be opened as asked, BadDataError where it is no store.

    Args:
        path: The file; ``-wal`` and ``-shm`` lie beside it while it is open.
        embedder: Makes vectors; its name and width are bound to the file.
        capacity: Memories kept; storing one more evicts the least valuable.
        sync: ``process`` or ``power``; see ``Database``.
    """

    def __init__(
        self,
        path: Path,
        embedder: Embedder,
        *,
        capacity: int = 100_000,
        read_only: bool = False,
        sync: str = "process",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if capacity < 1:
            raise RefusedError(f"capacity must be at least 1, got {capacity}")
        self._embedder, self.capacity, self._clock = embedder, capacity, clock
        self._read_only = read_only
        self._lock = threading.RLock()
        self.path = path
        self._db = Database(path, dim=embedder.dim, embedder=embedder.name, read_only=read_only, sync=sync)
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

    # ---- storing

    def store(self, content: str, **fields: Any) -> int:
        """Remember one text; the fields are those of ``NewMemory``. Returns its identifier once it is durable."""
        return self.store_many([NewMemory(content, **fields)])[0]

    def store_many(self, memories: Iterable[NewMemory]) -> list[int]:
        """Remember many texts in one transaction.

        Raises:
            RefusedError: A text is empty, an importance or a vector is out of range, or the store is read-only.
        """
        items = list(memories)
        vectors = self._vectors(items)
        for item in items:
            check_memory(item)
        with self._lock:
            self._writable()
            self._refresh()
            now_s = self._clock()
            stamps = [now_s if i.created_s is None else i.created_s for i in items]
            with self._db.write() as db:
                evicted = self._index.least_valuable(self._index.count + len(items) - self.capacity, now_s)
                self._db.delete(v for i in evicted for v in self._db.chain(i))
                ids = [
                    self._db.insert(i.content, v, (i.namespace, i.source, s, i.importance, None))
                    for i, v, s in zip(items, vectors, stamps, strict=True)
                ]
                if len(items) >= _MANY:
                    db.execute("INSERT INTO words(words) VALUES ('optimize')")
            self._index.remove(evicted)
            if ids:
                self._take(ids[0])
            return ids

    def vector(self, text: str) -> NDArray[np.float32]:
        """The embedder's vector [dim] of a text, for calls that take one."""
        return self._vectors([NewMemory(text)])[0]

    def update(
        self,
        memory_id: int,
        content: str,
        *,
        importance: float | None = None,
        vector: NDArray[np.float32] | None = None,
    ) -> int:
        """Replace a memory by a newer text; returns the identifier of the new version.

        The old version is found no more, but stays in ``history`` until any version is forgotten. RefusedError where
        there is no such memory, it is superseded already, or the store is read-only.
        """
        with self._lock:
            self._writable()
            self._refresh()
            old = self.get(memory_id)
            if old.superseded_by is not None:
                raise RefusedError(f"memory {memory_id} is superseded by {old.superseded_by}: update that one")
            importance = old.importance if importance is None else importance
            item = NewMemory(content, old.namespace, old.source, importance, vector=vector)
            check_memory(item)
            unit, now_s = self._vectors([item])[0], self._clock()
            with self._db.write() as db:
                self._db.unindex(memory_id)
                row = (old.namespace, old.source, now_s, item.importance, memory_id)
                new_id = self._db.insert(content, unit, row)
                change = "UPDATE memories SET superseded_by = ?, superseded_s = ? WHERE id = ?"
                db.execute(change, (new_id, now_s, memory_id))
            self._index.remove([memory_id])
            self._take(new_id)
            return new_id

    # ---- reading

    def get(self, memory_id: int) -> Memory:
        """One memory, superseded ones included; RefusedError where there is none."""
        with self._lock:
            return self._memories([memory_id])[0]

    def history(self, memory_id: int) -> list[Memory]:
        """All versions of a memory, oldest first; any version's identifier will do."""
        with self._lock:
            return self._memories(self._db.chain(memory_id))

    def retrieve(
        self,
        query: str,
        *,
        top_k: int = 5,
        namespace: str | None = None,
        scoring: Scoring = DEFAULT,
        touch: bool = False,
        vector: NDArray[np.float32] | None = None,
        now_s: float | None = None,
    ) -> list[Hit]:
        """The memories that score best for a question, best first.

        All namespaces are looked at unless one is named. Changes nothing unless ``touch`` asks to count the access of
        what is returned. ``vector`` [dim] is the question's if already made; ages are counted to ``now_s``, the clock's
        when None.
        """
        unit = self._vectors([NewMemory(query, vector=vector)])[0] if scoring.semantic else None
        with self._lock:
            if touch:
                self._writable()
            self._refresh()
            now = self._clock() if now_s is None else now_s
            slots = self._index.slots(namespace)
            top_k = min(top_k, self._index.count if slots is None else len(slots))
            if top_k < 1:
                return []
            scores = self._scores(query, unit, scoring, slots, now)
            best = top(scores, top_k)
            chosen = best if slots is None else slots[best]
            ids = [int(i) for i in self._index.ids[chosen]]
            hits = [Hit(m, float(s)) for m, s in zip(self._memories(ids), scores[best], strict=True)]
            if touch:
                with self._db.write() as db:
                    change = "UPDATE memories SET access_count = access_count + 1, accessed_s = ? WHERE id = ?"
                    db.executemany(change, [(now, i) for i in ids])
                self._index.touch(chosen)
            return hits

    def search(self, expression: str, *, top_k: int = 20) -> list[Hit]:
        """Memories whose text matches an FTS5 expression (phrases, prefixes, NEAR, AND, OR, NOT), best BM25 first.

        Raises:
            RefusedError: The expression is malformed.
        """
        with self._lock:
            found = self._db.select(_SEARCH, expression, top_k)
            return [Hit(self._memories([i])[0], float(score)) for i, score in found]

    # ---- forgetting

    def forget(
        self,
        *,
        ids: Sequence[int] | None = None,
        source: str | None = None,
        namespace: str | None = None,
        before_s: float | None = None,
        words: str | None = None,
        dry_run: bool = False,
    ) -> Forgotten:
        """Forget the memories that fulfil every condition given, all their versions too, and erase them on disk.

        ``words`` is an FTS5 expression that their text matches; ``dry_run`` only lists them. RefusedError for no
        condition at all, a malformed expression, or a store that is read-only.
        """
        conditions = {
            "id IN (SELECT value FROM json_each(?))": None if ids is None else json.dumps([int(i) for i in ids]),
            "source = ?": source,
            "namespace = ?": namespace,
            "created_s < ?": before_s,
            "id IN (SELECT rowid FROM words WHERE words MATCH ?)": words,
        }
        given = {condition: value for condition, value in conditions.items() if value is not None}
        if not given:
            raise RefusedError("say what to forget: ids, source, namespace, before_s or words")
        with self._lock:
            self._refresh()
            where = " AND ".join(given)
            chosen = self._db.select(f"SELECT id FROM memories WHERE {where}", *given.values())  # noqa: S608
            every = sorted({v for (i,) in chosen for v in self._db.chain(i)})
            memories = tuple(self._memories(every))
            if dry_run:
                return Forgotten(memories, is_erased=False)
            self._writable()
            with self._db.write():
                self._db.delete(every)
            self._index.remove(every)
            return Forgotten(memories, is_erased=self.erase())

    def erase(self) -> bool:
        """Take everything deleted out of the log; False while another process still reads an older state."""
        with self._lock:
            self._writable()
            return self._db.erase_log()

    def _scores(self, query: str, unit: Any, scoring: Scoring, slots: Any, now_s: float) -> NDArray[np.float32]:
        """Every candidate's score; ``unit`` [dim] is the question's vector, None where the scoring looks at none."""
        index = self._index
        scores = np.zeros(index.count if slots is None else len(slots), np.float32)
        if unit is not None:
            scores = index.cosines(unit, slots)
            if scoring.kind == "fused":
                low, high = float(scores.min()), float(scores.max())
                scores -= np.float32(low)
                scores /= np.float32(max(high - low, 1e-9))
            scores *= np.float32(scoring.semantic)
        if scoring.boost_limit:
            scores += index.boosts(scoring, now_s, slots)
        if scoring.lexical:
            # Stop words are left out, and kept when there is nothing else.
            wanted = " ".join(w for w in _WORD.findall(query) if w.lower() not in _STOP_WORDS)
            lexical = index.bm25(self._db.terms(wanted or query), self._db, slots)
            lexical = lexical if slots is None else lexical[slots]
            scores += lexical * np.float32(scoring.lexical / (float(lexical.max()) or 1.0))
        return scores

    def _take(self, first_id: int) -> None:
        """Take into memory what the database holds from an identifier on."""
        for rows in self._db.current(self._embedder.dim, first_id):
            self._index.extend(rows)

    def _memories(self, ids: Sequence[int]) -> list[Memory]:
        return [Memory(*self._db.row(i)) for i in ids]

    def _vectors(self, items: Sequence[NewMemory]) -> list[NDArray[np.float32]]:
        wanted = [i.content for i in items if i.vector is None]
        made = iter(self._embedder.embed(wanted)) if wanted else iter(())
        return [unit_vector(next(made) if i.vector is None else i.vector, self._embedder.dim) for i in items]

    def _writable(self) -> None:
        if self._read_only:
            raise RefusedError("the store is open for reading only")

    def _refresh(self) -> None:
        """Read everything anew when another connection has written, or nothing was read yet."""
        version = self._db.version()
        if version != self._seen_version:
            self._seen_version = version
            self._index = MemoryIndex(self._embedder.dim, self._db.count())
            self._take(0)


def check_memory(item: NewMemory) -> None:
    """RefusedError where the text is empty, or importance or time are out of range."""
    if not item.content.strip():
        raise RefusedError("an empty text cannot be remembered")
    if not 0.0 <= item.importance <= 1.0:
        raise RefusedError(f"importance must lie in [0, 1], got {item.importance}")
    if item.created_s is not None and not abs(item.created_s) < float("inf"):
        raise RefusedError(f"created_s must be a finite time, got {item.created_s}")


def unit_vector(vector: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """The vector [dim] at length 1; RefusedError where it has another shape, is not finite, or zero."""
    array = np.asarray(vector, np.float32)
    if array.shape != (dim,):
        raise RefusedError(f"a vector must have the shape ({dim},), got {array.shape}")
    norm = float(np.linalg.norm(array))
    if not 0.0 < norm < float("inf"):
        raise RefusedError("a vector must be finite and not zero")
    return array / np.float32(norm)
