"""Answer or escalate: a question is answered from a passage, or handed on where the answer is not to be trusted.

Three kinds of case. ``answer``: the language model answers, and three confidences say whether to give the
answer: the probability of its tokens, its own yes to "is that answer right", and its own "unknown".
``support``: whether a passage supports a claim, by the plain question without examples. ``calibrate``:
confidences that somebody else measured.

The threshold is the confidence at which so many answers are given that the risk stays below the one wanted
(Geifman and El-Yaniv 2017, "Selective Classification for Deep Neural Networks").
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from harness.domain.model import Weights
from harness.domain.result import Score
from harness.errors import RefusedError, WrongAnswerError
from harness.stats.calibration import metrics, smooth
from harness.workloads.facts import facts
from harness.workloads.parts import Parts
from harness.workloads.passes import Chain, Op
from harness.workloads.scores import (
    always,
    auc_score,
    f1_score,
    resampled,
    rows_of,
    scaled_by_halves,
    share,
)
from harness.workloads.system import Answers, Case, Size, System

FEWEST_ROWS: Final = 200
"""Below so many rows an ECE is noise: ten bins of perfectly calibrated data give 0.066 at 200."""
_SETS: Final = 6
_TOLERANCE_SIGMAS: Final = 5
_INSTRUCTION: Final = "Answer the question from the passage, in a few words. If the passage does not tell the answer, say: unknown."
_UNKNOWN: Final = "unknown"
_ANSWER_TOKENS: Final = 24
_USUAL_TOKENS: Final = 8
"""Tokens of an answer, about."""
_CONTAINED_RATIO: Final = 0.8


class Question(Case, tag="answer"):
    """A question about a passage.

    ``answer`` is the right one, left out where the passage does not tell it.
    """

    passage: str
    question: str
    answer: str | None = None


class Claim(Case, tag="support"):
    """A claim about a passage, and whether the passage supports it."""

    passage: str
    claim: str
    supported: bool | None = None


class Confidences(Case, tag="calibrate"):
    """Confidences in [0, 1] and whether each answer was right.

    ``implied_ece`` is the ECE where it is known.
    """

    confidences: list[float]
    outcomes: list[bool]
    implied_ece: float | None = None


class AnswerSystem(System):
    """Answers, confidences, and what a threshold on them would give."""

    name = "answer"
    title = "Answer or escalate: answers from a passage with confidence, threshold, risk and coverage; calibration"
    kinds = (Question, Claim, Confidences)
    options = ("language",)
    sizes = {
        "default": {"case_count": 40, "row_count": 0},
        "small": {"case_count": 8, "row_count": 0},
        "calibration": {"case_count": 0, "row_count": 100_000},
    }

    def part_names(self, size: Size) -> Sequence[str]:
        """The language model, unless only confidences are looked at."""
        return ("language",) if size["case_count"] else ()

    def cases(self, size: Size, seed: int) -> Sequence[Any]:
        """Questions and claims about made-up facts; sets of confidences whose ECE is planted."""
        rng = np.random.default_rng(seed)
        cases: list[Any] = []
        for at, fact in enumerate(facts(seed, size["case_count"])):
            cases.append(Question(passage=fact.passage, question=fact.question, answer=fact.answer))
            is_true = at % 2 == 1
            cases.append(
                Claim(passage=fact.passage, claim=fact.true if is_true else fact.false, supported=is_true)
            )
        for _ in range(_SETS if size["row_count"] else 0):
            drawn = rng.beta(4, 2, size["row_count"])
            right = rng.random(size["row_count"]) < drawn**1.5
            implied = float(np.mean(drawn - drawn**1.5))
            cases.append(
                Confidences(confidences=drawn.tolist(), outcomes=right.tolist(), implied_ece=implied)
            )
        return cases

    def step(self, state: Parts, case: Any) -> dict[str, Any]:
        """The answer with its confidences, the chance of support, or the figures of a set of confidences."""
        if isinstance(case, Confidences):
            return calibrated(case)
        if state.language is None:
            raise RefusedError(f"{case.__struct_config__.tag}: name a language model with --model")
        if isinstance(case, Claim):
            return {"support": float(state.language.options(supported(case.passage, case.claim))[0])}
        written = state.language.write(asked(case), _ANSWER_TOKENS)
        agreed = float(state.language.options(checked(case, written.text))[0])
        is_unknown = written.text.lower().startswith(_UNKNOWN)
        return {
            "text": written.text,
            "confidence": written.confidence,
            "agreed": agreed,
            "is_unknown": is_unknown,
        }

    def chain(self, case: Any, size: Size, chain: Chain) -> None:
        """A prompt is read and an answer written, which is then judged; a claim is judged alone."""
        if isinstance(case, Claim):
            chain.read(supported(case.passage, case.claim), Op.JUDGE)
        elif isinstance(case, Question):
            chain.read(asked(case))
            chain.write(_USUAL_TOKENS)
            chain.read(checked(case, case.answer or _UNKNOWN), Op.JUDGE)

    def held_bytes(self, size: Size, weights: Mapping[str, Weights]) -> int:
        """Columns of doubles, and as Python's numbers."""
        return 65 * size["row_count"] * _SETS

    def score(self, cases: Sequence[Any], answers: Answers) -> Sequence[Score]:
        """Right answers, how well each confidence tells them, and what a threshold would give; support.

        Calibration.
        """
        scores: list[Score] = []
        scores += _scores_of_answers(rows_of(cases, answers, Question))
        claims = [
            (case, answer) for case, answer in rows_of(cases, answers, Claim) if case.supported is not None
        ]
        if claims:
            true = [case.supported for case, _ in claims]
            contained = [_contained(case) for case, _ in claims]
            said = [answer["support"] >= 0.5 for _, answer in claims]
            words = f1_score(contained, true).value or 0.0
            scores.append(f1_score(said, true, "support", **{"its words are there": words}))
            scores.append(auc_score([answer["support"] for _, answer in claims], true, "support"))
            right = [one == two for one, two in zip(said, true, strict=True)]
            scores.append(share("right_ratio", right, "support", {"the commoner answer": always(true)}))
        return [*scores, *_scores_of_sets(rows_of(cases, answers, Confidences))]


