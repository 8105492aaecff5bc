"""The memories in memory: one contiguous matrix of vectors, columns beside it, and the inverted index."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.workloads.memory_store.lexicon import Terms, unpack
from harness.workloads.memory_store.postings import Postings
from harness.workloads.memory_store.scoring import ACCESS_FULL_COUNT, Scoring, bm25_idf, bm25_part

_GATHER_SHARE: Final = 0.25
"""Below this share of candidates, their rows are gathered instead of multiplying the whole matrix."""
_FEW: Final = 1000
_STATICS_KEPT: Final = 4
_PER_SLOT: Final = (
    "matrix",
    "ids",
    "created_s",
    "importance",
    "access_counts",
    "_namespaces",
    "_sources",
    "_lengths",
    "_ordinals",
)
"""What has a row for each slot."""


class Filter(NamedTuple):
    """Which memories are looked at; every condition given must hold."""

    namespace: str | None = None
    source: str | None = None
    since_s: float | None = None
    min_importance: float | None = None


class Columns(NamedTuple):
    """Columns of many memories, as the database gives them."""

    ids: Sequence[int]
    created_s: Sequence[float]
    importance: Sequence[float]
    access_counts: Sequence[int]
    namespaces: Sequence[str]
    sources: Sequence[str]


class MemoryIndex:
    """All that retrieval needs, dense: slots 0 .. count - 1 are alive, a removed slot is filled by the last one."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._codes: dict[str, int] = {}
        self.fill(Columns((), (), (), (), (), ()), np.zeros((0, dim), np.float32), ())

    def fill(self, columns: Columns, matrix: NDArray[np.float32], terms: Sequence[bytes]) -> None:
        """Begin anew with many memories; ``matrix`` [n, dim] is taken over, not copied.

        The terms, a blob for each memory, are put in order when a question needs them first.
        """
        n = len(columns.ids)
        room = max(n, 1)
        self.matrix = matrix if n else np.zeros((1, self.dim), np.float32)
        self.count = n
        self.ids = _column(columns.ids, np.int64, room)
        self.created_s = _column(columns.created_s, np.float64, room)
        self.importance = _column(columns.importance, np.float32, room)
        self.access_counts = _column(columns.access_counts, np.int32, room)
        self._namespaces = _column(list(map(self._code, columns.namespaces)), np.int32, room)
        self._sources = _column(list(map(self._code, columns.sources)), np.int32, room)
        self._ordinals = np.arange(room, dtype=np.int32)
        self._slot_of_ordinal = np.arange(room, dtype=np.int32)
        self._next_ordinal = n
        self._slot_of_id = dict(zip(columns.ids, range(n), strict=True))
        self._lengths = np.zeros(room, np.float32)
        self._postings = Postings()
        self._unsorted = terms
        self._fresh: tuple[float, float, NDArray[np.float32]] | None = None
        self._static: dict[tuple[float, float], NDArray[np.float32]] = {}

    def add(
        self,
        memory_id: int,
        vector: NDArray[np.float32],
        terms: Terms,
        *,
        created_s: float,
        importance: float,
        access_count: int,
        namespace: str,
        source: str,
    ) -> None:
        """Add one memory."""
        self._sort_terms()
        if self.count == len(self.ids):
            self._grow()
        slot, ordinal = self.count, self._next_ordinal
        if ordinal == len(self._slot_of_ordinal):
            more = np.full(max(1024, ordinal // 4), -1, np.int32)
            self._slot_of_ordinal = np.concatenate((self._slot_of_ordinal, more))
        self.matrix[slot] = vector
        self.ids[slot], self.created_s[slot], self.importance[slot] = memory_id, created_s, importance
        self.access_counts[slot] = access_count
        self._namespaces[slot], self._sources[slot] = self._code(namespace), self._code(source)
        self._lengths[slot] = float(terms[1].sum())
        self._ordinals[slot], self._slot_of_ordinal[ordinal] = ordinal, slot
        self._slot_of_id[memory_id] = slot
        self._next_ordinal += 1
        self.count += 1
        self._postings.add(ordinal, terms)
        if self._fresh is not None:
            reference_s, half_life_s, shares = self._fresh
            shares[slot] = _share(created_s - reference_s, half_life_s)
        self._restate(slot)
        if self._postings.needs_merge:
            self._postings.merge(self._slot_of_ordinal >= 0)

    def remove(self, memory_ids: Iterable[int]) -> None:
        """Remove memories; their vectors are overwritten."""
        self._sort_terms()
        for memory_id in memory_ids:
            slot = self._slot_of_id.pop(memory_id, None)
            if slot is None:
                continue
            last = self.count - 1
            self._slot_of_ordinal[self._ordinals[slot]] = -1
            if slot != last:
                for column in self._columns():
                    column[slot] = column[last]
                self._slot_of_ordinal[self._ordinals[slot]] = slot
                self._slot_of_id[int(self.ids[slot])] = slot
            self.matrix[last] = 0.0
            self.count = last

    def set_importance(self, memory_id: int, importance: float) -> None:
        """Give a memory another importance."""
        slot = self._slot_of_id[memory_id]
        self.importance[slot] = importance
        self._restate(slot)

    def touch(self, slots: NDArray[np.intp]) -> None:
        """Count one more access for each slot."""
        self.access_counts[slots] += 1
        self._restate(slots)

    def slots(self, chosen: Filter) -> NDArray[np.intp] | None:
        """Slots that pass the filter; None for all of them."""
        n = self.count
        masks = []
        for name, codes in ((chosen.namespace, self._namespaces), (chosen.source, self._sources)):
            if name is not None:
                masks.append(codes[:n] == self._codes.get(name, -1))
        if chosen.since_s is not None:
            masks.append(self.created_s[:n] >= chosen.since_s)
        if chosen.min_importance is not None:
            masks.append(self.importance[:n] >= np.float32(chosen.min_importance))
        return np.flatnonzero(np.logical_and.reduce(masks)) if masks else None

    def cosines(self, query: NDArray[np.float32], slots: NDArray[np.intp] | None) -> NDArray[np.float32]:
        """Cosine of each candidate with the query."""
        if slots is None:
            return products(self.matrix[: self.count], query)
        if len(slots) < _GATHER_SHARE * self.count:
            return products(self.matrix[slots], query)
        return products(self.matrix[: self.count], query)[slots]

    def lexical(self, terms: Iterable[int], among: NDArray[np.intp] | None = None) -> NDArray[np.float32] | None:
        """BM25 of every memory [count], 0 where it holds no term; None when none holds any.

        Document frequencies and lengths are those of the candidates ``among`` (all when None), as if each namespace
        were a collection of its own: what others stored neither moves a score nor shows through it.
        A term in more than half of them is skipped: FTS5 gives it the idf 1e-6, which ranks nothing.
        """
        self._sort_terms()
        n = self.count if among is None else len(among)
        gone = self._next_ordinal - self.count
        total: NDArray[np.float32] | None = None
        is_found = False
        inside: NDArray[np.bool_] | None = None
        if among is not None:
            inside = np.zeros(self.count, np.bool_)
            inside[among] = True
        lengths = self._lengths[: self.count] if among is None else self._lengths[among]
        mean_length = float(lengths.sum()) / n if n else 1.0
        for term in terms:
            if among is None and n >= _FEW and 2 * (self._postings.count(term) - gone) > n:
                is_found = True  # certainly in more than half of them: nothing to look up
                continue
            ordinals, repeats = self._postings.find(term)
            slots = self._slot_of_ordinal[ordinals]
            alive = slots >= 0
            if inside is not None:
                alive &= inside[slots]  # -1 reads the last slot, and is masked already
            if not alive.all():
                slots, repeats = slots[alive], repeats[alive]
            if not len(slots):
                continue
            is_found = True
            if 2 * len(slots) <= n or n < _FEW:
                if total is None:
                    total = np.zeros(self.count, np.float32)
                idf = bm25_idf(n, len(slots))
                # A memory stands once in each term's list, so plain indexing adds every part.
                total[slots] += bm25_part(repeats, self._lengths[slots], idf=idf, mean_length=mean_length)
        return np.zeros(self.count, np.float32) if total is None and is_found else total

    def boosts(self, scoring: Scoring, now_s: float, slots: NDArray[np.intp] | None) -> NDArray[np.float32] | None:
        """What recency, importance and access add; None when all their weights are 0."""
        if not scoring.boost_limit:
            return None
        where: Any = slice(0, self.count) if slots is None else slots
        static: NDArray[np.float32] = self._statics(scoring.importance, scoring.access)[where]
        if not scoring.recency:
            return static.copy()
        total = self._recency(scoring.half_life_s, now_s, where)
        total *= np.float32(scoring.recency)
        total += static
        return total

    def _statics(self, importance: float, access: float) -> NDArray[np.float32]:
        """What importance and access add, for every slot; kept, since it changes by single memories only."""
        found = self._static.get((importance, access))
        if found is None:
            if len(self._static) >= _STATICS_KEPT:
                self._static.clear()
            found = _static(importance, access, self.importance, self.access_counts)
            self._static[importance, access] = found
        return found

    def _restate(self, slots: Any) -> None:
        for (importance, access), column in self._static.items():
            column[slots] = _static(importance, access, self.importance[slots], self.access_counts[slots])

    def _recency(self, half_life_s: float, now_s: float, where: Any) -> NDArray[np.float32]:
        """2**(-age / half_life) by one multiplication: 2**((created - reference) / h) is kept for each row."""
        fresh = self._fresh
        # A reference within 16 half-lives keeps the product exact to float32 for everything that is not long past.
        if fresh is None or fresh[1] != half_life_s or abs(now_s - fresh[0]) > 16 * half_life_s:
            fresh = (now_s, half_life_s, _share(self.created_s - now_s, half_life_s))
            self._fresh = fresh
        factor = np.float32(2.0 ** ((fresh[0] - now_s) / half_life_s))
        shares: NDArray[np.float32] = fresh[2][where] * factor
        return np.minimum(shares, np.float32(1.0), out=shares)

    def _grow(self) -> None:
        room = max(1024, len(self.ids) // 2)
        for name in _PER_SLOT:
            column = getattr(self, name)
            setattr(self, name, np.concatenate((column, np.zeros((room, *column.shape[1:]), column.dtype))))
        self._fresh = None
        self._static.clear()

    def _columns(self) -> "list[NDArray[Any]]":
        fresh = [] if self._fresh is None else [self._fresh[2]]
        return [*(getattr(self, name) for name in _PER_SLOT), *fresh, *self._static.values()]

    def _sort_terms(self) -> None:
        """Make the inverted index of what ``fill`` was given, if that was not done yet."""
        if not self._unsorted:
            return
        ordinals, hashes, repeats = unpack(self._unsorted)
        self._unsorted = ()
        self._lengths[:] = np.bincount(ordinals, repeats, minlength=len(self._lengths))
        self._postings.build(ordinals, hashes, repeats)

    def _code(self, name: str) -> int:
        return self._codes.setdefault(name, len(self._codes))


def products(matrix: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inner product of each row with the query, [n].

    Row by row: for a tall matrix that no cache holds, twice as fast as BLAS's matrix-vector product, exact alike.
    """
    if hasattr(np, "vecdot"):  # numpy 2
        found: NDArray[np.float32] = np.vecdot(matrix, query)
        return found
    return np.asarray(np.einsum("ij,j->i", matrix, query))


def _static(importance: float, access: float, important: Any, counts: Any) -> Any:
    used = np.minimum(counts, ACCESS_FULL_COUNT) * np.float32(access / ACCESS_FULL_COUNT)
    return (important * np.float32(importance) + used).astype(np.float32)


def _share(offset_s: Any, half_life_s: float) -> Any:
    return np.exp2(np.clip(np.asarray(offset_s) / half_life_s, -140.0, 120.0)).astype(np.float32)


def _column(values: Sequence[Any], dtype: Any, room: int) -> "NDArray[Any]":
    column = np.zeros(room, dtype)
    column[: len(values)] = values
    return column
