"""How a memory's score comes about: relevance first, boosts that are bounded."""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

BM25_K1: Final = 1.2
BM25_B: Final = 0.75
ACCESS_FULL_COUNT: Final = 10
"""Accesses after which the access boost grows no more."""

DAY_S: Final = 86_400.0


class Scoring(NamedTuple):
    """Weights of one way to score, fixed before any question is asked.

    ``fused`` (the default): score = lexical * minmax(BM25) + semantic * minmax(cosine) + boosts, where minmax maps the
    candidates' range onto [0, 1] (a text that shares no word has BM25 0). The boosts add at most ``boost_limit``, so
    no age and no popularity can lift a text past one that is that much more relevant.

    ``linear``: score = semantic * cosine + recency * 2**(-age / half_life) + importance * i + access * min(n / 10, 1),
    raw and unbounded by relevance: kept to reproduce published formulas.

    Attributes:
        recency: Weight of recency, in [0, 1]: 1 now, 1/2 after one half-life.
        importance: Weight of the importance given at storing, in [0, 1].
        access: Weight of min(access_count / 10, 1).
        half_life_s: Age at which recency is one half.
    """

    kind: str = "fused"
    lexical: float = 1.0
    semantic: float = 1.0
    recency: float = 0.05
    importance: float = 0.05
    access: float = 0.02
    half_life_s: float = 30 * DAY_S

    @property
    def boost_limit(self) -> float:
        """The most that recency, importance and access can add together."""
        return self.recency + self.importance + self.access


DEFAULT: Final = Scoring()

LEXICAL: Final = Scoring(semantic=0.0, recency=0.0, importance=0.0, access=0.0)
"""BM25 alone."""

SEMANTIC: Final = Scoring(lexical=0.0, recency=0.0, importance=0.0, access=0.0)
"""Cosine alone."""

RECENT_FIRST: Final = DEFAULT._replace(recency=0.5)
"""For questions about the present: of texts about equally relevant, the newest first."""

SEED: Final = Scoring("linear", 0.0, 0.5, 0.2, 0.2, 0.1, 720 * 3600 * math.log(2))
"""The seed article's formula. Its exp(-age / 720 h) has a half-life of 720 h * ln 2 = 499 h = 20.8 days, not 30."""


def bm25_part(
    repeats: NDArray[np.intp], lengths: NDArray[np.float32], *, document_count: int, mean_length: float
) -> NDArray[np.float32]:
    """What one term adds to the BM25 of each text that holds it: idf * f (k1 + 1) / (f + k1 (1 - b + b l / mean)).

    The inverse document frequency is FTS5's: ln((N - n + 0.5) / (n + 0.5)), at least 1e-6. The term occurs ``repeats``
    (f) times in each text [n] of ``lengths`` (l) terms [n]; all N texts count, those without the term included.

    Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond"; constants of FTS5
    (SQLite, ext/fts5/fts5_aux.c, fts5Bm25GetData).
    """
    idf = max(math.log((document_count - len(repeats) + 0.5) / (len(repeats) + 0.5)), 1e-6)
    norm = BM25_K1 * (1 - BM25_B + BM25_B * lengths / mean_length)
    return np.asarray(idf * (BM25_K1 + 1) * repeats / (repeats + norm), np.float32)


def top(scores: NDArray[np.float32], top_k: int) -> NDArray[np.intp]:
    """Positions of the best ``top_k`` scores, best first, equal ones by position."""
    near = np.flatnonzero(scores >= np.partition(scores, -top_k)[-top_k])
    order: NDArray[np.intp] = near[np.argsort(-scores[near], kind="stable")][:top_k]
    return order