def asked(case: Question) -> list[tuple[str, str]]:
    """The turns in which a question is put."""
    return [("system", _INSTRUCTION), ("user", f"Passage: {case.passage}\nQuestion: {case.question}")]


def checked(case: Question, text: str) -> list[tuple[str, str]]:
    """The turns in which the model is asked whether an answer is right."""
    question = f"Is this answer right: {text}? Answer Yes or No."
    return [("user", f"Passage: {case.passage}\nQuestion: {case.question}\n{question}")]


def supported(passage: str, claim: str) -> list[tuple[str, str]]:
    """The turns in which a claim is judged: examples before it make small models judge worse."""
    return [
        (
            "user",
            f"Passage: {passage}\nClaim: {claim}\nDoes the claim follow from the passage? Answer Yes or No.",
        )
    ]


def is_right(case: Question, answer: dict[str, Any]) -> bool:
    """Whether the right answer stands in the text.

    Where the passage tells none, whether the model says so.
    """
    if case.answer is None:
        return bool(answer["is_unknown"])
    return case.answer.lower() in answer["text"].lower()


def _scores_of_answers(rows: Sequence[tuple[Question, dict[str, Any]]]) -> list[Score]:
    if not rows:
        return []
    right = [is_right(case, answer) for case, answer in rows]
    untold = sum(case.answer is None for case, _ in rows) / len(rows)
    scores = [share("right_ratio", right, "answer", {"always unknown": untold})]
    known = [not answer["is_unknown"] for _, answer in rows]
    own_word = auc_score([float(value) for value in known], right).value or 0.5
    for name in ("confidence", "agreed"):
        chances = [answer[name] for _, answer in rows]
        if 0 < sum(right) < len(right):
            scores.append(auc_score(chances, right, f"answer by {name}", **{"its own unknown": own_word}))
            scores += _selection(chances, right, f"answer by {name}")
    return scores


