"""The memory as a system: cases from files, what its figures stand beside, and 40 conversations in plain text."""

import json
from pathlib import Path

import numpy as np
import pytest
from memory_cases import HashingEmbedder

from harness.catalog.paths import cache_dir
from harness.errors import BadDataError, FetchError, MissingPackageError, RefusedError
from harness.workloads.child import SystemJob, declare
from harness.workloads.memory import SYSTEM, Ask, Forget, Tell, notes_of
from harness.workloads.memory.store import Hit, Memory
from harness.workloads.parts import Parts, open_parts
from harness.workloads.passes import Meter, Op
from harness.workloads.system import Context, read_cases

CONVERSATIONS = Path(__file__).parent / "data" / "conversations.jsonl"
EMPTY = SYSTEM.sizes["empty"]


class Hashing(HashingEmbedder):
    """With the tokens of a text: its words."""

    def tokenize(self, text):
        return text.split()


def answered(cases, parts, folder):
    state = SYSTEM.prepare(parts, EMPTY, Context(folder, folder))
    return [SYSTEM.step(state, case) for case in cases]


def scores_of(cases, answers):
    return {score.name: score for score in SYSTEM.score(cases, answers)}


def test_a_case_is_told_asked_and_forgotten(tmp_path):
    cases = [Tell(id="a", text="The kayak is in the shed."), Ask(text="Where is the kayak?", expect=["a"])]
    cases += [Forget(ids=["a"]), Ask(text="Where is the kayak?")]
    parts = Parts(encoder=Hashing(32))
    _, found, gone, after = answered(cases, parts, tmp_path)
    assert (found["found"], gone, after["found"]) == (["a"], {"forgotten": ["a"]}, [])
    with pytest.raises(RefusedError, match="neither ids nor a text"):
        answered([Forget()], parts, tmp_path)


def test_words_alone_need_no_encoder(tmp_path):
    size = SYSTEM.sizes["words"]
    assert list(SYSTEM.part_names(size)) == []
    state = SYSTEM.prepare(Parts(), size, Context(tmp_path, tmp_path))
    SYSTEM.step(state, Tell(id="a", text="The kayak is in the shed."))
    assert SYSTEM.step(state, Ask(text="kayak?"))["found"] == ["a"]


def test_the_chain_names_the_passes_with_the_users_own_lengths():
    cases = [Tell(id="a", text="one two three"), Ask(text="four five"), Forget(ids=["a"])]
    size = {"entry_count": 1000, "vectors": 1}
    chains = declare(SYSTEM, cases, SystemJob(name="memory", size=size), Parts(encoder=Hashing(32)))
    told = [[(one.part, one.op, one.tokens) for one in chain.passes] for chain in chains]
    assert told == [[("encoder", Op.EMBED, 3)], [("encoder", Op.EMBED, 2), ("store", Op.SEARCH, 0)], []]
    assert chains[1].passes[1].moved_bytes == 4 * 384 * 1000


def test_recall_stands_beside_the_newest_and_what_is_lost_is_counted():
    cases = [Tell(id=str(at), text="x") for at in range(12)]
    cases += [Ask(text="q", expect=["0", "11"], outdated=["5"]), Ask(text="q", expect=["11"])]
    answers = [{"id": at} for at in range(12)] + [{"found": ["0", "5"]}, {"found": ["11"]}]
    scores = scores_of(cases, answers)
    # half of the first question's evidence and all of the second's; the newest ten have "11" alone
    assert scores["recall_at_10"].value == 0.75
    assert scores["recall_at_10"].nulls == {"newest first": 0.75}
    assert scores["recall_at_10"].beats_null is False
    assert (scores["newer_first_ratio"].value, scores["not_in_first_20_count"].value) == (1.0, 1.0)


def test_notes_stand_in_the_order_of_time_without_what_is_outdated():
    def hit(number, created_s, *newer):
        return Hit(Memory(number, f"note {number}", "", created_s), 1.0, newer)

    assert notes_of([hit(1, 30.0), hit(2, 10.0, 1), hit(3, 20.0)]) == ["note 3", "note 1"]


def test_locomo_is_read_and_another_file_is_refused(tmp_path):
    talk = {
        "session_1_date_time": "1:56 pm on 8 May, 2023",
        "session_1": [{"speaker": "Ann", "dia_id": "D1:1", "text": "I ski."}],
    }
    path = tmp_path / "l.json"
    asked = {"question": "Who skis?", "evidence": ["D1:1; D9:9"]}
    path.write_text(json.dumps([{"sample_id": "c", "conversation": talk, "qa": [asked]}]))
    told, question = SYSTEM.read_cases(path)
    assert (told.id, told.text, told.time_s) == ("D1:1", "Ann: I ski.", 1683554160.0)
    assert (question.expect, question.time_s) == (["D1:1"], 1683554160.0 + 86400)
    path.write_text("[]")
    with pytest.raises(RefusedError, match="no LoCoMo"):
        SYSTEM.read_cases(path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"kind": "tell", "id": "a"}', "text"),
        ('{"kind": "tell", "id": "a", "text": 3}', "text"),
        ('{"kind": "ask", "text": "x", "expected": []}', "expected"),
        ('{"kind": "sing"}', "kind"),
    ],
)
def test_a_line_that_is_no_case_is_named(tmp_path, line, says):
    path = tmp_path / "mine.jsonl"
    path.write_text(f'{{"kind": "ask", "text": "x"}}\n{line}\n')
    with pytest.raises(BadDataError, match=rf"mine\.jsonl:2.*{says}"):
        read_cases(path, SYSTEM)


@pytest.fixture(scope="module")
def minilm():
    from harness.workloads.minilm import minilm_file

    pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
    try:
        return minilm_file(cache_dir() / "encoders")
    except (FetchError, MissingPackageError) as error:
        pytest.skip(str(error))


@pytest.mark.engine
def test_forty_conversations_lose_nothing_and_put_the_newer_first(minilm, tmp_path):
    cases = read_cases(CONVERSATIONS, SYSTEM)
    assert len({case.conversation for case in cases}) == 40
    scores = scores_of(cases, answered(cases, open_parts({"encoder": str(minilm)}), tmp_path))
    assert scores["not_in_first_20_count"].value == 0
    assert scores["newer_first_ratio"].count == 20
    assert scores["newer_first_ratio"].value >= 0.9
    assert scores["recall_at_1"].value >= 0.85 and scores["recall_at_1"].beats_null


@pytest.mark.engine
def test_the_encoder_makes_unit_vectors_that_are_near_where_meaning_is(minilm):
    encoder = open_parts({"encoder": str(minilm)}).encoder
    same, other, apart = encoder.embed(["A man is eating food.", "A man eats something.", "The moon is far away."])
    assert np.linalg.norm(same) == pytest.approx(1.0, abs=1e-5)
    assert same @ other > 0.7 > 0.2 > same @ apart
    assert isinstance(encoder.meter, Meter) and len(encoder.meter.taken) == 3
