"""The memory store against independent sums: SQLite's own BM25, double precision, the seed's class, raw bytes."""

import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cases import DIM, NOW_S, fill, open_store

from bench.seed_memory import LongTermMemory
from harness.errors import BadDataError, RefusedError
from harness.workloads.memory_store.embedders import CachedEmbedder, HashingEmbedder
from harness.workloads.memory_store.scoring import DEFAULT, LEXICAL, RECENT_FIRST, SEED
from harness.workloads.memory_store.store import MemoryStore, NewMemory
from harness.workloads.memory_store.synthetic import near


def test_bm25_is_that_of_sqlite(store, tmp_path):
    made, ids = fill(store, 400)
    question = "kayak violin harbour Oslo Nora q00000017z"
    own = sqlite3.connect(":memory:")
    own.execute("CREATE VIRTUAL TABLE t USING fts5(x, tokenize='porter unicode61')")
    own.executemany("INSERT INTO t(rowid, x) VALUES (?, ?)", zip(ids, made.texts, strict=True))
    query = " OR ".join(question.lower().split())
    expected = dict(own.execute("SELECT rowid, -bm25(t) FROM t WHERE t MATCH ?", (query,)))
    best = max(expected.values())
    hits = store.retrieve(question, top_k=len(expected), scoring=LEXICAL)
    assert len(hits) == len(expected)
    for hit in hits:
        assert hit.score == pytest.approx(expected[hit.memory.memory_id] / best, rel=1e-5)


def test_full_score_is_the_sum_in_double_precision(store):
    made, ids = fill(store, 500)
    store.retrieve("kayak", top_k=7, touch=True)
    rng = np.random.default_rng(3)
    vector = near(made.vectors[41], 0.7, rng)
    question = "who lost the telescope in Turin"
    cosine = made.vectors.astype(float) @ vector.astype(float)
    bm25 = np.zeros(len(ids))
    for hit in store.search("lost OR telescope OR turin", top_k=500):
        bm25[ids.index(hit.memory.memory_id)] = hit.score
    age_days = (NOW_S - made.created_s) / 86400
    used = np.array([store.get(i).access_count for i in ids])
    score = bm25 / bm25.max() + (cosine - cosine.min()) / (cosine.max() - cosine.min())
    score += 0.05 * 0.5 ** (age_days / 30) + 0.05 * made.importance + 0.02 * np.minimum(used / 10, 1)
    order = np.argsort(-score)[:20]
    hits = store.retrieve(question, vector=vector, top_k=20)
    assert [h.memory.memory_id for h in hits] == [ids[i] for i in order]
    assert [h.score for h in hits] == pytest.approx(score[order], abs=1e-5)


def test_same_five_as_the_seeds_class_under_its_formula(store):
    made, _ = fill(store, 600)
    vectors = dict(zip(made.texts, made.vectors, strict=True))
    rng = np.random.default_rng(5)
    asked = {f"question {i}": near(made.vectors[i * 7], 0.6, rng) for i in range(20)}
    stamps = iter(made.created_s)
    seed = LongTermMemory(lambda text: asked[text] if text in asked else vectors[text], clock=lambda: next(stamps))
    for text, importance, source in zip(made.texts, made.importance, made.sources, strict=True):
        seed.store(text, float(importance), source)
    seed._clock = lambda: NOW_S
    for text, vector in asked.items():  # the access counts that each retrieval raises are part of it
        expected = [m.content for m in seed.retrieve(text)]
        got = store.retrieve(text, vector=vector, scoring=SEED, touch=True)
        assert [h.memory.content for h in got] == expected


def test_seed_formula_decays_to_one_over_e_in_30_days_and_to_one_half_in_499_hours():
    assert SEED.half_life_s / 3600 == pytest.approx(499.07, abs=0.01)
    assert 0.5 ** (720 * 3600 / SEED.half_life_s) == pytest.approx(0.36788, abs=1e-5)


def test_recency_halves_every_half_life_even_long_after_the_store_was_opened(store):
    for age in (0, 30, 60, 90):
        store.store(f"note {age}", created_s=NOW_S - age * 86400)
    only_recency = DEFAULT._replace(kind="linear", lexical=0, semantic=0, recency=1, importance=0, access=0)
    for later_days in (0, 30, 3000):
        hits = store.retrieve("x", top_k=4, scoring=only_recency, now_s=NOW_S + later_days * 86400)
        expected = [0.5 ** ((age + later_days) / 30) for age in (0, 30, 60, 90)]
        assert [h.score for h in hits] == pytest.approx(expected, rel=1e-4)


