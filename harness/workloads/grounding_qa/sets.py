"""Quality of grounded answers: on the made-up facts, and on public sets that are pointed at and never shipped.

LoCoMo (Maharana et al. 2024, CC BY-NC 4.0): questions about long conversations; those of category 5 have no answer in
them and are there to abstain from. TruthfulQA (Lin et al. 2022, Apache-2.0): questions that invite a popular error.
"""

import csv
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from harness.errors import BadDataError
from harness.ports import Session, WorkloadContext
from harness.stats.calibration.metrics import ece, equal_width
from harness.stats.calibration.selective import accuracy_at, aurc
from harness.stats.calibration.smooth import smooth_ece
from harness.stats.intervals import cluster_interval
from harness.workloads._language.cases import drawn, watched
from harness.workloads._language.generate import Plan
from harness.workloads._language.judgement import choose, signal
from harness.workloads._language.templates import ChatTemplate
from harness.workloads._language.texts import shipped_table
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

MADE_UP: Final = 48
LOCOMO: Final = 60
TRUTHFUL: Final = 100
"""Questions of each where nobody says how many."""
_F1_ENOUGH: Final = 0.5


def made_up(
    session: Session, context: WorkloadContext, count: int = MADE_UP, *, support: Support | None = None
) -> dict[str, Any]:
    """The made-up facts, a quarter of the questions without an answer: early end of the vote beside all samples."""
    known = facts(400, context.seed)
    asked = questions(known, context.cases or count, context.seed)
    passages = [(f.identifier, f.passage) for f in known]
    store = fill_store(context, passages, "made-up", with_meaning=support is not None)
    grounded = Grounded(session, store, plan=Plan(new_tokens=12, seed=context.seed), support=support)
    answers = [grounded.early_and_whole(q) for q in watched(asked, context, "made-up facts")]
    early, full = ([judge(q, a) for q, a in zip(asked, some, strict=True)] for some in zip(*answers, strict=True))
    store.close()
    drawn = [sum(j.answer.drawn_count for j in judged) for judged in (early, full)]
    return {
        "early end": report(early),
        "all samples": report(full),
        "drawn_tokens_saved_ratio": 1 - drawn[0] / drawn[1],
        "same_answer_ratio": _mean([a.answer.text == b.answer.text for a, b in zip(early, full, strict=True)]),
        "accuracy_difference": paired_interval([j.is_right for j in early], [j.is_right for j in full]),
    }


def report(judged: Sequence[Judged]) -> dict[str, Any]:
    """Accuracy, citations, cost; risk against coverage; abstention with a threshold from the first half.

    Over all questions: one without an answer counts as wrong when it is answered.
    """
    confidence = [j.answer.confidence for j in judged]
    right = [j.is_right for j in judged]
    return {
        **summary(judged),
        "aurc": aurc(confidence, right, allow_few=True),
        "risk_of_answering_all": 1 - _mean(right),
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


def paired_interval(candidate: Sequence[bool], baseline: Sequence[bool]) -> tuple[float, float, float]:
    """Mean difference candidate - baseline over the same rows, and its 95 % bootstrap interval."""
    gaps = np.asarray(candidate, np.float64) - np.asarray(baseline, np.float64)
    found = cluster_interval(gaps, np.ones(len(gaps)))
    return found.mid, found.low or 0.0, found.high or 0.0


def locomo(
    session: Session, context: WorkloadContext, path: Path, count: int = LOCOMO, *, support: Support | None = None
) -> dict[str, Any]:
    """Questions drawn by the seed; an answer is right at a word F1 of 0.5 or more with the gold one.

    The evidence is searched in the question's own conversation.

    Raises:
        BadDataError: No LoCoMo file.
    """
    turns, every = read_locomo(path)
    chosen = drawn(every, context, count, by=lambda q: (q.conversation, bool(q.answer)))
    plan = Plan(new_tokens=16, seed=context.seed)
    judged = []
    for at, talk in enumerate(dict.fromkeys(t.conversation for t in turns)):
        passages = [(t.name, t.text) for t in turns if t.conversation == talk]
        asked = [q for q in chosen if q.conversation == talk]
        if asked:
            store = fill_store(context, passages, f"talk-{at}", with_meaning=support is not None)
            grounded = Grounded(
                session, store, plan=plan, examples=shipped_table("instructions")["answers"]["talk"], support=support
            )
            for text, _, _, gold in watched(asked, context, f"{path.stem}, {talk}"):
                question = Question(text, "", gold, "", "")
                answer = grounded.ask(question)
                judged.append(Judged(question, answer, bool(gold) and word_f1(answer.text, gold) >= _F1_ENOUGH))
            store.close()
    random.Random("halves").shuffle(judged)
    return report(judged)


def word_f1(given: str, gold: str) -> float:
    """Harmonic mean of the shares of shared words, normalised, each counted as often as it occurs in both (SQuAD)."""
    a, b = normalise(given).split(), normalise(gold).split()
    shared = sum(min(a.count(w), b.count(w)) for w in set(a))
    return 2 * shared / (len(a) + len(b)) if shared else 0.0


def truthful(session: Session, context: WorkloadContext, path: Path, template: ChatTemplate) -> dict[str, Any]:
    """MC1: the best answer against the incorrect ones by length-normalised log-probability, no passages.

    The questions are drawn by the seed, each category with its share.

    Raises:
        BadDataError: No TruthfulQA file.
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
    before, after = template.around(session)
    for question, best, wrong in watched(rows, context, path.stem):
        options = [best.strip(), *(w.strip() for w in wrong if w.strip())]
        prompt = [*before, *session.tokenize(question, add_special=False), *after]
        chosen = choose(session, prompt, [session.tokenize(o, add_special=False) for o in options[:15]])
        confidence.append(float(chosen.shares[chosen.best]))
        right.append(chosen.best == 0)
        chance.append(1 / len(options[:15]))
    return {
        "question_count": len(rows),
        "of": len(every),
        "accuracy": _mean(right),
        "chance": _mean(chance),
        "ece": ece(equal_width(confidence, right, allow_few=True)),
        "smooth_ece": smooth_ece(confidence, right, allow_few=True),
        "aurc": aurc(confidence, right, allow_few=True),
        "signal": signal(sum(right), len(right), chance=_mean(chance))._asdict(),
        "half_coverage": half_coverage(confidence, right),
    }


def _mean(values: Sequence[Any]) -> float:
    return float(np.mean(np.asarray(values, np.float64)))
