"""Long-term memory in one SQLite file: store, retrieve, and forget with an erasure that overwrites.

The file is the truth: texts, vectors, and a full-text index that triggers keep. The vectors also lie in
arrays, which answer. Nothing that was told is lost: of two memories of one fact the later stands first, and
the earlier says that there is a later one.

A plain DELETE leaves the words of a text in the full-text index, also after VACUUM and with ``secure_delete``
alone. Three things together clear them: ``PRAGMA secure_delete`` (freed pages are zeroed), FTS5's own
``secure-delete`` (index entries are removed, not marked), and a truncating checkpoint (old pages leave the
log).
"""

import re
import sqlite3
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.core.arrays import Singles
from harness.core.errors import BadDataError, RefusedError, WrongAnswerError
from harness.core.tables import shipped_text
from harness.workloads.chain import Meter, Op, RecordedPass

STOP_WORDS = frozenset(shipped_text("stop_words.txt", "harness.workloads.memory").split())
"""Words that say nothing about a topic; left out of questions only, unless there is nothing else in them."""
SAME_COSINE = 0.6
"""From which on a later memory that lacks a word of the question may still speak of the same fact."""
TURNED_COSINE = 0.5
"""From which on the third best memory may replace the best, where it says that something changed."""
_words = partial(re.compile, flags=re.IGNORECASE | re.VERBOSE)
CHANGED = _words(
    r"""\b(now|new|moved?|chang\w+|instead|no\ longer|any\ ?more|from\ now|since|left|sold|switch\w+|g[ai]ve\ up
    |turned|postpone\w*|as\ of|these\ days|after\ all|again|from\ next|stopped|quit|bec[ao]me|gone|replac\w+|resets?
    |used\ to|back|(down|up)\ to|t(ook|akes)\ over|handed|in\ place\ of|rather|correct\w+|actually|cancel\w*|starts?
    |bought)\b"""
)
"""Words of a text that says that something is otherwise than it was."""
ADDED = _words(r"\b(also|too|as\ well|another|second|both|besides|additional\w*|extra)\b")
"""Words of a text that adds to what holds, and replaces nothing."""
OF_NOTES = _words(
    r"""\b(notes?|noted|memor\w+|remember\w*|ignore|disregard|stored|previous\w*|earlier|supersede\w*|instruct\w+
    |outdated|message|notice|attention)\b"""
)
"""Words of a text that speaks of notes: it has no authority over the facts in them."""
_SCHEMA = """
PRAGMA page_size=8192;
PRAGMA journal_mode=WAL;
PRAGMA synchronous=NORMAL;
PRAGMA secure_delete=ON;
PRAGMA cache_size=-16384;
CREATE TABLE IF NOT EXISTS memories(
    id INTEGER PRIMARY KEY AUTOINCREMENT, content TEXT, source TEXT, created_s REAL, vector BLOB
);
CREATE INDEX IF NOT EXISTS by_source ON memories(source);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5(
    content, content='memories', content_rowid='id', tokenize='porter unicode61'
);
INSERT INTO words(words, rank) VALUES ('secure-delete', 1);
CREATE TRIGGER IF NOT EXISTS told AFTER INSERT ON memories
BEGIN INSERT INTO words(rowid, content) VALUES (new.id, new.content); END;
CREATE TRIGGER IF NOT EXISTS forgotten AFTER DELETE ON memories
BEGIN INSERT INTO words(words, rowid, content) VALUES ('delete', old.id, old.content); END;
"""
OF_SOURCE = "source = ?"
OF_WORDS = "id IN (SELECT rowid FROM words WHERE words MATCH ?)"
_KEPT = "SELECT id, content, source, created_s FROM memories"


class Memory(NamedTuple):
    """One memory; ``created_s`` is Unix time.

    Of one that was retrieved also its score, and the identifier of the later memory that replaces it.
    """

    memory_id: int
    content: str
    source: str
    created_s: float
    score: float = 0.0
    newer: tuple[int, ...] = ()


