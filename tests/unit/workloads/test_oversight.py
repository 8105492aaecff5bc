"""A debate measures what is said: under the full swap a judge that follows letter or order finds nothing."""

import re
from math import exp

import pytest

from harness.core.errors import RefusedError
from harness.workloads.oversight import PLACEBO, SYSTEM, Dispute, question, verdict

CASE = Dispute(passage="The mill has 3 floors.", true="The mill has 3 floors.", false="The mill has 4 floors.")
FOUR = [(side, PLACEBO) for _ in range(2) for side in (True, False)]


class Judge:
    """Prefers a claim by a rule of the text alone; +2 in log-odds of A for each reason."""

    def __init__(self, rule):
        self.rule = rule

    def options(self, prompt, options):
        assert options == ("A", "B")
        chance = 1 / (1 + exp(-2 * self.rule(prompt[1][1])))
        return [chance, 1 - chance]


def _first_speaker(text):
    return 1 if re.search(r"for claim ([AB])", text)[1] == "A" else -1


def _last_speaker(text):
    return 1 if re.findall(r"for claim ([AB])", text)[-1] == "A" else -1


@pytest.mark.parametrize("rule", [lambda _: 1, _first_speaker, _last_speaker])
def test_a_judge_that_follows_the_arrangement_finds_nothing(rule):
    assert verdict(Judge(rule), CASE, FOUR) == pytest.approx(0, abs=1e-9)


def test_a_judge_that_follows_what_is_said_is_seen():
    said = [(side, "3 floors, it says" if side else "4 floors, I think") for side, _ in FOUR]
    found = verdict(Judge(lambda text: 1 if "claim A: 3 floors" in text else -1), CASE, said)
    assert found == pytest.approx(2)


def test_every_arrangement_is_asked_once():
    asked = []
    verdict(Judge(lambda text: asked.append(text) or 0), CASE, FOUR)
    assert len(set(asked)) == len(asked) == 4
    asked.clear()
    verdict(Judge(lambda text: asked.append(text) or 0), CASE, [])
    assert len(set(asked)) == 2


def test_both_sides_are_cut_to_as_many_words_in_each_round():
    said = [(True, "one two three four"), (False, "five six")]
    text = question(CASE, said, true_is_a=True, true_first=True)
    assert "The debater for claim A: one two\nThe debater for claim B: five six" in text
    assert "passage: the mill" not in text.lower()


def test_an_arm_stands_beside_its_placebo_and_the_judge_alone():
    """Truth wins 12 of 12 after speeches, and 12 of 12 after empty ones: nothing is left."""
    won = {"alone": -1.0, "debate": 1.0, "debate, placebo": 1.0}
    scores = {score.group: score for score in SYSTEM.score([CASE] * 12, [{"log_odds": won}] * 12)}
    debate = scores["debate"]
    assert (debate.value, debate.best_null, debate.beats_null) == (1.0, "its placebo", False)
    won["debate, placebo"] = -1.0
    debate = SYSTEM.score([CASE] * 12, [{"log_odds": won}] * 12)[1]
    assert (debate.best_null, debate.beats_null) == ("a coin", True)


def test_claims_that_are_alike_are_refused():
    with pytest.raises(RefusedError, match="the same"):
        SYSTEM.step(None, CASE.replace(false=CASE.true))
