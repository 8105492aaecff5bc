"""From a question to the best slots: every candidate scored in full."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.workloads.memory_store.index import Filter, MemoryIndex
from harness.workloads.memory_store.lexicon import Lexicon
from harness.workloads.memory_store.scoring import DEFAULT, Scoring, top

_VALUE: Final = DEFAULT._replace(importance=0.3, recency=0.3, access=0.4)
"""What a memory is worth keeping for: the seed article's weights, with a true half-life."""


class Ranking:
    """Ranks the memories of an index."""

    def __init__(self, index: MemoryIndex, lexicon: Lexicon) -> None:
        self.index = index
        self._lexicon = lexicon

    def best(
        self,
        query: str,
        unit: NDArray[np.float32] | None,
        scoring: Scoring,
        only: Filter,
        top_k: int,
        now_s: float,
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """The best slots for a question and their scores, best first.

        ``unit`` is the question's unit vector [dim]; None where the scoring does not look at vectors.
        """
        index = self.index
        slots = index.slots(only)
        count = index.count if slots is None else len(slots)
        top_k = min(top_k, count)
        if top_k < 1:
            return np.empty(0, np.intp), np.empty(0, np.float32)
        lexical = self._by_words(query, scoring, slots)
        if unit is None:
            scores = np.zeros(count, np.float32)
        else:
            scores = index.cosines(unit, slots)
            if scoring.kind == "fused":
                low, high = float(scores.min()), float(scores.max())
                scale = scoring.semantic / max(high - low, 1e-9)
                scores *= np.float32(scale)
                scores -= np.float32(low * scale)
            else:
                scores *= np.float32(scoring.semantic)
        boosts = index.boosts(scoring, now_s, slots)
        if boosts is not None:
            scores += boosts
        if lexical is not None:
            scores += lexical
        best = top(scores, top_k)
        return (best if slots is None else slots[best]), scores[best]

    def _by_words(self, query: str, scoring: Scoring, slots: NDArray[np.intp] | None) -> NDArray[np.float32] | None:
        """BM25 of each candidate, weighted, the best one being 1; None when no candidate shares a word."""
        scores = self.index.lexical(self._lexicon.query(query), slots) if scoring.lexical else None
        if scores is not None and slots is not None:
            scores = scores[slots]
        highest = 0.0 if scores is None else float(scores.max())
        if scores is None or highest <= 0.0:
            return None
        scores *= np.float32(scoring.lexical / highest)
        return scores

    def least_valuable(self, count: int, now_s: float) -> list[int]:
        """Identifiers of the memories that are least worth keeping."""
        index = self.index
        n = index.count
        if count < 1 or not n:
            return []
        value = index.boosts(_VALUE, now_s, None)
        assert value is not None
        if count == 1:
            return [int(index.ids[int(value.argmin())])]
        lowest = np.argpartition(value, count - 1)[:count] if count < n else np.arange(n)
        return [int(i) for i in index.ids[lowest]]
