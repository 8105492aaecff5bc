"""Faster search with faiss's half-precision rows: the exact best by score, from a part of the candidates only."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.errors import MissingPackageError
from harness.workloads.memory_store.index import MemoryIndex, products
from harness.workloads.memory_store.scoring import Scoring, top

_NEAREST: Final = 256
_PART_ROWS: Final = 16_384
_MOST_SHARE: Final = 0.1
_SLACK: Final = 2e-3  # a half-precision cosine of unit vectors is off by less


class QuantisedSearch:
    """A half-precision copy of the vectors (``IndexScalarQuantizer``, QT_fp16): half the bytes to read for a search.

    It holds for one version of the index; ``is_current`` says whether it still does.

    Raises:
        MissingPackageError: faiss is not installed.
    """

    def __init__(self, index: MemoryIndex) -> None:
        try:
            import faiss
        except ImportError as error:
            raise MissingPackageError("faiss-cpu", "memory") from error
        self._index = index
        self._version = index.version
        quantiser = faiss.ScalarQuantizer.QT_fp16
        self._parts: list[tuple[int, Any]] = []
        for start in range(0, index.count, _PART_ROWS):
            part: Any = faiss.IndexScalarQuantizer(index.dim, quantiser, faiss.METRIC_INNER_PRODUCT)
            part.train(index.matrix[:1])
            part.add(index.matrix[start : min(start + _PART_ROWS, index.count)])
            self._parts.append((start, part))

    def is_current(self) -> bool:
        """Whether nothing was added or removed since."""
        return self._version == self._index.version

    def best(
        self,
        query: NDArray[np.float32],
        by_words: NDArray[np.float32] | None,
        scoring: Scoring,
        now_s: float,
        top_k: int,
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]] | None:
        """The same best slots and scores as scoring every row, or None when too many candidates would be needed.

        A row outside the nearest m has at most the m-th cosine, so its score is at most that cosine's part plus its
        own BM25 and boosts, which are known for every row; only rows whose bound reaches the k-th best score found so
        far can be missing, and those are scored too (threshold algorithm, Fagin et al. 2003).

        Args:
            query: Unit vector.
            by_words: BM25 of every row, scaled and weighted; None when no row shares a word with the question.
            scoring: Weights, of the kind ``fused``.
            now_s: Now.
            top_k: Hits wanted, at most the number of rows.
        """
        index = self._index
        size = max(_NEAREST, 4 * top_k)
        if size > index.count:
            return None
        cosines, near, low = self._nearest(query, size)
        span = max(float(cosines.max()) - low, 1e-9)
        rest = index.boosts(scoring, now_s, None)
        rest = np.zeros(index.count, np.float32) if rest is None else rest
        if by_words is not None:
            rest += by_words
        weight = np.float32(scoring.semantic / span)
        seeds = np.union1d(near, top(rest, size))
        scores = self._scores(seeds, query, rest, weight, low)
        kth = float(np.partition(scores, -top_k)[-top_k])
        bound = weight * np.float32(float(cosines.min()) + _SLACK - low)
        reach = np.flatnonzero(rest >= np.float32(kth) - bound)
        if len(reach) > _MOST_SHARE * index.count:
            return None
        more = np.setdiff1d(reach, seeds, assume_unique=True)
        if len(more):
            seeds = np.concatenate((seeds, more))
            scores = np.concatenate((scores, self._scores(more, query, rest, weight, low)))
        return seeds.astype(np.intp), scores

    def _nearest(self, query: NDArray[np.float32], size: int) -> tuple[NDArray[Any], NDArray[Any], float]:
        """(cosines, slots) of the nearest ``size`` rows, and the lowest cosine of all.

        faiss gives either the highest or the lowest; the second look at a part finds it in the cache.
        """
        found, low = [], np.inf
        for start, part in self._parts:
            cosines, slots = part.search(query[None], min(size, part.ntotal))
            found.append((cosines[0], slots[0] + start))
            low = min(low, -float(part.search(-query[None], 1)[0][0, 0]))
        cosines, near = (np.concatenate(pieces) for pieces in zip(*found, strict=True))
        chosen = np.argpartition(cosines, -size)[-size:]
        return cosines[chosen], near[chosen], low

    def _scores(
        self,
        slots: NDArray[Any],
        query: NDArray[np.float32],
        rest: NDArray[np.float32],
        weight: np.float32,
        low: float,
    ) -> NDArray[np.float32]:
        found = products(self._index.matrix[slots], query)
        total: NDArray[np.float32] = weight * (found - np.float32(low)) + rest[slots]
        return total
