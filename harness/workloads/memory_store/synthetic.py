"""Facts made up by a seed: for continuous integration and for timing, where no real conversation may be shipped."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.workloads._language.texts import text_table


class Facts(NamedTuple):
    """Texts, their unit vectors [n, dim], when each was learnt, its importance, and its source."""

    texts: tuple[str, ...]
    vectors: NDArray[np.float32]
    created_s: NDArray[np.float64]
    importance: NDArray[np.float32]
    sources: tuple[str, ...]


def facts(count: int, dim: int, seed: int, *, now_s: float) -> Facts:
    """``count`` different facts of the last year; each carries a code of its own (``case q00000123z``)."""
    rng = np.random.default_rng(seed)
    lists = [words.split() for words in text_table("made-up")["memories"].values()]
    picks = zip(*[rng.integers(0, len(words), count) for words in lists], strict=True)
    drawn = ([words[at] for words, at in zip(lists, row, strict=True)] for row in picks)
    texts = tuple(f"{n} {v} the {t} in {p}, case {code(i)}" for i, (n, v, t, p) in enumerate(drawn))
    vectors = rng.standard_normal((count, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    created_s = now_s - rng.uniform(0.0, 365 * 86_400.0, count)
    importance = rng.uniform(0.0, 1.0, count).astype(np.float32)
    return Facts(texts, vectors, created_s, importance, tuple(f"talk-{i % 97}" for i in range(count)))


def code(number: int) -> str:
    """A word that no other fact holds, long enough not to come up in random bytes."""
    return f"q{number:08d}z"


def near(vector: NDArray[np.float32], cosine: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """A unit vector of that cosine with ``vector`` (itself of unit length)."""
    noise = rng.standard_normal(len(vector), dtype=np.float32)
    noise -= vector * float(noise @ vector)
    noise /= np.linalg.norm(noise)
    mixed: NDArray[np.float32] = (cosine * vector + np.sqrt(1 - cosine**2) * noise).astype(np.float32)
    return mixed
