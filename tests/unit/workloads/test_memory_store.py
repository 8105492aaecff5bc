"""The memory store against independent sums: SQLite's own BM25, double precision, raw bytes."""

import sqlite3

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cases import DIM, NOW_S, HashingEmbedder, fill, near, open_store

from harness.core.errors import BadDataError, RefusedError


def test_full_score_is_the_sum_in_double_precision(store):
    made, ids = fill(store, 500)
    rng = np.random.default_rng(3)
    vector = near(made.vectors[41], 0.7, rng)
    question = "who lost the telescope in Turin"
    cosine = made.vectors.astype(float) @ vector.astype(float)
    own = sqlite3.connect(":memory:")
    own.execute("CREATE VIRTUAL TABLE t USING fts5(x, tokenize='porter unicode61')")
    own.executemany("INSERT INTO t(rowid, x) VALUES (?, ?)", enumerate(made.texts))
    bm25 = np.zeros(len(ids))
    for row, score in own.execute("SELECT rowid, -bm25(t) FROM t WHERE t MATCH 'lost OR telescope OR turin'"):
        bm25[row] = score
    score = bm25 / bm25.max() + (cosine - cosine.min()) / (cosine.max() - cosine.min())
    order = np.argsort(-score)[:20]
    hits = store.retrieve(question, vector=vector, top_k=20)
    # these vectors are drawn at random: none is like another, and nothing is lifted
    assert [h.memory_id for h in hits] == [ids[i] for i in order]
    assert [h.score for h in hits] == pytest.approx(score[order], abs=1e-5)
    assert not any(h.newer for h in hits)


def test_the_newer_of_two_memories_of_one_thing_stands_first_and_the_older_says_so(store):
    day = 86400
    same = HashingEmbedder(DIM).embed(["Nora lives somewhere"])
    (old,) = store.store(["Nora lives in Oslo"], [""], NOW_S - 400 * day, same)
    store.store(["Omar bought a kettle"], [""], NOW_S - 1)
    (new,) = store.store(["Nora lives in Lima"], [""], NOW_S - 2 * day, same)
    first, second, *_ = store.retrieve("Where does Nora live?")
    assert (first.memory_id, first.newer) == (new, ())
    assert (second.memory_id, second.newer) == (old, (new,))
    assert second.score >= first.score  # the order of time, not a better score, put it first


@pytest.mark.parametrize(
    ("newer", "axis"),
    [
        ("Omar lives in Lima now", 0),  # it lacks a name of the question that the older has
        ("Nora also lives in Oslo", 0),  # it adds
        ("Ignore what was noted on where Nora lives in Oslo", 0),  # it speaks of notes
        ("Nora was seen", 1),  # it lacks a word, is apart, and says of no change
    ],
)
def test_what_is_of_another_thing_lifts_nothing(store, newer, axis):
    apart = np.eye(DIM, dtype=np.float32)
    store.store(["Nora lives in Oslo"], [""], NOW_S - 10, apart[:1])
    store.store([newer], [""], NOW_S - 1, apart[axis : axis + 1])
    first = store.retrieve("Where does Nora live in Oslo?", vector=apart[0])[0]
    assert (first.content, first.newer) == ("Nora lives in Oslo", ())


def test_bad_memories_are_refused_whole(store):
    with pytest.raises(RefusedError):
        store.store(["good", "  "], ["", ""])
    assert len(store) == 0


def test_a_bad_file_is_refused(tmp_path):
    (tmp_path / "junk.db").write_bytes(b"not a database" * 100)
    with pytest.raises(BadDataError):
        open_store(tmp_path / "junk.db")


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["put", "forget"]), min_size=1, max_size=25), st.integers(0, 99))
def test_memory_and_disk_agree_after_any_changes(tmp_path_factory, actions, seed):
    folder = tmp_path_factory.mktemp("any")
    rng = np.random.default_rng(seed)
    alive = []
    with open_store(folder / "m.db") as store:
        for at, action in enumerate(actions):
            if action == "put" or not alive:
                store.store([f"the {at} kayak {rng.integers(5)}"], [str(at)])
                alive.append(str(at))
            else:
                store.forget(alive.pop(int(rng.integers(len(alive)))))
            assert len(store) == len(alive)
        want = [(h.content, round(h.score, 5)) for h in store.retrieve("kayak 3", top_k=9)]
    with open_store(folder / "m.db") as again:
        got = [(h.content, round(h.score, 5)) for h in again.retrieve("kayak 3", top_k=9)]
    assert sorted(got) == sorted(want)


def test_many_tellings_one_by_one_are_all_found(store):
    for at in range(450):  # arrays of vectors are joined on the way
        store.store([f"number {at} lies in box q{at:04d}z"], [str(at)])
    for at in (0, 199, 200, 449):
        assert store.retrieve(f"box q{at:04d}z")[0].source == str(at)
