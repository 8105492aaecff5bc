"""Which texts hold which term: a sorted base and a small tail of what came since."""

from collections.abc import Sequence
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
        self._tail: dict[int, list[tuple[int, int]]] = {}
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
            self._tail.setdefault(term, []).append((ordinal, repeats))
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
        for term, rows in self._tail.items():
            pairs = np.array(rows, np.int64)
            hashes.append(np.full(len(rows), term, np.uint32))
            ordinals.append(pairs[:, 0].astype(np.int32))
            repeats.append(pairs[:, 1].astype(np.uint16))
        all_ordinals = np.concatenate(ordinals)
        kept = is_alive[all_ordinals]
        self.build(all_ordinals[kept], np.concatenate(hashes)[kept], np.concatenate(repeats)[kept])

    def find(self, term: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Ordinals that hold the term, gone ones included, and how often each holds it."""
        at = int(np.searchsorted(self._hashes, np.uint32(term)))
        if at < len(self._hashes) and int(self._hashes[at]) == term:
            part = slice(int(self._starts[at]), int(self._starts[at + 1]))
            base = self._ordinals[part], self._repeats[part]
        else:
            base = self._ordinals[:0], self._repeats[:0]
        tail = self._tail.get(term)
        if not tail:
            return base
        pairs = np.array(tail, np.int64)
        return (
            np.concatenate((base[0], pairs[:, 0].astype(np.int32))),
            np.concatenate((base[1], pairs[:, 1].astype(np.float32))),
        )


def flatten(
    ordinals: Sequence[int], terms: Sequence[Terms]
) -> tuple[NDArray[np.int32], NDArray[np.uint32], NDArray[np.uint16]]:
    """Rows for ``Postings.build`` from the terms of each text."""
    if not terms:
        return np.empty(0, np.int32), np.empty(0, np.uint32), np.empty(0, np.uint16)
    lengths = [len(t[0]) for t in terms]
    return (
        np.repeat(np.array(ordinals, np.int32), lengths),
        np.concatenate([t[0] for t in terms]),
        np.concatenate([t[1] for t in terms]),
    )
