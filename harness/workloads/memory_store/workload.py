"""The memory store as a workload: retrieve, store and forget at a given number of memories."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from harness.domain.workload import Cost
from harness.errors import RefusedError, WrongAnswerError
from harness.ports import Operation, WorkloadContext

_NOW_S: Final = 1_750_000_000.0
_QUESTIONS: Final = 64
_TERMS: Final = 9
_LEAF_ENTRIES: Final = 60
_PAGE_CACHE_BYTES: Final = 16 << 20


class State(NamedTuple):
    """An open store, the facts in it, questions made from them, and the oracle's answers."""

    store: Any
    facts: Any
    ids: list[int]
    questions: list[tuple[int, str, Any]]
    folder: Path


class MemoryWorkload:
    """Long-term memory: hybrid retrieval over everything, durable writes, provable forgetting."""

    name = "memory_store"
    title = "Long-term memory: BM25 + cosine retrieval, durable store, forgetting that erases"
    extra = ""
    needs_model = False
    sizes: Mapping[str, Mapping[str, int]] = {
        "small": {"entry_count": 2_000, "dim": 384},
        "default": {"entry_count": 10_000, "dim": 384},
        "large": {"entry_count": 100_000, "dim": 384},
    }

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Retrieve reads the matrix once (4 n d bytes, one thread) and passes over a dozen columns of n.

        At capacity, a store also scores every memory for eviction (five passes). What a write costs is the full-text
        index: a text of some nine distinct terms is put in, and one is taken out, for which a leaf page of some 60
        entries is gone through for each term. Forgetting ends in a checkpoint, which waits for the disk twice.
        Statements: five to cut a text into terms, one for each hit, a dozen for a write. Interpreted work as traced.
        """
        n, d = size["entry_count"], size["dim"]
        matrix, columns, postings = 4 * n * d, 52 * n, 10 * _TERMS * n
        # Beside the arrays: an entry of a dictionary for each memory, and the database's own page cache.
        resident = matrix + columns + postings + 200 * n + _PAGE_CACHE_BYTES
        fixed: dict[str, Any] = {"resident_bytes": resident, "parallel": False}
        column = 4.0 * n if 4 * n >= 1 << 17 else 0.0
        entries = _TERMS * _LEAF_ENTRIES
        return (
            Cost(
                operation="retrieve",
                flops_count=0.0,  # one multiplication for each value that is read: the reading decides
                moved_bytes=float(matrix),
                working_set_bytes=float(matrix),
                elements_count=14.0 * n,
                fresh_bytes=5 * column,
                numpy_calls_count=70,
                python_ops_count=2200,
                native_calls_count=105 + n,  # numpy enters its kernel once for each row
                sql_statements_count=11,
                sql_rows_count=9,
                **fixed,
            ),
            Cost(
                operation="store",
                flops_count=0.0,
                moved_bytes=20.0 * n,
                working_set_bytes=20.0 * n,
                elements_count=6.0 * n,
                fresh_bytes=2 * column,
                numpy_calls_count=50,
                python_ops_count=2700,
                native_calls_count=125,
                sql_statements_count=17,
                sql_rows_count=entries + 40,
                commits_count=1,
                **fixed,
            ),
            Cost(
                operation="forget",
                flops_count=0.0,
                moved_bytes=0.0,
                numpy_calls_count=8,
                python_ops_count=450,
                native_calls_count=30,
                sql_statements_count=13,
                sql_rows_count=entries,
                commits_count=1,
                flushes_count=2,
                **fixed,
            ),
        )

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> State:
        """Fill a store to its capacity."""
        from harness.workloads.memory_store.embedders import HashingEmbedder
        from harness.workloads.memory_store.store import MemoryStore, NewMemory
        from harness.workloads.memory_store.synthetic import code, facts, near

        n, d = size["entry_count"], size["dim"]
        made = facts(n, d, context.seed, now_s=_NOW_S)
        clock = iter(range(1, 1 << 40))
        path = context.folder / "memory.db"
        store = MemoryStore(path, HashingEmbedder(d), capacity=n, clock=lambda: _NOW_S + next(clock))
        rows = zip(made.texts, made.vectors, made.created_s, made.importance, made.sources, strict=True)
        ids = store.store_many(NewMemory(t, "default", s, float(i), float(c), v) for t, v, c, i, s in rows)
        store.erase()
        rng = np.random.default_rng(context.seed + 1)
        chosen = rng.choice(n, min(_QUESTIONS, n), replace=False)
        questions = [
            (int(i), f"What happened in case {code(int(i))}?", near(made.vectors[i], 0.8, rng)) for i in chosen
        ]
        return State(store, made, ids, questions, context.folder)

    def operations(self, state: State) -> Sequence[Operation]:
        """Retrieve five of all; store one at capacity (which evicts one); forget one for good."""
        store, facts = state.store, state.facts
        turn = iter(range(1 << 40))

        def retrieve() -> object:
            _, text, vector = state.questions[next(turn) % len(state.questions)]
            return store.retrieve(text, vector=vector, now_s=_NOW_S)

        def put() -> object:
            at = next(turn)
            text = f"{at} days later they met again by the river and spoke of the garden and of the kayak"
            return store.store(text, vector=facts.vectors[-1 - at % len(facts.vectors)][::-1], importance=1.0)

        def forget() -> object:
            return store.forget(ids=[state.ids[-1 - next(turn) % (len(state.ids) // 2)]])

        return Operation("retrieve", retrieve), Operation("store", put), Operation("forget", forget)

    def check(self, state: State) -> Mapping[str, Any]:
        """Planted facts are found, order equals an independent sum, reading changes nothing, forgotten is gone."""
        store, facts = state.store, state.facts
        before = _digest(store.path)
        found = 0
        alive = 0
        for fact, text, vector in state.questions:
            try:
                store.get(state.ids[fact])
            except RefusedError:  # evicted or forgotten meanwhile
                continue
            alive += 1
            hits = store.retrieve(text, vector=vector, now_s=_NOW_S)
            found += hits[0].memory.memory_id == state.ids[fact]
        if _digest(store.path) != before:
            raise WrongAnswerError("retrieving changed the store")
        if found < alive:
            raise WrongAnswerError(f"{alive - found} of {alive} planted facts were not found first")
        ghosts = _forget_some(store, facts, state)
        return {"question_count": alive, "found_first_count": found, **ghosts}

    def evaluate(self, context: WorkloadContext) -> Mapping[str, Any]:
        """Evidence recall on LoCoMo, with MiniLM vectors (kept in the cache folder) and with hashed ones.

        Raises:
            RefusedError: The data folder holds no ``locomo*.json``.
        """
        from harness.workloads.memory_store import locomo, minilm
        from harness.workloads.memory_store.embedders import CachedEmbedder, HashingEmbedder

        files = sorted(context.data.glob("locomo*.json")) if context.data else []
        if not files:
            raise RefusedError("name the folder that holds locomo*.json with --data or EDGE_HARNESS_DATA")
        encoder = minilm.MiniLM(minilm.fetch(context.cache / "encoders"))
        cached = CachedEmbedder(encoder, context.cache / "encoders" / "vectors.npz")
        found = {}
        for file in files:
            data = locomo.read(file)
            for embedder in (cached, HashingEmbedder()):
                path = context.folder / f"{file.stem}-{embedder.name}.db"
                found[f"{file.stem} {embedder.name}"] = locomo.evaluate(data, embedder, path)
        cached.save()
        return found


def _forget_some(store: Any, facts: Any, state: State) -> dict[str, int]:
    from harness.workloads.memory_store.synthetic import code

    gone = []
    for fact, _, _ in state.questions[:20]:
        done = store.forget(ids=[state.ids[fact]])
        if done.memories:
            if not done.is_erased:
                raise WrongAnswerError("a forgotten memory may still lie in the log")
            gone.append(fact)
    data = b"".join(p.read_bytes() for p in sorted(state.folder.glob("memory.db*")))
    ghosts = sum(code(fact).encode() in data or facts.vectors[fact].tobytes() in data for fact in gone)
    if ghosts:
        raise WrongAnswerError(f"{ghosts} forgotten memories are still in a file")
    return {"forgotten_count": len(gone), "ghost_count": ghosts}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