def _selection(chances: Sequence[float], right: Sequence[bool], group: str) -> list[Score]:
    """The surer half's accuracy beside that of all; risk against coverage; ECE after scaling by halves."""
    halves = (right[0::2], right[1::2])
    if len(right) < 20 or any(all(half) or not any(half) for half in halves):
        return []
    scaled = scaled_by_halves(chances, right)
    rows = np.column_stack([scaled, np.asarray(right, np.float64)])
    mean = float(np.mean(right))
    order = np.argsort(-scaled, kind="stable")
    threshold = float(scaled[order[len(order) // 2 - 1]])
    return [
        resampled("accuracy_of_surer_half", rows, _surer_half, group, {"all": mean}),
        Score(name="threshold_of_half", value=threshold, group=group, count=len(right)),
        resampled(
            "aurc", rows, lambda r: metrics.aurc(r[:, 0], r[:, 1] > 0), group, {"at random": 1 - mean},
            more_is_better=False,
        ),
        Score(name="ece", value=metrics.ece(scaled, right), group=group, count=len(right), more_is_better=False),
    ]  # fmt: skip


def _surer_half(rows: Any) -> float:
    return float(metrics.accuracy_at(rows[:, 0], rows[:, 1] > 0, 0.5))


def calibrated(case: Confidences) -> dict[str, Any]:
    """ECE, smooth ECE, AURC and Brier score of one set.

    RefusedError for too few rows, or what is no confidence.
    """
    try:
        confidences = np.asarray(case.confidences, np.float64)
        outcomes = np.asarray(case.outcomes, np.bool_)
        if len(confidences) < FEWEST_ROWS:
            raise RefusedError(f"{len(confidences)} rows: below {FEWEST_ROWS} an ECE is noise")
        return {
            "ece": metrics.ece(confidences, outcomes),
            "smooth_ece": smooth.smooth_ece(confidences, outcomes),
            "aurc": metrics.aurc(confidences, outcomes),
            "brier": float(np.mean((confidences - outcomes) ** 2)),
            "row_count": len(confidences),
            "right_ratio": float(outcomes.mean()),
        }
    except (ValueError, TypeError) as error:
        raise RefusedError(f"confidences: {error}") from error


def _scores_of_sets(rows: Sequence[tuple[Confidences, dict[str, Any]]]) -> list[Score]:
    """Means over the sets, beside a constant confidence of the right height.

    Raises:
        WrongAnswerError: An ECE is further from the planted one than the draw explains.
    """
    if not rows:
        return []
    for case, answer in rows:
        allowed = _TOLERANCE_SIGMAS * 0.5 / answer["row_count"] ** 0.5
        if case.implied_ece is not None and abs(answer["ece"] - case.implied_ece) > allowed:
            raise WrongAnswerError(
                f"an ECE is {answer['ece']:.4f}, and {case.implied_ece:.4f} is known: allowed are {allowed:.4f}"
            )
    base = float(np.mean([answer["right_ratio"] for _, answer in rows]))
    nulls = {"brier": {"a constant": base * (1 - base)}, "aurc": {"at random": 1 - base}}
    counts = [answer["row_count"] for _, answer in rows]
    scores = []
    for name in ("ece", "smooth_ece", "brier", "aurc"):
        value = float(np.average([answer[name] for _, answer in rows], weights=counts))
        told: dict[str, Any] = {"group": "calibrate", "count": sum(counts), "more_is_better": False}
        scores.append(Score(name=name, value=value, nulls=nulls.get(name, {}), **told))
    return scores


def _contained(case: Claim) -> bool:
    """Whether four in five of the claim's words stand in the passage."""
    claim = set(case.claim.lower().split())
    passage = set(case.passage.lower().split())
    return len(claim & passage) >= _CONTAINED_RATIO * len(claim)


SYSTEM = AnswerSystem()
