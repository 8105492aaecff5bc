"""Quality of grounded answers: on the made-up facts, and on public sets that are pointed at and never shipped.

LoCoMo (Maharana et al. 2024, CC BY-NC 4.0): questions about long conversations; those of category 5 have no answer in
them and are there to abstain from. TruthfulQA (Lin et al. 2022, Apache-2.0): questions that invite a popular error.
"""

import csv
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np

from harness.errors import BadDataError
from harness.ports import Session, WorkloadContext
from harness.stats.calibration.metrics import ece, equal_width
from harness.stats.calibration.selective import accuracy_at, aurc
from harness.stats.calibration.smooth import smooth_ece
from harness.workloads._language.cases import drawn, watched
from harness.workloads._language.generate import Plan
from harness.workloads._language.judgement import Judge, choose, signal
from harness.workloads._language.templates import ChatTemplate
from harness.workloads._language.texts import text_table
from harness.workloads.grounding_qa.answering import (
    Grounded,
    Judged,
    abstention,
    fill_store,
    judge,
    normalise,
    summary,
)
from harness.workloads.grounding_qa.facts import Question, facts, questions
from harness.workloads.grounding_qa.support import Support
from harness.workloads.memory_store.locomo import read as read_locomo
from harness.workloads.memory_store.reranking import relevance

MADE_UP: Final = 48
LOCOMO: Final = 60
TRUTHFUL: Final = 100
"""Questions of each where nobody says how many."""
_F1_ENOUGH: Final = 0.5


def made_up(session: Session, context: WorkloadContext, support: Support) -> dict[str, Any]:
    """The made-up facts, a quarter of the questions without an answer."""
    known = facts(400, context.seed)
    asked = questions(known, context.cases or MADE_UP, context.seed)
    store = fill_store(context, [(f.identifier, f.passage) for f in known], "made-up")
    grounded = Grounded(session, store, plan=Plan(new_tokens=12, seed=context.seed), support=support)
    judged = [judge(q, grounded.ask(q)) for q in watched(asked, context, "made-up facts")]
    store.close()
    return {"of": len(asked), **report(judged)}


def report(judged: Sequence[Judged]) -> dict[str, Any]:
    """Accuracy, citations, cost; risk against coverage; abstention with a threshold from the first half.

    Over all questions: one without an answer counts as wrong when it is answered.
    """
    confidence = [j.answer.confidence for j in judged]
    right = [j.is_right for j in judged]
    return {
        **summary(judged),
        "aurc": aurc(confidence, right, allow_few=True),
        "risk_of_answering_all": 1 - fmean(right),
        "half_coverage": half_coverage(confidence, right),
        "abstention": abstention(judged),
        "abstention, support needed": abstention(judged, needs_support=True),
    }


def half_coverage(confidence: Sequence[float], right: Sequence[bool]) -> dict[str, Any]:
    """Accuracy on the surer half of the rows, and its gain over answering all, with its 95 % bootstrap interval."""
    p, y = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(p), (1000, len(p)))
    gains = [accuracy_at(p[rows], y[rows], 0.5, allow_few=True) - float(y[rows].mean()) for rows in drawn]
    low, high = np.percentile(gains, [2.5, 97.5])
    half = accuracy_at(p, y, 0.5, allow_few=True)
    says = "better than answering all" if low > 0 else "worse than answering all" if high < 0 else "no difference shown"
    return {"accuracy": half, "gain": half - float(y.mean()), "gain_interval": [float(low), float(high)], "says": says}


