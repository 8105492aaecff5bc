"""The memories in memory: one contiguous matrix of vectors and a row of figures beside each."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.workloads.memory_store.database import Database
from harness.workloads.memory_store.scoring import ACCESS_FULL_COUNT, DEFAULT, Scoring, bm25_part

_GATHER_SHARE: Final = 0.25
"""Below this share of candidates, their rows are gathered instead of multiplying the whole matrix."""
_FEW: Final = 1000
_VALUE: Final = DEFAULT._replace(importance=0.3, recency=0.3, access=0.4)
"""What a memory is worth keeping for: the seed article's weights, with a true half-life."""
_COLUMNS: Final = {
    "id": np.int64,
    "created_s": np.float64,
    "importance": np.float32,
    "access_count": np.float32,
    "namespace": np.int32,
    "length": np.float32,
}
"""What stands beside each vector: namespaces as codes, the length in terms."""


class MemoryIndex:
    """All that retrieval needs, dense: slots 0 .. count - 1 are alive, a removed slot is filled by the last one."""

    def __init__(self, dim: int, room: int = 0) -> None:
        self.dim, self.count = dim, 0
        self.matrix = np.zeros((room, dim), np.float32)
        self._columns: dict[str, NDArray[Any]] = {name: np.zeros(room, dtype) for name, dtype in _COLUMNS.items()}
        self._codes: dict[str, int] = {}
        self._slot_of_id: dict[int, int] = {}
        self._forget_terms()

    def _forget_terms(self) -> None:
        """Drop what was looked up of terms: how many memories hold each, and which slots and how often [2, n]."""
        self._frequencies: dict[str, int] = {}
        self._holders: dict[str, NDArray[np.int32]] = {}

    @property
    def ids(self) -> NDArray[np.int64]:
        """Identifiers by slot."""
        return self._columns["id"][: self.count]

    def extend(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add memories, each a row as ``Database.current`` gives it."""
        self._forget_terms()
        start, end = self.count, self.count + len(rows)
        if end > len(self.matrix):
            room = max(1024, end + end // 2)
            self.matrix = _grown(self.matrix, room)
            self._columns = {name: _grown(column, room) for name, column in self._columns.items()}
        *columns, vectors = zip(*rows, strict=True)
        for (name, column), values in zip(self._columns.items(), columns, strict=True):
            is_named = name == "namespace"
            column[start:end] = [self._codes.setdefault(v, len(self._codes)) for v in values] if is_named else values
        self.matrix[start:end] = np.frombuffer(b"".join(vectors), "<f4").reshape(-1, self.dim)
        self._slot_of_id.update(zip(columns[0], range(start, end), strict=True))
        self.count = end

    def remove(self, memory_ids: Iterable[int]) -> None:
        """Remove memories; their vectors are overwritten."""
        self._forget_terms()
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

    def touch(self, slots: NDArray[np.intp]) -> None:
        """Count one more access for each slot."""
        self._columns["access_count"][slots] += 1

    def slots(self, namespace: str | None) -> NDArray[np.intp] | None:
        """Slots of a namespace; None for all of them."""
        if namespace is None:
            return None
        return np.flatnonzero(self._columns["namespace"][: self.count] == self._codes.get(namespace, -1))

    def cosines(self, query: NDArray[np.float32], slots: NDArray[np.intp] | None) -> NDArray[np.float32]:
        """Cosine of each candidate with the query."""
        if slots is None:
            return products(self.matrix[: self.count], query)
        if len(slots) < _GATHER_SHARE * self.count:
            return products(self.matrix[slots], query)
        return products(self.matrix[: self.count], query)[slots]

    def bm25(
        self, terms: Iterable[str], database: Database, among: NDArray[np.intp] | None = None
    ) -> NDArray[np.float32]:
        """BM25 of every memory [count] for a question's terms, 0 where it holds none of them.

        Document frequencies and lengths are those of the candidates ``among`` (slots; all when None), as if each
        namespace were a collection of its own: what others stored neither moves a score nor shows through it.
        A term in more than half of them is skipped: FTS5 gives it the idf 1e-6, which ranks nothing.
        """
        total = np.zeros(self.count, np.float32)
        lengths = self._columns["length"][: self.count]
        chosen = lengths if among is None else lengths[among]
        n, mean_length = len(chosen), float(chosen.mean())
        inside = np.zeros(self.count, np.bool_)
        if among is not None:
            inside[among] = True
        for term in terms:
            if term not in self._frequencies:
                self._frequencies[term] = database.holder_count(term)
            if n >= _FEW and 2 * (self._frequencies[term] - (self.count - n)) > n:
                continue  # certainly in more than half of them: nothing to look up
            if term not in self._holders:
                known = self._slot_of_id
                held = [(known[i], times) for i, times in database.holders(term) if i in known]
                self._holders[term] = np.array(held, np.int32).reshape(-1, 2).T
            slots, repeats = self._holders[term]
            if among is not None:
                slots, repeats = slots[inside[slots]], repeats[inside[slots]]
            if len(slots) and (2 * len(slots) <= n or n < _FEW):
                # A memory stands once in each term's list, so plain indexing adds every part.
                total[slots] += bm25_part(repeats, lengths[slots], document_count=n, mean_length=mean_length)
        return total

    def boosts(self, scoring: Scoring, now_s: float, slots: NDArray[np.intp] | None = None) -> NDArray[np.float32]:
        """What recency, importance and access add for each candidate."""
        where: Any = slice(self.count) if slots is None else slots
        used = np.minimum(self._columns["access_count"][where], ACCESS_FULL_COUNT)
        total: NDArray[np.float32] = self._columns["importance"][where] * np.float32(scoring.importance)
        total += used * np.float32(scoring.access / ACCESS_FULL_COUNT)
        if scoring.recency:
            ages = (self._columns["created_s"][where] - now_s).astype(np.float32)  # negative
            ages *= np.float32(1 / scoring.half_life_s)
            total += np.exp2(np.minimum(ages, np.float32(0))) * np.float32(scoring.recency)
        return total

    def least_valuable(self, count: int, now_s: float) -> list[int]:
        """Identifiers of the memories that are least worth keeping."""
        if count < 1:
            return []
        value = self.boosts(_VALUE, now_s)
        if count == 1:
            return [int(self.ids[value.argmin()])]
        lowest = np.argpartition(value, count - 1)[:count] if count < self.count else np.arange(self.count)
        return [int(i) for i in self.ids[lowest]]


def _grown(column: "NDArray[Any]", room: int) -> "NDArray[Any]":
    more = np.zeros((room, *column.shape[1:]), column.dtype)
    more[: len(column)] = column
    return more


def products(matrix: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inner product of each row with the query, [n].

    Row by row: for a tall matrix that no cache holds, twice as fast as BLAS's matrix-vector product, exact alike.
    """
    if hasattr(np, "vecdot"):  # numpy 2
        found: NDArray[np.float32] = np.vecdot(matrix, query)
        return found
    return np.asarray(np.einsum("ij,j->i", matrix, query))
