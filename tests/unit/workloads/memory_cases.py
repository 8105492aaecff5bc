"""A memory store on a fake clock, filled with made-up memories, and an embedder that needs no weights."""

import re
import zlib
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness.workloads.chain import Meter
from harness.workloads.memory.note_store import MemoryStore

NOW_S = 1_750_000_000.0
DIM = 64


class HashingEmbedder:
    """Signed hashes of words and of their three-letter parts: deterministic, needs no weights, knows no meaning.

    For tests, for continuous integration, and as a lower bound beside a real model; texts are near each other only
    when they share words or parts of words.

    Source: Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning".
    """

    def __init__(self, dim: int = 384) -> None:
        self.dim = dim
        self.name = f"hashing-{dim}"

    def embed(self, texts):
        """Vectors [len(texts), dim] of unit length; a text without a word gets the first axis."""
        vectors = np.zeros((len(texts), self.dim), np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
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


class Facts(NamedTuple):
    """Texts and their unit vectors [n, dim]."""

    texts: tuple[str, ...]
    vectors: np.ndarray


def code(number: int) -> str:
    """A word that no other fact holds, long enough not to come up in random bytes."""
    return f"q{number:08d}z"


def facts(count: int, dim: int, seed: int) -> Facts:
    """Different facts; each carries a code of its own (``case q00000123z``)."""
    rng = np.random.default_rng(seed)
    lists = [
        ["Nora", "Omar", "Tova", "Iris", "Hugo", "Lena"],
        ["lost", "found", "sold", "bought", "hid", "painted"],
        ["kayak", "violin", "telescope", "kettle", "lantern"],
        ["Oslo", "Turin", "Lima", "Perth", "harbour", "garden"],
    ]
    picks = zip(*[rng.integers(0, len(words), count) for words in lists], strict=True)
    drawn = ([words[at] for words, at in zip(lists, row, strict=True)] for row in picks)
    texts = tuple(f"{n} {v} the {t} in {p}, case {code(i)}" for i, (n, v, t, p) in enumerate(drawn))
    vectors = rng.standard_normal((count, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Facts(texts, vectors)


def near(vector, cosine: float, rng):
    """A unit vector of that cosine with ``vector`` (itself of unit length)."""
    noise = rng.standard_normal(len(vector), dtype=np.float32)
    noise -= vector * float(noise @ vector)
    noise /= np.linalg.norm(noise)
    return (cosine * vector + np.sqrt(1 - cosine**2) * noise).astype(np.float32)


def open_store(path: Path) -> closing[MemoryStore]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return closing(MemoryStore(path, HashingEmbedder(DIM), Meter()))


def fill(store: MemoryStore, count: int, seed: int = 1):
    made = facts(count, DIM, seed)
    return made, store.store(made.texts, [code(at) for at in range(count)], NOW_S, made.vectors)


def bytes_of(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in folder.iterdir()).lower()
