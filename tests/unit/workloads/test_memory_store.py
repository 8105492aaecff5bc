"""The memory store against independent sums: SQLite's own BM25, double precision, raw bytes."""

import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cases import DIM, NOW_S, HashingEmbedder, fill, near, open_store

from harness.errors import BadDataError, RefusedError
from harness.workloads.memory_store.store import MemoryStore, NewMemory, recency


def test_bm25_is_that_of_sqlite(store, tmp_path):
    made, ids = fill(store, 400)
    question = "kayak violin harbour Oslo Nora q00000017z"
    own = sqlite3.connect(":memory:")
    own.execute("CREATE VIRTUAL TABLE t USING fts5(x, tokenize='porter unicode61')")
    own.executemany("INSERT INTO t(rowid, x) VALUES (?, ?)", zip(ids, made.texts, strict=True))
    query = " OR ".join(question.lower().split())
    expected = dict(own.execute("SELECT rowid, -bm25(t) FROM t WHERE t MATCH ?", (query,)))
    best = max(expected.values())
    hits = store.retrieve(question, top_k=len(expected), words_only=True)
    assert len(hits) == len(expected)
    for hit in hits:
        assert hit.score == pytest.approx(expected[hit.memory.memory_id] / best, rel=1e-5)


def test_full_score_is_the_sum_in_double_precision(store):
    made, ids = fill(store, 500)
    rng = np.random.default_rng(3)
    vector = near(made.vectors[41], 0.7, rng)
    question = "who lost the telescope in Turin"
    cosine = made.vectors.astype(float) @ vector.astype(float)
    bm25 = np.zeros(len(ids))
    for hit in store.retrieve(question, vector=vector, words_only=True, top_k=500):
        bm25[ids.index(hit.memory.memory_id)] = hit.score
    age_days = (NOW_S - made.created_s) / 86400
    score = bm25 / bm25.max() + (cosine - cosine.min()) / (cosine.max() - cosine.min())
    score += 0.05 * 0.5 ** (age_days / 30)
    order = np.argsort(-score)[:20]
    hits = store.retrieve(question, vector=vector, top_k=20)
    assert [h.memory.memory_id for h in hits] == [ids[i] for i in order]
    assert [h.score for h in hits] == pytest.approx(score[order], abs=1e-5)


def test_recency_halves_every_half_life_even_long_after_the_store_was_opened():
    ages = np.array([0, 30, 60, 90])
    for later_days in (0, 30, 3000):
        values = recency(NOW_S - ages * 86400.0, NOW_S + later_days * 86400)
        assert values.tolist() == pytest.approx([0.5 ** ((age + later_days) / 30) for age in ages], rel=1e-4)


def test_newest_first_among_equals_but_never_over_relevance(store):
    day = 86400
    same = HashingEmbedder(DIM).embed(["Nora lives somewhere"])[0]
    store.store("Nora lives in Oslo", created_s=NOW_S - 400 * day, vector=same)
    store.store("Nora lives in Lima", created_s=NOW_S - 2 * day, vector=same)
    store.store("Omar bought a kettle", created_s=NOW_S - 1)
    found = [h.memory.content for h in store.retrieve("Where does Nora live?")]
    assert found[:2] == ["Nora lives in Lima", "Nora lives in Oslo"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 2000), min_size=2, max_size=12))
def test_recency_never_passes_its_weight(ages_days):
    values = recency(NOW_S - 86400 * np.array(ages_days), NOW_S)
    assert (values >= 0).all()
    assert (values <= 1).all()


@pytest.mark.parametrize(
    "bad",
    [
        NewMemory("  "),
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
    with pytest.raises(RefusedError, match="hashing-64"):
        MemoryStore(store.path, HashingEmbedder(32))
    with pytest.raises(RefusedError, match="what to forget"):
        store.forget()
    with pytest.raises(RefusedError, match="full-text"):
        store.forget(words='"open')
    with pytest.raises(RefusedError, match="no memory 99"):
        store.get(99)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["put", "forget", "update"]), min_size=1, max_size=25), st.integers(0, 99))
def test_memory_and_disk_agree_after_any_changes(tmp_path_factory, actions, seed):
    folder = tmp_path_factory.mktemp("any")
    rng = np.random.default_rng(seed)
    with open_store(folder / "m.db") as store:
        for at, action in enumerate(actions):
            alive = [int(i) for i in store._rows["id"][store._rows["is_alive"]]]
            if action == "put" or not alive:
                store.store(f"the {at} kayak {rng.integers(5)}")
            elif action == "forget":
                store.forget(ids=[int(rng.choice(alive))])
            else:
                store.update(int(rng.choice(alive)), f"changed {at} kayak")
        want = [(h.memory.content, round(h.score, 5)) for h in store.retrieve("kayak 3", top_k=9)]
    with open_store(folder / "m.db") as again:
        got = [(h.memory.content, round(h.score, 5)) for h in again.retrieve("kayak 3", top_k=9)]
    assert sorted(got) == sorted(want)
