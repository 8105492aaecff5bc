"""Does a passage support a claim? A calibrated judgement of a language model, overruled by exact checks both ways.

The checks see what small models do not: a number in another unit, a date, a denial, who did it to whom. They object to
what the passage contradicts, and confirm what it says in its own words with the same figures. The model sees what no
rule does: other words for the same, and what the passage leaves open. A claim is cut into its sentences and those into
clauses; it is supported as far as its least supported part is.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from harness.ports import Session, WorkloadContext
from harness.stats.logistic import Platt, platt
from harness.workloads._language.cases import drawn, watched
from harness.workloads._language.figures import spelt_alike
from harness.workloads._language.judgement import Judge, precision_recall, signal
from harness.workloads._language.statements import clause, clauses, confirmed, conflicts, sentences
from harness.workloads._language.templates import ChatTemplate
from harness.workloads._language.texts import text_table
from harness.workloads.grounding_qa.facts import Case, entailment_cases, unseen_cases

_TOLD: Final = text_table("instructions")["support"]
OVERRULED: Final = 0.02
"""Probability of a claim that an exact check contradicts, and of error where they confirm one: they err, if seldom."""
UNFITTED: Final = Platt(1.0, 0.0)
"""The model's own log-odds, as they are."""


class Supported(NamedTuple):
    """How far a passage supports a claim.

    Attributes:
        probability: Of being supported.
        conflicts: What the exact checks object to: ``polarity roles number date name``.
        margin: The model's log-odds of its least supported sentence; None where the checks had decided already.
    """

    probability: float
    conflicts: tuple[str, ...]
    margin: float | None


def objections(claim: str, passage: str) -> tuple[str, ...]:
    """What the exact checks object to, without any model."""
    told = clauses(passage)
    return tuple(sorted({word for part in clauses(claim) or [clause(claim)] for word in conflicts(part, told)}))


def confirms(claim: str, passage: str) -> bool:
    """Whether the exact checks find each clause of a claim told, its figures included."""
    told = clauses(passage)
    return all(confirmed(part, told) for part in clauses(claim) or [clause(claim)])


class Support:
    """Judges claims with one model, ``together`` questions in one batch.

    The session has room for the judge's prefix (some 300 tokens), which sequence ``home`` keeps, and as many sequences
    after it as a batch has questions.
    """

    def __init__(self, session: Session, template: ChatTemplate, *, home: int, together: int) -> None:
        self.judge = Judge(session, template, _TOLD["instruction"], _TOLD["examples"], home=home, together=together)
        self.fit = UNFITTED

    def check_many(self, pairs: Sequence[tuple[str, str]]) -> list[Supported]:
        """Claims against passages, each a (claim, passage); the model is asked only where the checks do not decide."""
        found = [objections(claim, passage) for claim, passage in pairs]
        is_open = [not words and not confirms(*pair) for words, pair in zip(found, pairs, strict=True)]
        asked = [(at, s) for at, (c, _) in enumerate(pairs) if is_open[at] for s in sentences(c) or [c]]
        # Small models do not see that 17:30 is 5:30 pm; the figures are compared already, so they may look alike.
        shown = [(pairs[at][1], spelt_alike(said, pairs[at][1])) for at, said in asked]
        margins = self.judge.margins([f"Passage: {passage}\nClaim: {said}" for passage, said in shown])
        least: dict[int, float] = {}
        for (at, _), margin in zip(asked, margins, strict=True):
            least[at] = min(least.get(at, np.inf), float(margin))
        return [
            Supported(float(self.fit.of_log_odds(least[at])), (), least[at])
            if is_open[at]
            else Supported(OVERRULED if words else 1 - OVERRULED, words, None)
            for at, words in enumerate(found)
        ]

    def fitted(self, cases: Sequence[Case]) -> None:
        """Fit slope and offset on cases, those left out that a check decides."""
        self.fit = UNFITTED
        judged = self.check_many([(c.claim, c.passage) for c in cases])
        open_ = [(j.probability, c.is_supported) for j, c in zip(judged, cases, strict=True) if j.margin is not None]
        self.fit = platt([p for p, _ in open_], [y for _, y in open_], allow_few=True)


def score(cases: Sequence[Case], judged: Sequence[Supported]) -> dict[str, Any]:
    """Precision and recall of "supported", whole and by kind, and whether the model alone has signal."""
    found: dict[str, Any] = {"all": _share(cases, judged)}
    for kind in dict.fromkeys(c.kind for c in cases):
        rows = [(c, j) for c, j in zip(cases, judged, strict=True) if c.kind == kind]
        found[kind] = _share([c for c, _ in rows], [j for _, j in rows])
    free = [(j.margin > 0) == c.is_supported for c, j in zip(cases, judged, strict=True) if j.margin is not None]
    found["model where no check objects"] = signal(sum(free), len(free))._asdict()
    return found


def _share(cases: Sequence[Case], judged: Sequence[Supported]) -> dict[str, Any]:
    said = [j.probability >= 0.5 for j in judged]
    true = [c.is_supported for c in cases]
    both = sum(s and t for s, t in zip(said, true, strict=True))
    objected = sum(bool(j.conflicts) and not t for j, t in zip(judged, true, strict=True))
    told = sum(j.margin is None and t and not j.conflicts for j, t in zip(judged, true, strict=True))
    return {
        "case_count": len(cases),
        **precision_recall(both, sum(said), sum(true)),
        "decided_by_checks_ratio": objected / max(1, len(true) - sum(true)),
        "confirmed_by_checks_ratio": told / max(1, sum(true)),
        "contains_precision": _plain(cases),
    }


def _plain(cases: Sequence[Case]) -> float:
    """Precision of a search for the claim's words in the passage, four in five of them: the usual baseline."""
    words = [(set(c.claim.lower().split()), set(c.passage.lower().split()), c.is_supported) for c in cases]
    said = [true for claim, passage, true in words if len(claim & passage) >= 0.8 * len(claim)]
    return sum(said) / len(said) if said else 0.0


def evaluate(support: Support, context: WorkloadContext) -> dict[str, Any]:
    """Fit on the templates for fitting; judge those held out, and cases by somebody who had not read the checks.

    Of those held out 60 passages (``--cases``) with four claims each, of the others all, or as many as asked for.
    """
    support.fitted(entailment_cases(context.seed, held_out=False))
    every = entailment_cases(context.seed, held_out=True, fill_count=2)
    found: dict[str, Any] = {"fit": support.fit._asdict()}
    unseen = unseen_cases()
    for left_count, name, groups in (
        (2, "support", [every[at : at + 4] for at in range(0, len(every), 4)]),
        (1, "support, unseen passages", [[case] for case in unseen]),
    ):
        before, part = support.judge.read_count, context.share(left_count)
        cases: list[Case] = []
        judged: list[Supported] = []
        for some in watched(drawn(groups, context, len(groups), by=lambda p: p[0].kind), part, name):
            cases += some
            judged += support.check_many([(c.claim, c.passage) for c in some])
        read_count = support.judge.read_count - before
        found[name] = {"of": sum(map(len, groups)), "read_tokens": read_count, **score(cases, judged)}
    return found
