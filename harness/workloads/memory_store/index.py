"""The memories in memory: one contiguous matrix of vectors and a row of figures beside each."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.workloads.memory_store.database import Database

BM25_K1: Final = 1.2
BM25_B: Final = 0.75
_FEW: Final = 1000
"""In fewer memories than these, a word in more than half of them may still tell something."""
_COLUMNS: Final = {"id": np.int64, "created_s": np.float64, "namespace": np.int32, "length": np.float32}
"""What stands beside each vector: namespaces as codes, the length in terms."""

Floats = NDArray[np.float32]
Slots = NDArray[np.intp]


class MemoryIndex:
    """All that retrieval needs, dense: slots 0 .. count - 1 are alive, a removed slot is filled by the last one."""

    def __init__(self, dim: int, room: int = 0) -> None:
        self.dim, self.count = dim, 0
        self.matrix = np.zeros((room, dim), np.float32)
        self._columns: dict[str, NDArray[Any]] = {name: np.zeros(room, dtype) for name, dtype in _COLUMNS.items()}
        self._codes: dict[str, int] = {}
        self._slot_of_id: dict[int, int] = {}
        self._holders: dict[str, NDArray[np.int32]] = {}

    @property
    def ids(self) -> NDArray[np.int64]:
        """Identifiers by slot."""
        return self._columns["id"][: self.count]

    def extend(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add memories, each a row as ``Database.current`` gives it."""
        self._holders = {}
        start, end = self.count, self.count + len(rows)
        if end > len(self.matrix):
            room = max(1024, end + end // 2)
            self.matrix = _grown(self.matrix, room)
            self._columns = {name: _grown(column, room) for name, column in self._columns.items()}
        ids, created_s, namespaces, lengths, vectors = zip(*rows, strict=True)
        codes = [self._codes.setdefault(name, len(self._codes)) for name in namespaces]
        for name, values in zip(_COLUMNS, (ids, created_s, codes, lengths), strict=True):
            self._columns[name][start:end] = values
        self.matrix[start:end] = np.frombuffer(b"".join(vectors), "<f4").reshape(-1, self.dim)
        self._slot_of_id.update(zip(ids, range(start, end), strict=True))
        self.count = end

    def remove(self, memory_ids: Iterable[int]) -> None:
        """Remove memories; their vectors are overwritten."""
        self._holders = {}
        for memory_id in memory_ids:
            slot = self._slot_of_id.pop(memory_id, None)
            if slot is None:
                continue
            last = self.count = self.count - 1
            if slot != last:
                for column in (self.matrix, *self._columns.values()):
                    column[slot] = column[last]
                self._slot_of_id[int(self._columns["id"][slot])] = slot
            self.matrix[last] = 0.0

    def slots(self, namespace: str | None) -> Slots:
        """Slots of a namespace; of all memories for None."""
        if namespace is None:
            return np.arange(self.count)
        return np.flatnonzero(self._columns["namespace"][: self.count] == self._codes.get(namespace, -1))

    def cosines(self, query: Floats, slots: Slots) -> Floats:
        """Cosine of each candidate with the query, row by row: twice as fast as BLAS where no cache holds them."""
        rows = self.matrix[: self.count] if len(slots) == self.count else self.matrix[slots]
        return np.asarray(np.vecdot(rows, query) if hasattr(np, "vecdot") else np.einsum("ij,j->i", rows, query))

    def recency(self, now_s: float, half_life_s: float, slots: Slots) -> Floats:
        """2 ** (-age / half-life) of each candidate: 1 now, 1/2 after one half-life."""
        ages = (now_s - self._columns["created_s"][slots]).astype(np.float32) * np.float32(1 / half_life_s)
        return np.asarray(np.exp2(-np.maximum(ages, np.float32(0))))

    def bm25(self, terms: Iterable[str], database: Database, slots: Slots) -> Floats:
        """BM25 of each candidate for a question's terms, 0 where it holds none of them.

        idf * f (k1 + 1) / (f + k1 (1 - b + b l / mean l)); FTS5's idf is ln((N - n + 0.5) / (n + 0.5)), at least 1e-6.
        Document frequencies and lengths are those of the candidates, as if each namespace were a collection of its own:
        what others stored neither moves a score nor shows through it. A term in more than half of many memories is
        skipped, since its idf ranks nothing.

        Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond"; constants of FTS5
        (SQLite, ext/fts5/fts5_aux.c, fts5Bm25GetData).
        """
        total = np.zeros(self.count, np.float32)
        lengths = self._columns["length"][: self.count]
        mean_length = float(lengths[slots].mean())
        is_inside = np.zeros(self.count, np.bool_)
        is_inside[slots] = True
        for term in terms:
            if term not in self._holders:
                if len(slots) >= _FEW and 2 * (database.holder_count(term) - self.count + len(slots)) > len(slots):
                    continue  # certainly in more than half of them: nothing to look up
                known = self._slot_of_id
                held = [(known[i], times) for i, times in database.holders(term) if i in known]
                self._holders[term] = np.array(held, np.int32).reshape(-1, 2).T
            holders, repeats = self._holders[term]
            inside = is_inside[holders]
            holders, repeats = holders[inside], repeats[inside]
            if not len(holders) or (2 * len(holders) > len(slots) >= _FEW):
                continue
            idf = max(math.log((len(slots) - len(holders) + 0.5) / (len(holders) + 0.5)), 1e-6)
            norm = BM25_K1 * (1 - BM25_B + BM25_B * lengths[holders] / mean_length)
            # A memory stands once in each term's list, so plain indexing adds every part.
            total[holders] += np.asarray(idf * (BM25_K1 + 1) * repeats / (repeats + norm), np.float32)
        return total[slots]


def _grown(column: NDArray[Any], room: int) -> NDArray[Any]:
    more = np.zeros((room, *column.shape[1:]), column.dtype)
    more[: len(column)] = column
    return more
