"""Which texts hold which term: a sorted base and a small tail of what came since."""

from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.workloads.memory_store.lexicon import Terms

_TAIL_MIN: Final = 20_000


class Postings:
    """Inverted index from hashed terms to ordinals (numbers that are never given twice).

    A removed text stays in it until the next rebuild; who asks must skip ordinals that are gone.
    """

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.uint32)
        self._starts = np.zeros(1, np.int64)
        self._ordinals = np.empty(0, np.int32)
        self._repeats = np.empty(0, np.float32)
        self._tail: dict[int, tuple[array[int], array[float]]] = {}
        self._tail_count = 0

    def build(self, ordinals: NDArray[np.int32], hashes: NDArray[np.uint32], repeats: NDArray[np.uint16]) -> None:
        """Begin anew from one row for each (text, term), in ascending order of ordinals."""
        order = np.argsort(hashes, kind="stable")
        sorted_hashes = hashes[order]
        first = np.flatnonzero(np.concatenate(([True], sorted_hashes[1:] != sorted_hashes[:-1])))
        first = first[: len(hashes)]
        self._hashes = sorted_hashes[first]
        self._starts = np.append(first, len(hashes)).astype(np.int64)
        self._ordinals = ordinals[order]
        self._repeats = repeats[order].astype(np.float32)
        self._tail, self._tail_count = {}, 0

    def add(self, ordinal: int, terms: Terms) -> None:
        """Add one text."""
        for term, repeats in zip(terms[0].tolist(), terms[1].tolist(), strict=True):
            lists = self._tail.get(term)
            if lists is None:
                lists = self._tail[term] = (array("i"), array("f"))
            lists[0].append(ordinal)
            lists[1].append(repeats)
        self._tail_count += len(terms[0])

    @property
    def needs_merge(self) -> bool:
        """Whether the tail has grown to a quarter of the base."""
        return self._tail_count > max(_TAIL_MIN, len(self._ordinals) // 4)

    def merge(self, is_alive: NDArray[np.bool_]) -> None:
        """Fold the tail into the base and drop the ordinals that ``is_alive`` denies."""
        lengths = np.diff(self._starts)
        hashes = [np.repeat(self._hashes, lengths)]
        ordinals, repeats = [self._ordinals], [self._repeats.astype(np.uint16)]
        for term, (tail_ordinals, tail_repeats) in self._tail.items():
            hashes.append(np.full(len(tail_ordinals), term, np.uint32))
            ordinals.append(np.array(tail_ordinals, np.int32))
            repeats.append(np.array(tail_repeats, np.float32).astype(np.uint16))
        all_ordinals = np.concatenate(ordinals)
        kept = is_alive[all_ordinals]
        self.build(all_ordinals[kept], np.concatenate(hashes)[kept], np.concatenate(repeats)[kept])

    def count(self, term: int) -> int:
        """How many ordinals hold the term, gone ones included."""
        part, tail = self._part(term), self._tail.get(term)
        return int(part.stop) - int(part.start) + (len(tail[0]) if tail else 0)

    def find(self, term: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Ordinals that hold the term, gone ones included, and how often each holds it."""
        part, tail = self._part(term), self._tail.get(term)
        base = self._ordinals[part], self._repeats[part]
        if not tail:
            return base
        return (
            np.concatenate((base[0], np.array(tail[0], np.int32))),
            np.concatenate((base[1], np.array(tail[1], np.float32))),
        )

    def _part(self, term: int) -> slice:
        at = int(np.searchsorted(self._hashes, np.uint32(term)))
        if at < len(self._hashes) and int(self._hashes[at]) == term:
            return slice(int(self._starts[at]), int(self._starts[at + 1]))
        return slice(0, 0)