def test_recent_first_among_equals_but_never_over_relevance(store):
    day = 86400
    same = HashingEmbedder(DIM).embed(["Nora lives somewhere"])[0]
    store.store("Nora lives in Oslo", created_s=NOW_S - 400 * day, vector=same)
    store.store("Nora lives in Lima", created_s=NOW_S - 2 * day, vector=same)
    store.store("Omar bought a kettle", created_s=NOW_S - 1, importance=1.0)
    for scoring in (DEFAULT, RECENT_FIRST):
        found = [h.memory.content for h in store.retrieve("Where does Nora live?", scoring=scoring)]
        assert found[0] == "Nora lives in Lima"
    assert [h.memory.content for h in store.retrieve("Where does Nora live?")][:2] == [
        "Nora lives in Lima",
        "Nora lives in Oslo",
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2000), st.integers(0, 30)), min_size=2, max_size=12))
def test_boosts_never_pass_their_limit(rows):
    from harness.workloads.memory_store.index import MemoryIndex

    index = MemoryIndex(4)
    unit = (np.ones(4, np.float32) / 2).tobytes()
    for at, (importance, age_days, used) in enumerate(rows):
        index.extend([(at, NOW_S - age_days * 86400, importance, used, "n", 1, unit)])
    boosts = index.boosts(DEFAULT, NOW_S, None)
    assert (boosts >= 0).all()
    assert (boosts <= DEFAULT.boost_limit + 1e-6).all()


def test_namespaces_are_kept_apart(store):
    store.store("Tova found the lantern", namespace="a")
    store.store("Tova found the lantern", namespace="b")
    hits = store.retrieve("lantern", namespace="b")
    assert [h.memory.namespace for h in hits] == ["b"]
    assert store.retrieve("lantern", namespace="c") == []


def test_eviction_takes_the_least_valuable(tmp_path):
    with open_store(tmp_path / "m.db", capacity=3) as store:
        old = store.store("old and unimportant", importance=0.1, created_s=NOW_S - 300 * 86400)
        kept = store.store("old and important", importance=1.0, created_s=NOW_S - 300 * 86400)
        store.store("new", importance=0.1)
        store.store("newer", importance=0.1)
        assert len(store) == 3
        with pytest.raises(RefusedError):
            store.get(old)
        assert store.get(kept).content == "old and important"


@pytest.mark.parametrize(
    "bad",
    [
        NewMemory("  "),
        NewMemory("x", importance=1.2),
        NewMemory("x", importance=float("nan")),
        NewMemory("x", created_s=float("inf")),
        NewMemory("x", vector=np.zeros(DIM, np.float32)),
        NewMemory("x", vector=np.full(DIM, np.nan, np.float32)),
        NewMemory("x", vector=np.ones(3, np.float32)),
    ],
)
def test_bad_memories_are_refused_whole(store, bad):
    with pytest.raises(RefusedError):
        store.store_many([NewMemory("good"), bad])
    assert len(store) == 0


def test_bad_files_and_conditions_are_refused(tmp_path, store):
    (tmp_path / "junk.db").write_bytes(b"not a database" * 100)
    with pytest.raises(BadDataError):
        open_store(tmp_path / "junk.db")
    with pytest.raises(RefusedError, match="no store"):
        open_store(tmp_path / "none.db", read_only=True)
    with pytest.raises(RefusedError, match="hashing-64"):
        MemoryStore(store._db.path, HashingEmbedder(32))
    with pytest.raises(RefusedError, match="what to forget"):
        store.forget()
    with pytest.raises(RefusedError, match="full-text"):
        store.search('"open')
    with pytest.raises(RefusedError, match="no memory 99"):
        store.get(99)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["put", "forget", "update"]), min_size=1, max_size=25), st.integers(0, 99))
def test_memory_and_disk_agree_after_any_changes(tmp_path_factory, actions, seed):
    folder = tmp_path_factory.mktemp("any")
    rng = np.random.default_rng(seed)
    with open_store(folder / "m.db", capacity=8) as store:
        for at, action in enumerate(actions):
            alive = [int(i) for i in store._index.ids[: len(store)]]
            if action == "put" or not alive:
                store.store(f"the {at} kayak {rng.integers(5)}")
            elif action == "forget":
                store.forget(ids=[int(rng.choice(alive))])
            else:
                store.update(int(rng.choice(alive)), f"changed {at} kayak")
        want = [(h.memory.content, round(h.score, 5)) for h in store.retrieve("kayak 3", top_k=9)]
    with open_store(folder / "m.db", capacity=8) as again:
        got = [(h.memory.content, round(h.score, 5)) for h in again.retrieve("kayak 3", top_k=9)]
    assert sorted(got) == sorted(want)


def test_cached_embedder_makes_each_vector_once():
    class Counting(HashingEmbedder):
        made = 0

        def embed(self, texts):
            Counting.made += len(texts)
            return super().embed(texts)

    cache = CachedEmbedder(Counting(16))
    first = cache.embed(["a b", "c", "a b"])
    assert np.array_equal(first, HashingEmbedder(16).embed(["a b", "c", "a b"]))
    assert np.array_equal(cache.embed(["c", "a b"]), first[[1, 0]])
    assert Counting.made == 2


def test_workload_finds_what_it_planted(tmp_path):
    from harness.ports import WorkloadContext
    from harness.workloads.memory_store import WORKLOAD

    size = {"entry_count": 300, "dim": 384}
    state = WORKLOAD.prepare(size, WorkloadContext(tmp_path, tmp_path, 4, 1))
    for operation in WORKLOAD.operations(state):
        for _ in range(5):
            operation.call()
    figures = WORKLOAD.check(state)
    assert figures["found_first_count"] == figures["question_count"] > 50
    assert figures["ghost_count"] == 0
    assert {c.operation for c in WORKLOAD.costs(size)} == {o.name for o in WORKLOAD.operations(state)}
