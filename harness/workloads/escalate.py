"""Answer or escalate: a question is answered from a passage, or handed on where the answer is not to be trusted.

Two kinds of case. ``answer``: the language model answers, and two confidences say whether to give the
answer: the probability of its tokens, and its own "unknown".
``support``: whether a passage supports a claim, by the plain question without examples.

The threshold is the confidence at which half of the answers are given, with the accuracy of that half (Geifman
and El-Yaniv 2017, "Selective Classification for Deep Neural Networks").
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.core.errors import RefusedError
from harness.core.result import Score
from harness.core.stats.calibration import metrics
from harness.workloads.chain import Op, read, written
from harness.workloads.made_up import facts
from harness.workloads.scores import always, auc_score, f1_score, figure, mean_of, of_kind, resampled, share
from harness.workloads.system import Answers, Cases, Context, Scores, Size, System, WorkloadCase

FEWEST_ROWS = 200
"""Below so many rows an ECE is noise: ten bins of perfectly calibrated data give 0.066 at 200."""
_INSTRUCTION = "Answer the question from the passage, in a few words. If the passage does not tell the answer, say: unknown."
_ANSWER_TOKENS = 24


class PassageQuestion(WorkloadCase, tag="answer"):
    """A question about a passage.

    ``answer`` is the right one, left out where the passage does not tell it.
    """

    needs = ("language",)
    passage: str
    question: str
    answer: str | None = None


class Claim(WorkloadCase, tag="support"):
    """A claim about a passage, and whether the passage supports it."""

    needs = ("language",)
    passage: str
    claim: str
    supported: bool | None = None


class AnswerSystem(System):
    """Answers, confidences, and what a threshold on them would give."""

    name = "answer"
    title = "Answer or escalate: answers from a passage with confidence, threshold, risk and coverage"
    kinds = (PassageQuestion, Claim)
    usual = {"answer": [read(80), written(5, 80)], "support": [read(70, op=Op.JUDGE)]}
    sizes = {
        "default": {"case_count": 40, "checked_count": 40},
        "small": {"case_count": 8, "checked_count": 0},
    }

    def cases(self, size: Size) -> Cases:
        """Questions about made-up facts; claims about them come with ``--cases``."""
        return [
            PassageQuestion(passage=fact.passage, question=fact.question, answer=fact.answer)
            for fact in facts(size["case_count"])
        ]

    def ready(self, state: Context, case: Any) -> Any:
        """The case, once the model has judged claims about made-up facts better than always yes would.

        Raises:
            RefusedError: It has not; ``--size checked_count=0`` puts the claims all the same.
        """
        checked = facts(state.size["checked_count"])
        if isinstance(case, Claim) and checked and not state.folder.joinpath("judges").exists():
            told = [one.true if at % 2 else one.false for at, one in enumerate(checked)]
            claims = [
                Claim(passage=one.passage, claim=claim) for one, claim in zip(checked, told, strict=True)
            ]
            said = [self.step(state, claim)["support"] >= 0.5 for claim in claims]
            found = f1_score(said, [at % 2 == 1 for at in range(len(checked))], "")
            if not found.beats_null:
                raise RefusedError(
                    f"this model judges claims no better than always yes (F1 {found.value:.2f}): name another"
                )
            state.folder.joinpath("judges").touch()
        return case

    def step(self, state: Context, case: Any) -> Any:
        """The answer with its confidences, or the chance of support."""
        if isinstance(case, Claim):
            said = f"Passage: {case.passage}\nClaim: {case.claim}\n"
            # Examples before it make small models judge worse.
            ask = f"{said}Does the claim follow from the passage? Answer Yes or No."
            return {"support": float(state.parts.language.options(ask)[0])}
        prompt = f"Passage: {case.passage}\nQuestion: {case.question}"
        turns = [("system", _INSTRUCTION), ("user", prompt)]
        text, confidence = state.parts.language.write(turns, _ANSWER_TOKENS)
        return {"text": text, "confidence": confidence, "is_unknown": text.lower().startswith("unknown")}

    def score(self, cases: Cases, answers: Answers) -> Scores:
        """Score the answers, their confidences, a threshold on these, and the support of claims."""
        scores = _scores_of_answers(of_kind(cases, answers, PassageQuestion))
        claims = [row for row in of_kind(cases, answers, Claim) if row[0].supported is not None]
        if claims:
            true = [case.supported for case, _ in claims]
            chances = [answer["support"] for _, answer in claims]
            said = [chance >= 0.5 for chance in chances]
            right = np.equal(said, true).tolist()
            scores.append(f1_score(said, true, "support"))
            scores.append(auc_score(chances, true, "support"))
            scores.append(share("right_ratio", right, "support", {"the commoner answer": always(true)}))
        return scores


def is_right(case: PassageQuestion, answer: Any) -> bool:
    """Whether the right answer stands in the text.

    Where the passage tells none, whether the model says so.
    """
    if case.answer is None:
        return bool(answer["is_unknown"])
    return case.answer.lower() in answer["text"].lower()


def calibrated(pairs: Any) -> Any:
    """Confidences of rows [n, (confidence, right)] after isotonic regression on the other half of the rows."""
    from scipy.optimize import isotonic_regression

    made = np.empty(len(pairs))
    for half in (0, 1):
        others = pairs[1 - half :: 2]
        others = others[np.argsort(others[:, 0], kind="stable")]
        made[half::2] = np.interp(pairs[half::2, 0], others[:, 0], isotonic_regression(others[:, 1]).x)
    return made


def _scores_of_answers(rows: Sequence[Any]) -> list[Score]:
    right = [is_right(case, answer) for case, answer in rows]
    if not rows:
        return []
    untold = mean_of([case.answer is None for case, _ in rows])
    scores = [share("right_ratio", right, "answer", {"always unknown": untold})]
    own_word = auc_score([not answer["is_unknown"] for _, answer in rows], right, "").value or 0.5
    group = "answer by confidence"
    chances = [answer["confidence"] for _, answer in rows]
    pairs = np.column_stack([chances, right])
    scores.append(auc_score(chances, right, group, {"its own unknown": own_word}))
    scores.append(
        resampled(
            "accuracy_of_surer_half",
            pairs,
            group,
            {"all": mean_of(right)},
            lambda table: metrics.accuracy_at(table[:, 0], table[:, 1], 0.5),
        )
    )
    scores.append(figure("threshold_of_half", np.median(chances), group, len(right)))
    if len(right) >= FEWEST_ROWS:
        off = metrics.ece(chances, right)
        scores.append(figure("ece", off, group, len(right), more_is_better=False))
        mended = metrics.ece(calibrated(pairs), right)
        scores.append(scores[-1].replace(name="ece_calibrated", value=mended, nulls={"as it is": off}))
    return scores


SYSTEM = AnswerSystem()
