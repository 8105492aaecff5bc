"""Faster search with faiss's half-precision rows: the exact best by score, from a part of the candidates only."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from harness.errors import MissingPackageError
from harness.workloads.memory_store.index import MemoryIndex
from harness.workloads.memory_store.scoring import Scoring

_FIRST: Final = 64
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
        self._faiss: Any = faiss.IndexScalarQuantizer(index.dim, quantiser, faiss.METRIC_INNER_PRODUCT)
        self._faiss.train(index.matrix[:1])
        self._faiss.add(index.matrix[: index.count])

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
        BM25 part plus all boosts; once that bound lies under the k-th best score found, no row was missed (threshold
        algorithm, Fagin et al. 2003).

        Args:
            query: Unit vector.
            by_words: BM25 of every row, scaled and weighted; None when no row shares a word with the question.
            scoring: Weights, of the kind ``fused``.
            now_s: Now.
            top_k: Hits wanted, at most the number of rows.
        """
        index = self._index
        low = -float(self._faiss.search(-query[None], 1)[0][0, 0])
        size = max(_FIRST, 4 * top_k)
        by_words = np.zeros(index.count, np.float32) if by_words is None else by_words
        matched = np.flatnonzero(by_words)
        lexical = by_words[matched]
        while size <= max(_FIRST, _MOST_SHARE * index.count):
            cosines, near = self._faiss.search(query[None], size)
            high, last = float(cosines[0, 0]), float(cosines[0, -1])
            span = low, max(high - low, 1e-9)
            unseen = scoring.semantic * (last + _SLACK - low) / span[1] + scoring.boost_limit
            order = np.argpartition(lexical, -size)[-size:] if len(lexical) > size else np.arange(len(lexical))
            slots = np.union1d(near[0], matched[order])
            scores = self._scores(slots, query, by_words, scoring, now_s, span)
            kth = float(np.partition(scores, -top_k)[-top_k])
            more = np.setdiff1d(matched[lexical + unseen >= kth], slots, assume_unique=True)
            if unseen < kth and len(more) <= _MOST_SHARE * index.count:
                if len(more):
                    slots = np.concatenate((slots, more))
                    scores = np.concatenate((scores, self._scores(more, query, by_words, scoring, now_s, span)))
                return slots.astype(np.intp), scores
            size *= 4
        return None

    def _scores(
        self,
        slots: NDArray[Any],
        query: NDArray[np.float32],
        by_words: NDArray[np.float32],
        scoring: Scoring,
        now_s: float,
        span: tuple[float, float],
    ) -> NDArray[np.float32]:
        index = self._index
        low, width = span
        scores = np.float32(scoring.semantic / width) * (index.matrix[slots] @ query - np.float32(low))
        scores += by_words[slots]
        boosts = index.boosts(scoring, now_s, slots)
        if boosts is not None:
            scores += boosts
        total: NDArray[np.float32] = scores
        return total
