"""Answers with confidence: planted calibration, and figures beside their nulls."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from harness.core.errors import RefusedError
from harness.workloads.escalate import SYSTEM, Claim, PassageQuestion, calibrated
from harness.workloads.scores import auc_of, f1_of
from harness.workloads.system import Context
from harness.workloads.system_parts import SystemParts


def test_answers_are_scored_beside_always_unknown_and_their_own_unknown():
    cases = [PassageQuestion(passage="p", question="q", answer="7"), PassageQuestion(passage="p", question="q")] * 20
    told = {"text": "7 shelves", "confidence": 0.9, "is_unknown": False}
    guessed = {"text": "7", "confidence": 0.3, "is_unknown": False}
    scores = {(s.group, s.name): s for s in SYSTEM.score(cases, [told, guessed] * 20)}
    right = scores["answer", "right_ratio"]
    # the half whose answer is told is right, the other half ought to be unknown
    assert (right.value, right.nulls) == (0.5, {"always unknown": 0.5})
    assert scores["answer by confidence", "auc"].value == 1.0
    assert scores["answer by confidence", "auc"].beats_null is True


def test_planted_confidences_have_their_calibration_error_beside_a_constant():
    rng = np.random.default_rng(3)
    drawn = rng.beta(4, 2, 4000)
    right = rng.random(4000) < drawn**1.5
    cases = [PassageQuestion(passage="p", question="q", answer="7")] * 4000
    answers = [
        {"text": "7" if one else "8", "confidence": chance, "is_unknown": False}
        for chance, one in zip(drawn, right, strict=True)
    ]
    scores = {(s.group, s.name): s for s in SYSTEM.score(cases, answers)}
    planted = float(np.mean(drawn - drawn**1.5))
    assert scores["answer by confidence", "ece"].value == pytest.approx(planted, abs=0.02)
    # of few answers the error would be noise
    few = {score.name for score in SYSTEM.score(cases[:100], answers[:100])}
    assert "accuracy_of_surer_half" in few and "ece" not in few


def test_support_stands_beside_always_yes():
    cases = [Claim(passage="Shop 7 has 3 shelves", claim="Shop 7 has 3 shelves", supported=True)]
    cases += [Claim(passage="Shop 7 has 3 shelves", claim="Shop 7 has 4 shelves", supported=False)]
    scores = {s.name: s for s in SYSTEM.score(cases, [{"support": 0.9}, {"support": 0.1}])}
    assert scores["f1"].value == 1.0
    assert scores["f1"].nulls == {"always yes": pytest.approx(2 / 3)}


def test_f1_and_auc_by_hand():
    assert f1_of(np.array([[1, 1], [1, 0], [0, 1], [0, 0]])) == 0.5
    # of four pairs of a true and a false row three are in order, and one is a tie
    assert auc_of(np.array([[0.9, 1], [0.5, 1], [0.5, 0], [0.1, 0]])) == pytest.approx(3.5 / 4)


def judging(chance_of_true, folder):
    """The system with a model that says so much for a claim that its passage holds, and half for others."""

    def options(asked):
        passage, claim = asked.split("\n")[:2]
        return [chance_of_true if re.search(r"has (\d+) shelves", claim)[1] in passage else 0.4]

    parts = SystemParts(language=SimpleNamespace(options=options))
    return Context(parts, {"checked_count": 40}, folder)


def test_a_model_that_judges_no_better_than_always_yes_is_refused(tmp_path):
    claim = Claim(passage="Shop 7 has 3 shelves", claim="Shop 7 has 3 shelves", supported=True)
    for at, chance in enumerate((0.3, 0.9)):  # never yes; yes where it is right
        folder = tmp_path / str(at)
        folder.mkdir()
        context = judging(chance, folder)
        if chance < 0.5:
            with pytest.raises(RefusedError, match=r"no better than always yes \(F1 0.00\)"):
                SYSTEM.ready(context, claim)
        else:
            assert SYSTEM.ready(context, claim) is claim


def test_isotonic_regression_of_the_other_half_mends_planted_confidences():
    rng = np.random.default_rng(4)
    drawn = rng.beta(4, 2, 4000)
    right = rng.random(4000) < drawn**3
    mended = calibrated(np.column_stack([drawn, right]))
    assert np.abs(mended - drawn**3).mean() < 0.03 < np.abs(drawn - drawn**3).mean()
