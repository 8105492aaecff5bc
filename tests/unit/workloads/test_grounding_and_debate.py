"""Grounded answers, debate, ProcessBench, thresholds: by hand; and both workloads on the engine with a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from memory_cases import open_store

from harness.errors import BadDataError
from harness.ports import WorkloadContext
from harness.stats.calibration.selective import answer_threshold
from harness.stats.intervals import share_interval
from harness.stats.logistic import Platt
from harness.workloads._language.templates import ChatTemplate
from harness.workloads.assistant.assistant import _of_whom
from harness.workloads.debate.debating import ARMS, Held, Speech, Verdict, cases, level, report
from harness.workloads.grounding_qa import answering, sets
from harness.workloads.grounding_qa.answering import (
    Answer,
    Citation,
    Grounded,
    Judged,
    claimed,
    contains,
    normalise,
    vote_in_waves,
)
from harness.workloads.grounding_qa.facts import Case as Claimed
from harness.workloads.grounding_qa.facts import Question, entailment_cases, facts, questions
from harness.workloads.grounding_qa.support import OVERRULED, Support, Supported, score
from harness.workloads.memory_store.reranking import reranked
from harness.workloads.memory_store.store import Hit, Memory
from harness.workloads.reasoning import process_bench


@pytest.mark.parametrize(
    ("text", "plain"), [("The  Old, Mill!", "old mill"), ("an apple a day", "apple day"), ("1911.", "1911"), ("", "")]
)
def test_normalise(text, plain):
    assert normalise(text) == plain


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (" Nina Berg [1].", "nina berg"),
        (" 1911 [2", "1911"),
        (" oak.", "oak"),
        (" oak, and so on", "oak"),
        (" 3.5 metres [1]", "3 5 metres"),
        ("[1]", ""),
    ],
)
def test_the_claim_ends_before_the_citation(said, answer):
    assert claimed(said) == answer


def test_contains_looks_for_whole_words():
    passage = "The Arlo fountain opened in 1911 and stands in Porto."
    assert contains(passage, "Porto")
    assert contains(passage, "arlo  fountain")
    assert not contains(passage, "Port")
    assert not contains(passage, "fountain Porto")
    assert not contains(passage, "")


def test_facts_tell_what_they_say_and_questions_know_their_source():
    known = facts(200, 3)
    assert known == facts(200, 3)
    assert len({f.subject for f in known}) == 200
    by_name = {f.identifier: f for f in known}
    for fact in known:
        assert len(fact.values) == 3
        assert all(contains(fact.passage, value) for _, value in fact.values)
    asked = questions(known, 400, 3)
    unknown = [q for q in asked if not q.answer]
    assert 60 < len(unknown) < 140  # a quarter of 400, 4.6 standard deviations either way
    for q in asked:
        assert q.subject in q.text
        assert q.subject in q.stem
        if q.answer:
            assert contains(by_name[q.source].passage, q.answer)
        else:
            assert q.source == ""


def judged(confidence: float, is_right: bool, *, supports: bool = True, answerable: bool = True) -> Judged:
    answer = Answer("x", confidence, Citation(True, supports, 1, 0, False), supports, 4, 100, 20, 0.5)
    return Judged(Question("q", "s", "x" if answerable else "", "d", "s"), answer, is_right)


def test_summary_by_hand():
    found = answering.summary(
        [judged(0.9, True), judged(0.2, False, supports=False), judged(0.1, False, answerable=False)]
    )
    assert found["accuracy"] == 0.5
    assert found["citation_recall"][0] == pytest.approx(2 / 3)
    assert found["citation_supports_when_right"] == 1.0
    assert found["citation_supports_when_wrong"] == 0.5
    assert (found["grounded_when_right"], found["grounded_when_wrong"]) == (1.0, 0.5)
    assert (found["drawn_tokens_per_answer"], found["samples_per_answer"]) == (20, 4)


@pytest.mark.parametrize(
    ("said", "exists", "supports", "counts"),
    [
        ("oak [1].", True, True, (1, 1)),  # alone it tells all
        ("oak [2].", True, False, (1, 0)),  # contains nothing of it
        ("oak [1][2].", True, True, (2, 1)),  # the second neither supports nor is needed
        ("oak [3].", False, False, (1, 0)),  # no such passage
        ("oak.", False, False, (0, 0)),
    ],
)
def test_citations_are_judged_as_by_alce(tmp_path, said, exists, supports, counts):
    with open_store(tmp_path / "a.db") as store:
        ids = [store.store(text) for text in ("The mill is made of oak.", "The mill opened in 1900.")]
        grounded = Grounded.__new__(Grounded)
        grounded._store, grounded._support = store, None
        question = Question("What is the mill made of?", "The mill is made of", "oak", "", "mill")
        shown = [store.get(i) for i in ids]
        chances = grounded._chances(question.claim("oak"), question, [m.content for m in shown])
        found = grounded._check(said, question, "oak", shown, chances)
    assert (found.exists, found.supports, (found.cited_count, found.precise_count)) == (exists, supports, counts)


def test_abstention_fits_on_one_half_and_judges_on_the_other():
    # risk 0.2, doubt 0.1: 11 rows without a mistake pass (0.8**11 = 0.086); the 12 sure ones are right, the rest wrong
    half = [judged(0.9, True)] * 12 + [judged(0.3, False)] * 12
    other = [judged(0.9, True)] * 6 + [judged(0.3, False, answerable=False)] * 4
    found = answering.abstention([*half, *([judged(0.2, False)] * 2), *other, *([judged(0.9, False)] * 16)])
    assert found["threshold"] == 0.9
    # the second half: 6 right and 16 wrong above the threshold, 4 below
    assert found["coverage"] == pytest.approx(22 / 26)
    assert found["accuracy"] == pytest.approx(6 / 22)
    assert found["refused_unanswerable"] == 1.0


def test_an_answer_that_no_passage_tells_is_never_given_where_support_is_needed():
    rows = [judged(0.9, True)] * 12 + [judged(0.95, False, supports=False, answerable=False)] * 12
    found = answering.abstention(rows * 2, needs_support=True)
    assert (found["coverage"], found["accuracy"], found["refused_unanswerable"]) == (0.5, 1.0, 1.0)
    assert answering.abstention(rows * 2)["threshold"] is None  # half of the surest rows are wrong


def test_thresholds_by_hand():
    right = [True] * 30 + [False] * 10
    confidence = np.linspace(1.0, 0.5, 40)
    # risk 0.1, doubt 0.1: from 22 rows on (0.9**22 = 0.098); 31 rows, one wrong: 0.9**31 + 31 x 0.1 x 0.9**30 = 0.17
    assert answer_threshold(confidence, right, 0.1, allow_few=True) == pytest.approx(confidence[29])
    assert answer_threshold(confidence, [False] * 40, 0.1, allow_few=True) == float("inf")
    assert answer_threshold(confidence[:10], [True] * 10, 0.1, allow_few=True) == float("inf")


def test_thresholds_keep_their_promise():
    rng = np.random.default_rng(11)
    broken = 0
    for _ in range(300):
        confidence = rng.random(300)
        right = rng.random(300) < confidence
        threshold = answer_threshold(confidence, right, 0.2)
        # above t the confidences are uniform on [t, 1]: the true risk is (1 - t) / 2
        broken += threshold < float("inf") and (1 - threshold) / 2 > 0.2
    assert broken / 300 < 0.1 + 3 * (0.1 * 0.9 / 300) ** 0.5


def test_a_vote_in_waves_stops_when_it_is_settled():
    asked = []

    def draw(numbers):
        asked.extend(numbers)
        return ["yes" if n != 1 else "no" for n in numbers]

    # after 3: 2 to 1, doubt(2, 1) = (C(4,3) + 1) / 16 = 0.31; after 4: 3 to 1, (C(5,4) + 1) / 32 = 0.19;
    # after 6: 5 to 1, 8 allowed: 2 left cannot turn it
    assert vote_in_waves(draw, (3, 1, 2, 2)) == ("yes", 6)
    assert asked == list(range(6))
    assert vote_in_waves(lambda n: ["a"] * len(n), (3, 1, 2, 2)) == ("a", 4)  # doubt(4, 0) = 1/32


def test_word_f1():
    assert sets.word_f1("the red house", "red house") == 1.0
    assert sets.word_f1("red car", "red house") == 0.5
    assert sets.word_f1("blue", "red") == 0.0


def test_share_interval_as_published():
    # Newcombe 1998, table I, method 3: 81 of 263 and 15 of 148
    assert share_interval(81, 263)[1:3] == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert share_interval(15, 148)[1:3] == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert share_interval(0, 0).low is None


def test_negated_passages_tell_nothing():
    question = Question("Who built the mill?", "The mill was built by", "Ida", "d", "mill")
    assert answering.tells("The mill was built by Ida.", "The mill was built by Ida", question)
    assert not answering.tells("The mill was not built by Ida.", "The mill was built by Ida", question)
    assert not answering.tells("The barn was built by Ida.", "The mill was built by Ida", question)


class Said:
    """A judge that answers by a table."""

    def __init__(self, margins):
        self.margins_of, self.asked = margins, []

    def margins(self, questions):
        self.asked += questions
        return np.array([next(m for part, m in self.margins_of.items() if part in q) for q in questions])


def test_support_asks_the_model_only_where_no_check_objects():
    support = Support.__new__(Support)
    support.fit, support.judge = Platt(2.0, 1.0), Said({"Claim: Anna grows": 1.5, "Claim: Anna sells": -2.0})
    passage = "Anna grows tomatoes in Cork."
    found = support.check_many(
        [
            ("Anna grows tomatoes.", passage),
            ("Anna does not grow tomatoes.", passage),
            ("Anna grows food. Anna sells it.", passage),
        ]
    )
    assert found[0].probability == pytest.approx(1 / (1 + np.exp(-4.0)))  # 2 x 1.5 + 1
    assert (found[1].probability, found[1].conflicts) == (OVERRULED, ("polarity",))
    assert found[2].margin == -2.0  # the least supported sentence
    assert len(support.judge.asked) == 3
    (told,) = support.check_many([("Anna sold 3 boxes in 1990.", "Anna sold three boxes on 3 May 1990.")])
    assert (told.probability, told.conflicts, told.margin) == (1 - OVERRULED, (), None)
    assert len(support.judge.asked) == 3


def test_a_fit_turns_log_odds_into_frequencies():
    support = Support.__new__(Support)
    rng = np.random.default_rng(3)
    margins = rng.normal(0, 2, 4000)
    rows = [
        Claimed("x", 0, "p", f"claim number {n} end", bool(rng.random() < 1 / (1 + np.exp(-(0.5 * m - 1)))))
        for n, m in enumerate(margins)
    ]
    support.judge = type("J", (), {"margins": lambda _s, q: margins})()
    support.check_many = lambda pairs: [Supported(1 / (1 + np.exp(-m)), (), m) for m in margins]
    support.fitted(rows)
    assert support.fit == pytest.approx((0.5, -1.0), abs=0.15)


def test_scores_by_hand():
    made = [Claimed("a", 1, "p q", "p", True), Claimed("a", 1, "p q", "z", True), Claimed("b", 1, "p q", "q", False)]
    found = score(made, [Supported(0.9, (), 2.0), Supported(0.1, (), -2.0), Supported(0.8, (), 1.0)])
    assert (found["all"]["precision"], found["all"]["recall"]) == (0.5, 0.5)
    assert found["a"]["precision"] == 1.0
    assert found["all"]["contains_precision"] == 0.5  # p and q stand in the passage, one of them is supported
    assert found["model where no check objects"]["right_count"] == 1


def test_the_surer_half_is_better_where_confidence_tells():
    right = [True] * 60 + [False] * 40
    assert sets.half_coverage(list(np.linspace(1, 0, 100)), right)["says"] == "better than answering all"
    rng = np.random.default_rng(0)
    assert sets.half_coverage(list(rng.random(100)), right)["says"] == "no difference shown"


def hit(score: float, text: str) -> Hit:
    return Hit(Memory(len(text), text, "default", text, 0.0, 0.5, 0, None, None), score)


def test_reranking_adds_both_scores_in_their_ranges():
    # store: 1, 1/2, 0; model: 0, 1, 1/2; together 1, 3/2, 1/2
    judge = Said({"Passage: aa": -4.0, "Passage: bb": 4.0, "Passage: cc": 0.0})
    found = reranked([hit(9.0, "aa"), hit(8.0, "bb"), hit(7.0, "cc")], "who?", judge)
    assert [(h.memory.content, h.score) for h in found] == [("bb", 1.5), ("aa", 1.0), ("cc", 0.5)]
    assert judge.asked[0] == "Question: who?\nPassage: aa"
    assert reranked([], "who?", judge) == []
    assert [h.memory.content for h in reranked([hit(1.0, "aa")], "who?", judge)] == ["aa"]
    alike = Said({"Passage": 1.0})
    assert [h.memory.content for h in reranked([hit(2.0, "aa"), hit(2.0, "bb")], "who?", alike)] == ["aa", "bb"]


def test_debate_cases_have_one_supported_claim_each_and_do_not_repeat():
    made = cases(120, 5)
    known = {(c.passage, c.claim): c.is_supported for h in (False, True) for c in entailment_cases(5, held_out=h)}
    assert all(known[c.passage, c.true] and not known[c.passage, c.false] for c in made)
    assert len({(c.true, c.false) for c in made}) == 120
    assert cases(5, 5) == cases(5, 5)


def speech(text: str, for_true: bool) -> Speech:
    return Speech("debater", for_true, text, 10, 4, 0.5)


def test_both_sides_are_cut_to_the_shorter_ones_words():
    said = [speech("one two three four", True), speech("a b", False), speech("x", True), speech("k l m", False)]
    assert [text for _, text in level(said)] == ["one two", "a b", "x", "k"]
    assert [text for _, text in level(said[:1])] == ["one two three four"]


def test_report_by_hand():
    case = cases(1, 1)[0]
    held = []
    for n in range(20):
        alone = Verdict(0.5 if n % 2 == 0 else -0.5, (n % 2 == 0, n % 2 == 0), 50, 0.1)
        debate = Verdict(0.9, (True, n % 2 == 0), 70, 0.2)
        verdicts = {arm: debate if arm == "debate" else alone for arm in ARMS}
        speeches = {arm: (speech("a b c", True), speech("d", False)) if arm == "debate" else () for arm in ARMS}
        held.append(Held(case, speeches, dict.fromkeys(ARMS, 0.3), verdicts))
    found = report(held)
    assert found["arms"]["alone"]["says"] == "no signal"  # 10 of 20
    assert found["arms"]["debate"]["says"] == "better than chance"  # 20 of 20
    assert (found["arms"]["debate"]["over_alone"]["better"], found["arms"]["debate"]["over_alone"]["worse"]) == (10, 0)
    assert found["arms"]["debate"]["over_alone"]["p"] == pytest.approx(2 / 2**10)
    assert found["arms"]["debate"]["swayed_by_order_ratio"] == 0.5
    assert (found["arms"]["debate"]["speech_tokens_read"], found["arms"]["debate"]["speech_tokens_drawn"]) == (20, 8)
    assert found["arms"]["debate"]["seconds"] == pytest.approx(0.5)
    assert found["longer_wins"]["right_count"] == 20  # the true side says more, and wins


NOTES = ("Eva's uncle is called Tom.", "Tom prefers soup.", "Ann is Ben Hill's aunt.", "Eva bought a red car.")


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("What does Eva's uncle like to eat?", "What does Tom like to eat?"),
        ("Where does Ben Hill's aunt live?", "Where does Ann live?"),
        # nobody that a note describes, or the name is there already
        ("Where does Eva's cousin live?", "Where does Eva's cousin live?"),
        ("Is Eva's uncle called Tom?", "Is Eva's uncle called Tom?"),
        ("Which car does Eva drive?", "Which car does Eva drive?"),
    ],
)
def test_a_question_in_two_steps_is_asked_of_the_person_it_is_about(question, asked):
    assert _of_whom(question, NOTES) == asked


def row(*steps: str, label: int) -> dict[str, object]:
    return {"steps": list(steps), "problem": "Tom has 2 apples.", "label": label}


RIGHT, WRONG = "So 2 + 2 = 4 apples.", "So 2 + 2 = 5 apples."


def test_an_interval_of_f1_is_that_of_its_two_shares():
    labels = [1] * 400 + [-1] * 400
    found = process_bench.f1_interval([1] * 200 + [-1] * 200 + [-1] * 400, labels)
    # located .5 with a standard error of .025, accepted 1: F1 = 2 p / (1 + p), whose slope there is 2 / 1.5**2
    assert found == pytest.approx([2 / 3 - 1.96 * 0.025 * 8 / 9, 2 / 3 + 1.96 * 0.025 * 8 / 9], abs=0.005)
    assert process_bench.f1_interval([1], [1]) is None


def test_process_bench_with_both_kinds():
    # located: 1 of 2; accepted: 1 of 2; harmonic mean 1/2
    rows = [row(RIGHT, WRONG, label=1), row(RIGHT, RIGHT, label=1), row(RIGHT, label=-1), row(WRONG, label=-1)]
    found = process_bench.score(rows)
    assert (found["wrong_count"], found["right_count"]) == (2, 2)
    assert (found["error_located"], found["correct_accepted"], found["f1"]) == (0.5, 0.5, 0.5)


def test_process_bench_without_right_traces_has_no_score():
    found = process_bench.score([row(RIGHT, WRONG, label=1), row(WRONG, RIGHT, label=1)])
    assert (found["error_located"], found["f1"], found["correct_accepted"]) == (0.5, None, None)


def test_published_figures_are_those_of_the_subset():
    # arXiv:2412.06559, table 3
    assert process_bench.beside("processbench_gsm8k_first200")["Qwen2.5-Math-7B-PRM800K"] == 0.682
    assert process_bench.beside("processbench_math_first500")["o1-mini as critic"] == 0.889
    assert process_bench.beside("processbench_olympiadbench") == {}
    assert process_bench.beside("processbench_omnimath") == {}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("llama_cpp", reason="the llama extra is not installed")
    from bench.tiny_gguf import synthesize_tiny

    return synthesize_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf", "Q8_0")


@pytest.mark.engine
@pytest.mark.parametrize("name", ["grounding_qa", "debate", "assistant"])
def test_workloads_check_themselves_on_the_engine(name, tiny, tmp_path):
    # Random weights: what is said means nothing, and everything that is checked must hold all the same.
    from harness import plugins

    workload = plugins.load("harness.workloads", name, "WORKLOAD")
    runtime = plugins.load("harness.runtimes", "llamacpp", "RUNTIME")
    context = WorkloadContext(tmp_path, tmp_path, 1, 1, tiny, runtime.open)
    state = workload.prepare(workload.sizes["small"], context)
    names = [o.name for o in workload.operations(state)]
    assert names == [c.operation for c in workload.costs(workload.sizes["small"])]
    for operation in workload.operations(state):
        operation.call()
    found = workload.check(state)
    assert found
    state.session.close()


def test_nothing_optional_is_imported_for_the_language_workloads():
    code = (
        "import sys, harness.workloads.grounding_qa.sets, harness.workloads.debate.debating;"
        "print([m for m in ('faiss', 'onnxruntime', 'tokenizers', 'pysat', 'torch', 'llama_cpp') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.engine
def test_public_sets_are_read_and_bad_files_named(tiny, tmp_path):
    from harness import plugins
    from harness.domain.scenario import Scenario

    talk = {
        "session_1": [{"speaker": "Ann", "dia_id": "D1:1", "text": "I moved to Oslo."}],
        "session_1_date_time": "1:00 pm on 8 May, 2023",
    }
    qa = [
        {"question": "Where did Ann move?", "answer": "Oslo", "evidence": ["D1:1"], "category": 4},
        {"question": "Why did Bo leave?", "adversarial_answer": "rain", "evidence": ["D1:1"], "category": 5},
    ]
    (tmp_path / "locomo.json").write_text(json.dumps([{"sample_id": "a", "conversation": talk, "qa": qa}]))
    (tmp_path / "truth.csv").write_text("Question,Best Answer,Incorrect Answers\nWhy?,Because,No; Never\n")
    (tmp_path / "bad.json").write_text('[{"qa": 3}]')
    (tmp_path / "bad.csv").write_text("A,B\n1,2\n")
    runtime = plugins.load("harness.runtimes", "llamacpp", "RUNTIME")
    context = WorkloadContext(tmp_path, tmp_path, 1, 1, tiny, runtime.open)
    scenario = Scenario(context_tokens=4096, thread_count=1)
    session = runtime.open(tiny, scenario, sequence_count=23, output_tokens=64)
    found = sets.locomo(session, context, tmp_path / "locomo.json")
    assert (found["question_count"], found["answerable_count"]) == (2, 1)
    template = ChatTemplate.of(tiny)
    ranked = sets.locomo(session, context, tmp_path / "locomo.json", template)
    assert (ranked["question_count"], ranked["of"]) == (2, 2)
    asked = sets.truthful(session, context, tmp_path / "truth.csv", template)
    assert (asked["question_count"], asked["chance"]) == (1, pytest.approx(1 / 3))
    for read in (
        lambda: sets.locomo(session, context, tmp_path / "bad.json"),
        lambda: sets.truthful(session, context, tmp_path / "bad.csv", template),
    ):
        with pytest.raises(BadDataError):
            read()
    session.close()
