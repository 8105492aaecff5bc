"""The memory as a system: facts are kept by default, replaced on evidence, and public sets become cases."""

import json
from types import SimpleNamespace

import pytest
from memory_cases import HashingEmbedder

from harness.errors import BadDataError, RefusedError, WrongAnswerError
from harness.workloads.memory_store import SYSTEM
from harness.workloads.parts import SystemParts
from harness.workloads.system import Context

SIZE = SYSTEM.sizes["empty"]
OSLO, LIMA = "I live in Oslo.", "I live in Lima."


class Judge:
    """An NLI model that says contradiction of the pairs that it is given."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self.pairs, self.asked = set(pairs), []

    def has(self, label: str) -> bool:
        return label == "contradict"

    def probabilities(self, pairs, label):
        self.asked += pairs
        return [0.9 if pair in self.pairs else 0.1 for pair in pairs]


@pytest.fixture
def told(tmp_path):
    def tell(judge, *cases):
        parts = SystemParts(encoder=HashingEmbedder(64), nli=judge)
        state = SYSTEM.prepare(parts, SIZE, Context(tmp_path, tmp_path))
        return [SYSTEM.step(state, {"kind": "tell", **case}) for case in cases]

    return tell


def fact(key: str, text: str, **more):
    return {"id": key, "text": text, "subject": "I", "relation": "live in", "single": True, **more}


def test_a_contradicted_fact_of_one_value_is_replaced(told):
    answers = told(Judge((OSLO, LIMA)), fact("a", OSLO), fact("b", LIMA))
    assert [a["replaced"] for a in answers] == [[], ["a"]]


@pytest.mark.parametrize(
    ("judge", "second"),
    [
        (Judge((OSLO, LIMA)), fact("b", LIMA, subject="my brother")),
        (Judge((OSLO, LIMA)), fact("b", LIMA, relation="was born in")),
        (Judge((OSLO, LIMA)), fact("b", LIMA, single=False)),
        (Judge((OSLO, LIMA)), {"id": "b", "text": LIMA}),
        (Judge(), fact("b", LIMA)),
        (None, fact("b", LIMA)),
    ],
    ids=[
        "another subject",
        "another relation",
        "several at a time",
        "nothing said of it",
        "no contradiction",
        "no judge",
    ],
)
def test_everything_else_is_kept(told, judge, second):
    answers = told(judge, fact("a", OSLO), second)
    assert [a["replaced"] for a in answers] == [[], []]


def test_a_judge_without_that_label_is_not_asked(told):
    judge = Judge((OSLO, LIMA))
    judge.has = lambda _label: False
    assert [a["replaced"] for a in told(judge, fact("a", OSLO), fact("b", LIMA))] == [[], []]
    assert judge.asked == []


def test_figures_by_hand():
    cases = [
        {"kind": "tell", "id": "a", "text": "x"},
        {"kind": "tell", "id": "b", "text": "x", "replaces": "a"},
        {"kind": "tell", "id": "c", "text": "x"},
        {"kind": "tell", "id": "d", "text": "x", "replaces": "c"},
        {"kind": "ask", "text": "x", "expect": ["a", "b"]},
        {"kind": "ask", "text": "x", "expect": ["d"]},
        {"kind": "forget", "ids": ["a"]},
    ]
    answers = [
        {"replaced": []},
        {"replaced": ["a"]},  # as wanted
        {"replaced": ["b"]},  # lost
        {"replaced": []},  # missed
        {"found": ["c", "b"], "texts": []},
        {"found": ["c", "c", "c", "c", "c", "d"], "texts": []},
        {"forgotten": ["a", "b"]},
    ]
    found = SYSTEM.score(cases, answers)
    # at 1: 0 and 0; at 5: one of two, and 0; at 10: one of two, and all
    assert [found[f"recall_at_{k}"] for k in (1, 5, 10)] == [0.0, 0.25, 0.75]
    assert found["any_at_5"]["mid"] == 0.5
    assert found["facts_replaced"]["mid"] == 0.5
    assert (found["facts_kept"]["mid"], found["facts_lost"]) == (0.75, 1)
    assert found["forgotten_count"] == 2


def test_asked_and_forgotten(tmp_path):
    state = SYSTEM.prepare(SystemParts(encoder=HashingEmbedder(64)), SIZE, Context(tmp_path, tmp_path))
    for key, text in (("a", "The kayak is in the shed."), ("b", "The violin is in the attic.")):
        SYSTEM.step(state, {"kind": "tell", "id": key, "text": text})
    assert SYSTEM.step(state, {"kind": "ask", "text": "Where is the kayak?"})["found"] == ["a", "b"]
    assert SYSTEM.step(state, {"kind": "forget", "ids": ["a"]}) == {"forgotten": ["a"]}
    assert SYSTEM.step(state, {"kind": "ask", "text": "Where is the kayak?"})["found"] == ["b"]
    assert b"kayak" not in b"".join(p.read_bytes() for p in tmp_path.iterdir())
    with pytest.raises(RefusedError, match="found no text, expected what to ask"):
        SYSTEM.step(state, {"kind": "ask"})
    state.store_of("").forget = lambda **_: SimpleNamespace(memories=(1,), is_erased=False)
    with pytest.raises(WrongAnswerError, match="log"):
        SYSTEM.step(state, {"kind": "forget", "ids": ["b"]})


def test_conversations_are_files_of_their_own_however_many(tmp_path):
    state = SYSTEM.prepare(SystemParts(encoder=HashingEmbedder(64)), SIZE, Context(tmp_path, tmp_path))
    for at in range(70):
        SYSTEM.step(state, {"kind": "tell", "id": f"{at}", "text": "The kayak is red.", "conversation": f"c{at}"})
    asked = {"kind": "ask", "text": "Which colour has the kayak?"}
    assert SYSTEM.step(state, {**asked, "conversation": "c0"})["found"] == ["0"]
    assert SYSTEM.step(state, {**asked, "conversation": "c69"})["found"] == ["69"]
    assert SYSTEM.step(state, asked)["found"] == []
    assert len(state.stores) == 64


def test_locomo_and_longmemeval_become_cases(tmp_path):
    talk = {
        "session_1": [{"speaker": "Ada", "dia_id": "D1:1", "text": "I moved."}],
        "session_1_date_time": "1:56 pm on 8 May, 2023",
        "speaker_a": "Ada",
    }
    asked = [{"question": "Who moved?", "evidence": ["D1:1"]}, {"question": "No evidence?", "evidence": ["D9:9"]}]
    locomo = tmp_path / "locomo.json"
    locomo.write_text(json.dumps([{"sample_id": "c1", "conversation": talk, "qa": asked}]))
    told, question = SYSTEM.read_cases(locomo)
    # 8 May 2023 13:56 UTC
    assert (told["text"], told["time_s"], told["id"]) == ("Ada: I moved.", 1683554160.0, "D1:1")
    assert (question["expect"], question["time_s"]) == (["D1:1"], 1683554160.0 + 86_400)
    row = {
        "question_id": "q1",
        "question": "Which tea?",
        "haystack_session_ids": ["s1", "s2"],
        "haystack_sessions": [[{"role": "user", "content": "Hello"}], [{"role": "user", "content": "Green tea"}]],
        "answer_session_ids": ["s2"],
    }
    longmemeval = tmp_path / "longmemeval.json"
    longmemeval.write_text(json.dumps([row]))
    cases = SYSTEM.read_cases(longmemeval)
    assert [c.get("id") for c in cases] == ["s1", "s2", None]
    assert cases[2]["expect"] == ["s2"]
    locomo.write_text(json.dumps([{"qa": [], "sample_id": 1}]))
    with pytest.raises(BadDataError, match="a locomo file"):
        SYSTEM.read_cases(locomo)
    locomo.write_text("[]")
    with pytest.raises(RefusedError, match="neither LoCoMo nor LongMemEval"):
        SYSTEM.read_cases(locomo)
