"""The memory as a system: cases from files, what its figures stand beside, and conversations in plain text."""

from pathlib import Path

import numpy as np
import pytest
from memory_cases import HashingEmbedder

from harness.core.errors import BadDataError, FetchError, MissingPackageError
from harness.core.paths import cache_dir
from harness.workloads.chain import Meter
from harness.workloads.memory import PAIR, SYSTEM, Ask, Forget, Tell, prompt_of
from harness.workloads.memory.note_store import Memory
from harness.workloads.system import Context
from harness.workloads.system_parts import SystemParts, open_parts

DATA = Path(__file__).parent / "data"
EMPTY = SYSTEM.sizes["empty"]


def answered(cases, parts, folder):
    state = SYSTEM.prepare(Context(parts, EMPTY, folder))
    answers = []
    for case in cases:
        answers.append({**SYSTEM.step(state, case), "nulls": SYSTEM.nulls(state, case)})
    return answers


def scores_of(cases, answers):
    return {score.name: score for score in SYSTEM.score(cases, answers)}


def test_a_case_is_told_asked_and_forgotten(tmp_path):
    cases = [Tell(id="a", text="The kayak is in the shed."), Ask(text="Where is the kayak?", expect=["a"])]
    cases += [Forget(ids=["a"]), Ask(text="Where is the kayak?")]
    parts = SystemParts(encoder=HashingEmbedder(32))
    _, found, gone, after = answered(cases, parts, tmp_path)
    assert (found["found"], gone["forgotten"], after["found"]) == (["a"], ["a"], [])


def test_recall_stands_beside_the_newest_and_what_is_lost_is_counted():
    cases = [Tell(id=str(at), text="x") for at in range(12)]
    cases += [Ask(text="q", expect=["0", "11"], outdated=["5"]), Ask(text="q", expect=["11"])]
    answers = [{"id": at} for at in range(12)] + [
        {"found": ["0", "5"], "newer_exists": ["5"], "nulls": {"BM25": ["11", "5", "0"], PAIR: ["5", "0"]}},
        {"found": ["11"], "newer_exists": [], "nulls": {"BM25": [], PAIR: ["2", "11"]}},
    ]
    scores = scores_of(cases, answers)
    # half of the first question's evidence and all of the second's; the newest ten have "11" alone
    assert scores["recall_at_10"].value == 0.75
    assert scores["recall_at_10"].nulls == {"newest first": 0.75, "BM25": 0.5, PAIR: 0.75}
    assert scores["recall_at_10"].beats_null is False
    assert (scores["newer_first_ratio"].value, scores["recall_at_20"].value) == (1.0, 0.75)
    # the pair puts what is outdated first; it calls "11" outdated, which holds
    assert scores["newer_first_ratio"].nulls == {"BM25": 1.0, PAIR: 0.0}
    assert (scores["valid_called_outdated_ratio"].value, scores["valid_called_outdated_ratio"].nulls) == (
        0,
        {PAIR: 1.0},
    )


def test_notes_stand_in_the_order_of_time_and_none_is_left_out():
    def hit(number, created_s, *newer):
        return Memory(number, f"note {number}", "", created_s, 1.0, newer)

    (_, (_, text)) = prompt_of("Which?", [hit(1, 30.0), hit(2, 10.0, 1), hit(3, 20.0)])
    assert text == "note 2\nnote 3\nnote 1\nQuestion: Which?"


def test_conversations_are_apart_and_come_back(tmp_path):
    cases = [Tell(id=name, text=f"{name} has the key.", conversation=name) for name in ("Ada", "Bo")]
    cases += [Ask(text="Who has the key?", conversation=name, expect=[name]) for name in ("Ada", "Bo")]
    answers = answered(cases, SystemParts(encoder=HashingEmbedder(32)), tmp_path)
    assert [answer["found"] for answer in answers[2:]] == [["Ada"], ["Bo"]]


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
        SYSTEM.read(path)


@pytest.fixture(scope="module")
def minilm():
    from harness.models.minilm import minilm_file

    pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
    try:
        return minilm_file(cache_dir() / "encoders")
    except (FetchError, MissingPackageError) as error:
        pytest.skip(str(error))


@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "conversation_count", "update_count", "ratio", "at_1"),
    [
        ("conversations", 40, 20, 0.9, 0.85),
        ("fresh_conversations", 20, 19, 14 / 16, 0.85),  # written when the store stood
        ("later_conversations", 40, 27, 24 / 27, 0.8),  # by the protocol, before the rule that is tested
    ],
)
def test_conversations_lose_nothing_and_put_the_newer_first(
    minilm, tmp_path, name, conversation_count, update_count, ratio, at_1
):
    cases = SYSTEM.read(DATA / f"{name}.jsonl")
    assert len({case.conversation for case in cases}) == conversation_count
    scores = scores_of(cases, answered(cases, open_parts({"encoder": str(minilm)}), tmp_path))
    assert scores["recall_at_20"].value == 1
    assert scores["newer_first_ratio"].count == update_count
    assert scores["newer_first_ratio"].value >= ratio
    assert scores["recall_at_1"].value >= at_1
    # not worse than the newer of the two nearest where something changed, and far better where nothing did
    assert scores["newer_first_ratio"].value >= max(scores["newer_first_ratio"].nulls.values())
    assert scores["recall_at_1"].value >= max(scores["recall_at_1"].nulls.values())
    called = scores["valid_called_outdated_ratio"]
    assert called.value <= called.nulls[PAIR] / 2
    if "forged_first_ratio" in scores:
        assert scores["forged_first_ratio"].value == 0 and scores["forged_first_ratio"].nulls[PAIR] > 0.5


@pytest.mark.engine
def test_the_encoder_makes_unit_vectors_that_are_near_where_meaning_is(minilm):
    encoder = open_parts({"encoder": str(minilm)}).encoder
    same, other, apart = encoder.embed(["A man is eating food.", "A man eats something.", "The moon is far away."])
    assert np.linalg.norm(same) == pytest.approx(1.0, abs=1e-5)
    assert same @ other > 0.7 > 0.2 > same @ apart
    assert isinstance(encoder.meter, Meter) and len(encoder.meter.taken) == 4  # and one to see their width
