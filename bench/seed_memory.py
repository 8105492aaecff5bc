"""The seed article's memory, kept under its own name as a baseline; not for use.

As printed it cannot run: it calls ``math.exp`` without importing ``math``. With the import its other faults show: a
Python loop over all memories for each call; ``exp(-age / 720 h)`` called a 30-day half-life, though that is a time
to 1/e (its half-life is 20.8 days); retrieving raises the access count that the next score counts, so results depend
on what was asked before; forgetting by likeness only, with no list and no proof; nothing survives the process.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


@dataclass
class MemoryEntry:
    """One memory."""

    content: str
    embedding: Vector
    timestamp: float
    access_count: int
    importance: float
    source: str


class LongTermMemory:
    """The seed's class with ``math`` imported and the clock exchangeable; formulas and loops as printed."""

    def __init__(
        self,
        embedding_fn: Callable[[str], Vector],
        capacity: int = 100_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.embedding_fn = embedding_fn
        self.capacity = capacity
        self.memories: list[MemoryEntry] = []
        self._clock = clock

    def store(self, content: str, importance: float = 0.5, source: str = "conversation") -> None:
        """Store a memory; evict the least important one when over capacity."""
        self.memories.append(MemoryEntry(content, self.embedding_fn(content), self._clock(), 0, importance, source))
        if len(self.memories) > self.capacity:
            self._evict_least_important()

    def retrieve(self, query: str, top_k: int = 5) -> list[MemoryEntry]:
        """Best memories by 0.5 cosine + 0.2 exp(-age / 720 h) + 0.2 importance + 0.1 min(accesses / 10, 1)."""
        if not self.memories:
            return []
        wanted = self.embedding_fn(query)
        scored: list[tuple[float, MemoryEntry]] = []
        for memory in self.memories:
            recency = math.exp(-self._age_hours(memory) / 720)
            score = (
                0.5 * self._likeness(wanted, memory)
                + 0.2 * recency
                + 0.2 * memory.importance
                + 0.1 * min(memory.access_count / 10, 1.0)
            )
            scored.append((score, memory))
        scored.sort(key=lambda pair: pair[0], reverse=True)
        best = [memory for _, memory in scored[:top_k]]
        for memory in best:
            memory.access_count += 1
        return best

    def forget(self, query: str, threshold: float = 0.85) -> int:
        """Drop what is at least that like the query; returns how many."""
        wanted = self.embedding_fn(query)
        kept = [m for m in self.memories if self._likeness(wanted, m) < threshold]
        removed = len(self.memories) - len(kept)
        self.memories = kept
        return removed

    def _evict_least_important(self) -> None:
        scored: list[tuple[float, int]] = []
        for at, memory in enumerate(self.memories):
            recency = math.exp(-self._age_hours(memory) / 720)
            used = min(memory.access_count / 10, 1.0)
            scored.append((0.3 * memory.importance + 0.3 * recency + 0.4 * used, at))
        scored.sort(key=lambda pair: pair[0])
        self.memories.pop(scored[0][1])

    def _age_hours(self, memory: MemoryEntry) -> float:
        return (self._clock() - memory.timestamp) / 3600

    @staticmethod
    def _likeness(wanted: Vector, memory: MemoryEntry) -> float:
        norms: Any = np.linalg.norm(wanted) * np.linalg.norm(memory.embedding) + 1e-8
        return float(np.dot(wanted, memory.embedding) / norms)
