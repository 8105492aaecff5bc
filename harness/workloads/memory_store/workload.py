"""The memory store as a workload: retrieve, store and forget at a given number of memories."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from harness.domain.workload import Cost, new_page_bytes
from harness.errors import RefusedError, WrongAnswerError
from harness.ports import Operation, WorkloadContext
from harness.workloads._described import Described
from harness.workloads.memory_store import lives, locomo, minilm
from harness.workloads.memory_store.embedders import CachedEmbedder, HashingEmbedder
from harness.workloads.memory_store.store import MemoryStore, NewMemory
from harness.workloads.memory_store.synthetic import code, facts, near

_NOW_S: Final = 1_750_000_000.0
_QUESTIONS: Final = 64
_FACT_TERMS: Final = 8
"""Terms of a made-up fact: name, verb, the, thing, in, place, case, code."""
_TEXT_TERMS: Final = 14
"""Distinct terms of the text that is stored."""
_QUERY_TERMS: Final = 3
"""Words of a question that are no stop words."""
_ENTRIES_OF_ALL_LEAVES: Final = 6000
"""Facts from which on the eight terms lie on as many leaves of the full-text index (8 KiB, some 1.3 bytes an entry)."""
_PAGE_CACHE_BYTES: Final = 16 << 20


class State(NamedTuple):
    """An open store, the facts in it, questions made from them, and the oracle's answers."""

    store: Any
    facts: Any
    ids: list[int]
    questions: list[tuple[int, str, Any]]
    folder: Path


class MemoryWorkload(Described):
    """Long-term memory: hybrid retrieval over everything, durable writes, provable forgetting."""

    def costs(self, size: Mapping[str, int]) -> Sequence[Cost]:
        """Retrieve reads the matrix once (4 n d bytes, a kernel entered for each row) and passes over columns of n.

        Retrieve: the range of the cosines, their scaling, recency, boosts, the words' scores and the best of all, 56
        columns of float32 in all. Cutting a question into terms takes four statements on a table in memory; what each
        term is held by stays known until the next write. Store, at capacity, scores every memory for eviction, puts the
        terms of its text into the index, and takes those of the evicted text out. Forget ends in a checkpoint, which
        waits for the disk. Pages of 8 KiB, as the log's size tells: rows, vectors, two indexes and their new and freed
        neighbours are some ten, and each term's leaf of the full-text index one more while the index has leaves enough.
        Statements are those of the code, interpreted work as traced.
        """
        n, d = size["entry_count"], size["dim"]
        matrix, columns = 4 * n * d, 36 * n
        # Beside the arrays: entries of dictionaries for each memory, and the database's own page cache.
        resident = matrix + columns + 200 * n + min(_PAGE_CACHE_BYTES, (4 * d + 300) * n)
        fixed: dict[str, Any] = {"resident_bytes": resident, "parallel": False}
        column = 4.0 * n
        leaves = min(_FACT_TERMS, _FACT_TERMS * n / _ENTRIES_OF_ALL_LEAVES)
        return (
            Cost(
                operation="retrieve",
                moved_bytes=float(matrix),  # one multiplication for each value that is read: the reading decides
                working_set_bytes=float(matrix),
                pass_bytes=56 * column,
                pass_set_bytes=6 * column,
                fresh_bytes=new_page_bytes(4 * column, column),
                numpy_calls_count=50,
                array_steps_count=1.5 * n,  # exponentials, the best five
                python_ops_count=2180,
                sql_statements_count=10.5 + 1.5 * _QUERY_TERMS,
                **fixed,
            ),
            Cost(
                operation="store",
                pass_bytes=24 * column,
                pass_set_bytes=4 * column,
                fresh_bytes=new_page_bytes(2 * column, column),
                numpy_calls_count=45,
                array_steps_count=0.5 * n,  # exponentials
                python_ops_count=1640,
                # Statements and a transaction, rows, terms of the index, pages of the log.
                sql_statements_count=13.6 + 1.4 * _TEXT_TERMS + 1.4 * _FACT_TERMS + 1.3 * (10 + leaves),
                **fixed,
            ),
            Cost(
                operation="forget",
                numpy_calls_count=10,
                python_ops_count=1020,
                sql_statements_count=11.8 + 1.4 * _FACT_TERMS + 2.6 * (6 + leaves),
                flushes_count=6,
                **fixed,
            ),
        )

    def prepared_bytes(self, size: Mapping[str, int]) -> int:
        """A store, the facts that it was filled from (vectors and texts), and the vectors that filling it made.

        Those are let go, as blocks too small for the system to get them back.
        """
        n, d = size["entry_count"], size["dim"]
        return max(c.resident_bytes for c in self.costs(size)) + 2 * 4 * n * d + 500 * n

    def prepare(self, size: Mapping[str, int], context: WorkloadContext) -> State:
        """Fill a store to its capacity."""
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
        before = hashlib.sha256(store.path.read_bytes()).digest()
        found = alive = 0
        for fact, text, vector in state.questions:
            try:
                store.get(state.ids[fact])
            except RefusedError:  # evicted or forgotten meanwhile
                continue
            alive += 1
            found += store.retrieve(text, vector=vector, now_s=_NOW_S)[0].memory.memory_id == state.ids[fact]
        if hashlib.sha256(store.path.read_bytes()).digest() != before:
            raise WrongAnswerError("retrieving changed the store")
        if found < alive:
            raise WrongAnswerError(f"{alive - found} of {alive} planted facts were not found first")
        gone = []
        for fact, _, _ in state.questions[:20]:
            done = store.forget(ids=[state.ids[fact]])
            if done.memories and not done.is_erased:
                raise WrongAnswerError("a forgotten memory may still lie in the log")
            gone += [fact] * bool(done.memories)
        data = b"".join(p.read_bytes() for p in sorted(state.folder.glob("memory.db*")))
        ghosts = sum(code(fact).encode() in data or facts.vectors[fact].tobytes() in data for fact in gone)
        if ghosts:
            raise WrongAnswerError(f"{ghosts} forgotten memories are still in a file")
        counts = {"forgotten_count": len(gone), "ghost_count": ghosts}
        return {"question_count": alive, "found_first_count": found, **counts}

    def evaluate(self, context: WorkloadContext) -> Mapping[str, Any]:
        """The managed memory on talks of our own; evidence recall on LoCoMo, with MiniLM and hashed words, if there."""
        cached = CachedEmbedder(minilm.MiniLM(context.cache / "encoders"))
        found = {"lives": lives.evaluate(cached, context.folder, seed=context.seed)}
        for file in context.data_files("locomo*.json"):
            data = locomo.read(file)
            for embedder in (cached, HashingEmbedder()):
                path = context.folder / f"{file.stem}-{embedder.name}.db"
                found[f"{file.stem} {embedder.name}"] = locomo.evaluate(*data, embedder, path)
        return found
