"""What turns a text into a vector."""

import re
import zlib
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
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
                self._count(vectors[row], f"w:{word}", 1.0)
                padded = f"<{word}>"
                for at in range(len(padded) - 2):
                    self._count(vectors[row], f"t:{padded[at : at + 3]}", 0.3)
        norms = np.linalg.norm(vectors, axis=1)
        vectors[norms == 0, 0] = 1.0
        norms[norms == 0] = 1.0
        vectors /= norms[:, None]
        return vectors

    def _count(self, vector: NDArray[np.float32], feature: str, weight: float) -> None:
        code = zlib.crc32(feature.encode())
        vector[(code >> 1) % self.dim] += weight if code & 1 else -weight


class CachedEmbedder:
    """Keeps every vector that ``inner`` made in one file (``.npz``) by a hash of the text; ``save`` writes it."""

    def __init__(self, inner: Embedder, path: Path) -> None:
        self._inner, self._path = inner, path
        self.name, self.dim = inner.name, inner.dim
        self._known: dict[bytes, NDArray[np.float32]] = {}
        self._is_changed = False
        if path.exists():
            with np.load(path) as saved:
                if str(saved["name"]) == self.name:
                    self._known = dict(zip((bytes(k) for k in saved["keys"]), saved["vectors"], strict=True))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors [len(texts), dim] of unit length."""
        keys = [sha256(t.encode()).digest() for t in texts]
        missing = {k: t for k, t in zip(keys, texts, strict=True) if k not in self._known}
        if missing:
            self._known |= zip(missing, self._inner.embed(list(missing.values())), strict=True)
            self._is_changed = True
        return np.stack([self._known[k] for k in keys]) if keys else np.empty((0, self.dim), np.float32)

    def save(self) -> None:
        """Write the cache, whole or not at all."""
        if not self._is_changed:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial.npz")
        keys = np.array([list(k) for k in self._known], np.uint8)
        np.savez(partial, name=np.array(self.name), keys=keys, vectors=np.stack(list(self._known.values())))
        partial.replace(self._path)
        self._is_changed = False
