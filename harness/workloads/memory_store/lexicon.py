"""Words of a text as SQLite's FTS5 sees them, kept as keyed hashes.

The tokenizer is FTS5's own (``porter unicode61``), asked through a table in memory, so that the index in memory and
the one on disk can never disagree. Only 32-bit hashes under the store's own key are kept: a file of hashes holds no
word that somebody wanted forgotten.
"""

import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

TOKENIZER: Final = "porter unicode61"
_CACHED_TERMS: Final = 200_000
_BATCH: Final = 4096
_WORD: Final = re.compile(r"\w+")

STOP_WORDS: Final = frozenset(
    """a about after all also am an and any are as at be been before being but by can could did do does doing don
    down for from had has have having he her here hers him his how i if in into is it its just me more most my no
    nor not of off on once only or other our out over own s same she should so some such t than that the their them
    then there these they this those through to too under until up us very was we were what when where which while
    who whom why will with would you your""".split()  # noqa: SIM905  reads better than 130 quotes
)
"""English words that say nothing about a topic; left out of queries only, never out of what is stored."""

Terms = tuple[NDArray[np.uint32], NDArray[np.uint16]]
"""Hashes of the distinct terms of a text, ascending, and how often each one occurs."""


class Lexicon:
    """Turns texts into hashed terms.

    Args:
        key: Secret of the store, 16 bytes or more; the same text has other hashes under another key.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._hashes: dict[str, int] = {}
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.execute(f"CREATE VIRTUAL TABLE texts USING fts5(text, content='', tokenize='{TOKENIZER}')")
        self._db.execute("CREATE VIRTUAL TABLE words USING fts5vocab(texts, 'instance')")

    def close(self) -> None:
        """Let go of the tokenizer and of every word seen."""
        self._db.close()
        self._hashes.clear()

    def terms(self, texts: Sequence[str]) -> list[Terms]:
        """Hashed terms of each text."""
        found: list[Terms] = []
        for start in range(0, len(texts), _BATCH):
            found += self._batch(texts[start : start + _BATCH])
        return found

    def query(self, text: str) -> list[int]:
        """Distinct hashes of the words of a question, stop words left out (kept when there is nothing else)."""
        wanted = [w for w in _WORD.findall(text) if w.lower() not in STOP_WORDS]
        return sorted({self._hash(word) for word, _ in self._words([" ".join(wanted) if wanted else text])})

    def forget_words(self) -> None:
        """Drop the cache of words from memory."""
        self._hashes.clear()

    def _batch(self, texts: Sequence[str]) -> list[Terms]:
        counts: list[Counter[int]] = [Counter() for _ in texts]
        for word, row in self._words(texts):
            counts[row][self._hash(word)] += 1
        return [_pack(c) for c in counts]

    def _words(self, texts: Sequence[str]) -> list[tuple[str, int]]:
        db = self._db
        db.execute("BEGIN")
        try:
            db.executemany("INSERT INTO texts(rowid, text) VALUES (?, ?)", enumerate(texts))
            return db.execute("SELECT term, doc FROM words").fetchall()
        finally:
            db.execute("INSERT INTO texts(texts) VALUES ('delete-all')")
            db.execute("COMMIT")

    def _hash(self, word: str) -> int:
        known = self._hashes.get(word)
        if known is None:
            if len(self._hashes) >= _CACHED_TERMS:
                self._hashes.clear()
            known = int.from_bytes(blake2b(word.encode(), digest_size=4, key=self._key).digest(), "little")
            self._hashes[word] = known
        return known


def _pack(counts: "Counter[int]") -> Terms:
    hashes = np.fromiter(counts, np.uint32, len(counts))
    repeats = np.minimum(np.fromiter(counts.values(), np.int64, len(counts)), 65535).astype(np.uint16)
    order = np.argsort(hashes)
    return hashes[order], repeats[order]


def to_blob(terms: Terms) -> bytes:
    """Six bytes a term: all hashes, then all counts, little-endian."""
    return terms[0].astype("<u4").tobytes() + terms[1].astype("<u2").tobytes()


def unpack(blobs: Sequence[bytes]) -> tuple[NDArray[np.int32], NDArray[np.uint32], NDArray[np.uint16]]:
    """Terms of many texts at once, a row for each (text, term): (place of the text, hash, count)."""
    lengths = np.fromiter(map(len, blobs), np.int64, len(blobs)) // 6
    halves = np.frombuffer(b"".join(blobs), "<u2")  # a blob is 2 m halves of hashes, then m counts
    before = np.cumsum(lengths) - lengths
    ordinals = np.repeat(np.arange(len(blobs), dtype=np.int32), lengths)
    within = np.arange(len(ordinals)) - np.repeat(before, lengths)
    first = np.repeat(3 * before, lengths)
    at = first + 2 * within
    hashes = halves[at].astype(np.uint32) | halves[at + 1].astype(np.uint32) << np.uint32(16)
    return ordinals, hashes, halves[first + np.repeat(2 * lengths, lengths) + within].astype(np.uint16)
