"""What turns a text into a vector."""

import re
import zlib
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

_WORD: Final = re.compile(r"\w+")


class Embedder(Protocol):
    """Makes vectors. ``name`` identifies model and version: vectors of two names are never compared."""

    name: str
    dim: int

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [len(texts), dim] of unit length."""
        ...


class HashingEmbedder:
    """Signed hashes of words and of their three-letter parts: deterministic, needs no weights, knows no meaning.

    For tests, for continuous integration, and as a lower bound beside a real model; texts are near each other only
    when they share words or parts of words.

    Source: Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning".
    """

    def __init__(self, dim: int = 384) -> None:
        self.dim = dim
        self.name = f"hashing-{dim}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [len(texts), dim] of unit length; a text without a word gets the first axis."""
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            for word in _WORD.findall(text.lower()):
                padded = f"<{word}>"
                parts = [(f"t:{padded[at : at + 3]}", 0.3) for at in range(len(padded) - 2)]
                for feature, weight in ((f"w:{word}", 1.0), *parts):
                    code = zlib.crc32(feature.encode())
                    vectors[row, (code >> 1) % self.dim] += weight if code & 1 else -weight
        norms = np.linalg.norm(vectors, axis=1)
        vectors[norms == 0, 0] = 1.0
        norms[norms == 0] = 1.0
        vectors /= norms[:, None]
        return vectors


class CachedEmbedder:
    """Keeps every vector that ``inner`` made, by its text."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self.name, self.dim = inner.name, inner.dim
        self._known: dict[str, NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [len(texts), dim] of unit length."""
        if missing := [t for t in dict.fromkeys(texts) if t not in self._known]:
            self._known |= zip(missing, self._inner.embed(missing), strict=True)
        return np.stack([self._known[t] for t in texts]) if texts else np.empty((0, self.dim), np.float32)