class MemoryStore:
    """One store of one process, which forgets only what it is asked to forget.

    What a returned call wrote is still there after the process was killed.

    Args:
        path: The file; ``-wal`` and ``-shm`` lie beside it while it is open.
        encoder: Makes vectors.
        meter: Times the search through the vectors.

    Raises:
        BadDataError: The file is no store, or SQLite is too old to forget.
    """

    def __init__(self, path: Path, encoder: Any, meter: Meter) -> None:
        self._encoder = encoder
        self._meter = meter
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._db.executescript(_SCHEMA)
            rows = self._db.execute("SELECT id, vector FROM memories ORDER BY id").fetchall()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise BadDataError(path, "", str(error), "a memory store, and SQLite 3.42 or newer") from error
        self._ids = np.array([row[0] for row in rows], np.int64)
        vectors = np.frombuffer(b"".join(row[1] for row in rows), np.float32)
        self._vectors = vectors.reshape(-1, encoder.dim)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __len__(self) -> int:
        return len(self._ids)

    def store(
        self,
        texts: Sequence[str],
        sources: Sequence[str],
        created_s: float | None = None,
        vectors: Any = None,
    ) -> list[int]:
        """Remember texts in one transaction; their identifiers once they are durable.

        ``vectors`` [texts, dim] are theirs if already made; ``created_s`` None means now.

        Raises:
            RefusedError: A text is empty.
        """
        when_s = time.time() if created_s is None else created_s
        if not all(text.strip() for text in texts):
            raise RefusedError("an empty text cannot be remembered")
        if vectors is None:
            vectors = self._encoder.embed(texts)
        insert = "INSERT INTO memories(content, source, created_s, vector) VALUES (?, ?, ?, ?)"
        ids = []
        with self._db:
            self._db.execute("BEGIN")
            for text, source, vector in zip(texts, sources, vectors, strict=True):
                done = self._db.execute(insert, (text, source, when_s, vector.tobytes()))
                ids.append(int(done.lastrowid or 0))
        start = len(self)
        self._ids = np.append(self._ids, np.array(ids, np.int64))
        if len(self) >= len(self._vectors):  # room for as many again
            grown = np.empty((2 * len(self), self._encoder.dim), np.float32)
            grown[:start] = self._vectors[:start]
            self._vectors = grown
        self._vectors[start : len(self)] = vectors
        return ids

    def retrieve(self, query: str, *, top_k: int = 5, vector: Singles | None = None) -> list[Memory]:
        """The memories that score best for a question, best first; of equal ones the older.

        The score is minmax(BM25) + minmax(cosine), where minmax maps the candidates' range onto [0, 1], and a
        text that shares no word has BM25 0. A later memory that replaces one of the two best stands first.

        Changes nothing. ``vector`` [dim] is the question's if already made.
        """
        if not len(self):
            return []
        scores = np.zeros(len(self), np.float32)
        words = " OR ".join(f'"{word}"' for word in _telling(query))
        if words:
            matching = "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ?"
            for memory_id, score in self._db.execute(matching, [words]):
                scores[np.searchsorted(self._ids, memory_id)] = score
        scores /= scores.max() or 1.0
        unit = self._encoder.embed([query])[0] if vector is None else vector
        with self._meter.timed(RecordedPass(part="store", op=Op.SEARCH, moved_bytes=unit.nbytes * len(self))):
            # row by row: faster than BLAS where no cache holds them
            cosines = np.einsum("ij,j->i", self._vectors[: len(self)], unit)
        scores += (cosines - cosines.min()) / np.float32(max(float(np.ptp(cosines)), 1e-9))
        best = np.argsort(-scores, kind="stable")[: max(top_k, 3)]
        hits = [
            self._chosen("id = ?", int(self._ids[at]))[0]._replace(score=float(scores[at])) for at in best
        ]
        old, new = _replaced(query, hits, self._vectors[best])
        if new:
            hits[old] = hits[old]._replace(newer=(hits[new].memory_id,))
            hits.insert(0, hits.pop(new))
        elif old:  # the better one is the later one
            hits[old] = hits[old]._replace(newer=(hits[0].memory_id,))
        return hits[:top_k]

    def all(self) -> tuple[list[Memory], Singles]:
        """All memories in the order in which they were told, and their vectors [memories, dim]."""
        return self._chosen("id > ?", 0), self._vectors[: len(self)]

    def forget(self, value: str, condition: str = OF_SOURCE) -> list[Memory]:
        """Forget the memories of a source, or those that hold some words, and erase them on disk.

        Raises:
            WrongAnswerError: Somebody else reads an older state, which the log still holds.
        """
        gone = self._chosen(condition, value)
        chosen = [memory.memory_id for memory in gone]
        with self._db:  # all of it, or nothing
            self._db.execute("BEGIN")
            self._db.executemany("DELETE FROM memories WHERE id = ?", ((each,) for each in chosen))
        kept = ~np.isin(self._ids, chosen)
        self._vectors = self._vectors[: len(self)][kept]
        self._ids = self._ids[kept]
        if self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise WrongAnswerError("a forgotten memory may still lie in the log")
        return gone

    def _chosen(self, condition: str, value: Any) -> list[Memory]:
        rows = self._db.execute(f"{_KEPT} WHERE {condition} ORDER BY id", [value])
        return [Memory(*row) for row in rows]


def _replaced(query: str, hits: Sequence[Memory], vectors: Singles) -> tuple[int, int]:
    """Places of a memory among the best and of the later one that replaces it; 0, 0 if none does.

    Of the two best the later one does, unless it adds, speaks of notes, lacks a name or a number of the question
    that the other one has, or lacks another word of it without being near or saying that something changed. So
    does the third, where it says that something changed.
    """
    words = re.findall(r"\w+", query)
    named = _stems(
        " ".join(word for at, word in enumerate(words) if not word.isalpha() or (at and word[0].isupper()))
    )

    def replaces(old: int, new: int) -> bool:
        text = hits[new].content
        if hits[new].created_s <= hits[old].created_s or ADDED.search(text) or OF_NOTES.search(text):
            return False
        lacking = (_stems(query) & _stems(hits[old].content)) - _stems(text)
        if lacking & named:
            return False
        return bool(not lacking or CHANGED.search(text) or vectors[old] @ vectors[new] >= SAME_COSINE)

    old = new = 0
    if len(hits) > 1:
        earlier, later = sorted((0, 1), key=lambda at: hits[at].created_s)
        if replaces(earlier, later):
            old, new = earlier, later
    is_turned = (
        len(hits) > 2 and CHANGED.search(hits[2].content) and vectors[new] @ vectors[2] >= TURNED_COSINE
    )
    if is_turned and replaces(new, 2):
        old, new = new, 2
    return old, new


def _telling(query: str) -> list[str]:
    """The words of a question that may tell something; all of them where none does."""
    words = re.findall(r"\w+", query)
    return [word for word in words if word.lower() not in STOP_WORDS] or words


def _stems(text: str) -> set[str]:
    """Its telling words, those of letters alone by their beginnings: "eat" and "eating" are one."""
    return {word[:3] if word.isalpha() else word for word in _telling(text.lower())}
