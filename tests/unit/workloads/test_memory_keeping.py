"""A memory that manages itself: told by hand, and on talks whose outcome is known."""

import pytest
from memory_cases import open_store

from harness.workloads.memory_store.embedders import HashingEmbedder
from harness.workloads.memory_store.keeping import Keeper, needs_memory, share_by_cluster
from harness.workloads.memory_store.lives import evaluate, talks


def test_a_newer_value_replaces_and_the_rest_stays(store):
    keeper = Keeper(store)
    told = [keeper.tell(t) for t in ("Nora lives in Oslo.", "Otto lives in Lima.", "Nora works as a baker.")]
    assert [t.action for t in told] == ["stored"] * 3
    newer = keeper.tell("Nora has moved to Riga.")
    assert (newer.action, newer.ids[0]) == ("updated", told[0].ids[0])
    assert [m.content for m in store.history(newer.ids[1])] == ["Nora lives in Oslo.", "Nora has moved to Riga."]
    texts = [m.content for m in keeper.recall("Where do Nora and Otto live?", hop_count=1)]
    assert "Nora lives in Oslo." not in texts
    assert {"Otto lives in Lima.", "Nora works as a baker."} <= set(texts)


@pytest.mark.parametrize("text", ["Hello, how are you?", "Good morning!", "That sounds great.", "Did Nora call?"])
def test_small_talk_and_questions_are_not_stored(store, text):
    assert Keeper(store).tell(text).action == "skipped"
    assert len(store) == 0


@pytest.mark.parametrize("text", ["My sister lives in Oslo.", "Nora is 41 years old.", "We have a dog called Rex."])
def test_facts_are_stored(store, text):
    assert Keeper(store).tell(text).action == "stored"


def test_what_is_asked_to_be_forgotten_goes_and_nothing_else(store):
    keeper = Keeper(store)
    for text in (
        "The phone number of Nora is 555 0101.",
        "The phone number of Otto is 555 0102.",
        "Nora lives in Oslo.",
    ):
        keeper.tell(text)
    assert keeper.tell("Please forget the phone number of Nora.").action == "forgotten"
    assert {h.memory.content for h in store.retrieve("Nora Otto phone number Oslo", top_k=5)} == {
        "The phone number of Otto is 555 0102.",
        "Nora lives in Oslo.",
    }
    assert keeper.tell("Forget the dentist of Karl.").action == "skipped"


def test_a_second_look_finds_what_the_first_one_names(tmp_path):
    with open_store(tmp_path / "hops.db") as store:
        keeper = Keeper(store)
        keeper.tell("Nora's sister is called Paula.")
        keeper.tell("Paula lives in Riga.")
        for n in range(12):
            keeper.tell(f"Otto{n} lives in Lima, in the town of his sister, number {n}.")
        question = "In which town does Nora's sister live?"
        assert "Paula lives in Riga." in [m.content for m in keeper.recall(question, top_k=3)]


def test_when_to_look():
    assert needs_memory("Where does Nora live?")
    assert needs_memory("What is my phone number?")
    assert not needs_memory("What is 17 times 3?")


def test_intervals_draw_whole_conversations():
    rows = [("a", True)] * 50 + [("b", False)] * 50
    found = share_by_cluster(rows)
    # two clusters: each draw holds a and a, a and b, or b and b: the interval is all of [0, 1]
    assert (found["share"], found["low"], found["high"], found["count"]) == (0.5, 0.0, 1.0, 100)


def test_talks_are_answered_better_when_the_memory_manages_itself(tmp_path):
    made = talks(2, 7)
    assert talks(2, 7) == made
    for talk in made:
        for asked in talk.questions:
            assert any(asked.value in text for text, _ in talk.turns)
    found = evaluate(HashingEmbedder(128), tmp_path, count=2, seed=7)
    assert found["managed: gone"]["share"] == 1.0
    assert found["managed: stale"]["share"] < found["everything stored: stale"]["share"]
    assert found["salience"]["recall"] > 0.9
