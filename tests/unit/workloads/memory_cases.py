"""A memory store on a fake clock, filled with made-up memories."""

from pathlib import Path

from harness.workloads.memory_store.embedders import HashingEmbedder
from harness.workloads.memory_store.store import MemoryStore, NewMemory
from harness.workloads.memory_store.synthetic import facts

NOW_S = 1_750_000_000.0
DIM = 64


def open_store(path: Path, **options) -> MemoryStore:
    options.setdefault("clock", lambda: NOW_S)
    return MemoryStore(path, HashingEmbedder(DIM), **options)


def fill(store: MemoryStore, count: int, seed: int = 1):
    made = facts(count, DIM, seed, now_s=NOW_S)
    rows = zip(made.texts, made.vectors, made.created_s, made.importance, made.sources, strict=True)
    ids = store.store_many(NewMemory(t, "default", s, float(i), float(c), v) for t, v, c, i, s in rows)
    return made, ids


def bytes_of(folder: Path) -> bytes:
    return b"".join(p.read_bytes() for p in folder.iterdir()).lower()