def locomo(
    session: Session,
    context: WorkloadContext,
    path: Path,
    template: ChatTemplate | None = None,
    *,
    support: Support | None = None,
) -> dict[str, Any]:
    """Questions drawn by the seed; an answer is right at a word F1 of 0.5 or more with the gold one.

    The evidence is searched in the question's own conversation, each turn with its date, as the set's authors show it;
    with a ``template`` the model reranks what is found. BadDataError where it is no LoCoMo file.
    """
    turns, every = read_locomo(path)
    chosen = drawn(every, context, LOCOMO, by=lambda q: (q.conversation, bool(q.answer)))
    plan = Plan(new_tokens=16, seed=context.seed)
    ranking = relevance(session, template, home=16, together=6) if template else None
    judged = []
    talks = sorted({q.conversation for q in chosen})
    for at, talk in enumerate(talks):
        part = context.share(len(talks) - at)
        passages = [(t.name, f"({_day(t.at_s)}) {t.text}") for t in turns if t.conversation == talk]
        store = fill_store(context, passages, f"talk-{at}", with_meaning=support is not None)
        told = text_table("instructions")["answers"]["talk"]
        grounded = Grounded(session, store, plan=plan, examples=told, support=support, relevance=ranking)
        for text, _, _, gold in watched([q for q in chosen if q.conversation == talk], part, f"{path.stem}, {talk}"):
            question = Question(text, "", gold, "", "")
            answer = grounded.ask(question)
            judged.append(Judged(question, answer, bool(gold) and word_f1(answer.text, gold) >= _F1_ENOUGH))
        store.close()
    random.Random("halves").shuffle(judged)
    return {"of": len(every), **report(judged)}


def _day(at_s: float) -> str:
    day = datetime.fromtimestamp(at_s, UTC)
    return f"{day.day} {day:%B %Y}"


def word_f1(given: str, gold: str) -> float:
    """Harmonic mean of the shares of shared words, normalised, each counted as often as it occurs in both (SQuAD)."""
    a, b = normalise(given).split(), normalise(gold).split()
    shared = sum(min(a.count(w), b.count(w)) for w in set(a))
    return 2 * shared / (len(a) + len(b)) if shared else 0.0


def truthful(session: Session, context: WorkloadContext, path: Path, template: ChatTemplate) -> dict[str, Any]:
    """The best answer among the incorrect ones, no passages: by the model's judgement which of them are true.

    Each answer is judged for itself: the log-odds that it is true ("P(True)", Kadavath et al. 2022, arXiv:2207.05221);
    their softmax is the confidence. Beside it stands MC1, the answer with the highest log-probability a token: what is
    often said is likely, true or not. The questions are drawn by the seed, each category with its share. BadDataError
    where it is no TruthfulQA file.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            every = list(csv.DictReader(file))
        rows = [
            (r["Question"], r["Best Answer"], r["Incorrect Answers"].split(";"))
            for r in drawn(every, context, TRUTHFUL, by=lambda r: r.get("Category"))
        ]
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise BadDataError(path, "", repr(error), "a TruthfulQA file") from error
    confidence, right, chance = [], [], []
    likely: list[bool] = []
    before, after = template.around(session)
    judged = Judge(session, template, text_table("instructions")["truth"]["instruction"], home=16, together=6)
    for question, best, wrong in watched(rows, context, path.stem):
        options = [best.strip(), *(w.strip() for w in wrong if w.strip())][:15]
        prompt = [*before, *session.tokenize(question, add_special=False), *after]
        tokens = [session.tokenize(o, add_special=False) for o in options]
        likely.append(choose(session, prompt, tokens, kept_count=len(before) if likely else 0).best == 0)
        margins = judged.margins([f"Question: {question}\nAnswer: {option}" for option in options])
        shares = np.exp(margins - margins.max())
        confidence.append(float(1 / shares.sum()))
        right.append(int(margins.argmax()) == 0)
        chance.append(1 / len(options))
    return {
        "question_count": len(right),
        "of": len(every),
        "accuracy": fmean(right),
        "likeliest_accuracy": fmean(likely),
        "chance": fmean(chance),
        "ece": ece(equal_width(confidence, right, allow_few=True)),
        "smooth_ece": smooth_ece(confidence, right, allow_few=True),
        "aurc": aurc(confidence, right, allow_few=True),
        "signal": signal(sum(right), len(right), chance=fmean(chance))._asdict(),
        "half_coverage": half_coverage(confidence, right),
    }
