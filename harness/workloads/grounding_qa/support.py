"""Does a passage support a claim? A calibrated judgement of a language model, overruled by exact checks.

The checks see what small models do not: a number in another unit, a date, a denial, who did it to whom. The model sees
what no rule does: other words for the same, and what the passage leaves open. A claim is cut into its sentences and
those into clauses; it is supported as far as its least supported part is.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from harness.ports import Session
from harness.stats.logistic import Platt, platt
from harness.workloads._language.figures import spelt_alike
from harness.workloads._language.judgement import Judge, precision_recall, signal
from harness.workloads._language.statements import clause, clauses, conflicts, sentences
from harness.workloads._language.templates import ChatTemplate
from harness.workloads._language.texts import shipped_table
from harness.workloads.grounding_qa.facts import Case, entailment_cases

_TOLD: Final = shipped_table("instructions")["support"]
OVERRULED: Final = 0.02
"""Probability of a claim that an exact check contradicts: the checks err, if seldom."""
UNFITTED: Final = Platt(1.0, 0.0)
"""The model's own log-odds, as they are."""


class Supported(NamedTuple):
    """How far a passage supports a claim.

    Attributes:
        probability: Of being supported.
        conflicts: What the exact checks object to: ``polarity roles number date name``.
        margin: The model's log-odds of its least supported sentence; 0 where a check had overruled it already.
    """

    probability: float
    conflicts: tuple[str, ...]
    margin: float

    @property
    def holds(self) -> bool:
        """Whether it is more likely supported than not."""
        return self.probability >= 0.5


def objections(claim: str, passage: str) -> tuple[str, ...]:
    """What the exact checks object to, without any model."""
    told = clauses(passage)
    return tuple(sorted({word for part in clauses(claim) or [clause(claim)] for word in conflicts(part, told)}))


class Support:
    """Judges claims with one model.

    Args:
        session: With room for the judge's prefix (some 300 tokens), and ``together`` sequences after ``home``.
        template: The model's chat template.
        home: Sequence that keeps the prefix; those after it are used too.
        together: Questions in one batch.
    """

    def __init__(self, session: Session, template: ChatTemplate, *, home: int, together: int) -> None:
        self.judge = Judge(session, template, _TOLD["instruction"], _TOLD["examples"], home=home, together=together)
        self.fit = UNFITTED

    def check_many(self, pairs: Sequence[tuple[str, str]]) -> list[Supported]:
        """Claims against passages, each a (claim, passage); the model is asked only where no check objects."""
        found = [objections(claim, passage) for claim, passage in pairs]
        asked = [(at, s) for at, (c, _) in enumerate(pairs) if not found[at] for s in sentences(c) or [c]]
        # Small models do not see that 17:30 is 5:30 pm; the figures are compared already, so they may look alike.
        shown = [(pairs[at][1], spelt_alike(said, pairs[at][1])) for at, said in asked]
        margins = self.judge.margins([f"Passage: {passage}\nClaim: {said}" for passage, said in shown])
        least: dict[int, float] = {}
        for (at, _), margin in zip(asked, margins, strict=True):
            least[at] = min(least.get(at, np.inf), float(margin))
        return [
            Supported(OVERRULED, words, 0.0) if words else Supported(self._probability(least[at]), (), least[at])
            for at, words in enumerate(found)
        ]

    def _probability(self, margin: float) -> float:
        return float(1 / (1 + np.exp(-(self.fit.slope * margin + self.fit.offset))))

    def fitted(self, cases: Iterable[Case]) -> "Support":
        """The same judge with slope and offset fitted on cases, those left out that a check decides."""
        cases = list(cases)
        self.fit = UNFITTED
        judged = self.check_many([(c.claim, c.passage) for c in cases])
        open_ = [(j.probability, c.is_supported) for j, c in zip(judged, cases, strict=True) if not j.conflicts]
        self.fit = platt([p for p, _ in open_], [y for _, y in open_], allow_few=True)
        return self


def score(cases: Sequence[Case], judged: Sequence[Supported]) -> dict[str, Any]:
    """Precision and recall of "supported", whole and by kind, and whether the model alone has signal."""
    found: dict[str, Any] = {"all": _share(cases, judged)}
    for kind in dict.fromkeys(c.kind for c in cases):
        rows = [(c, j) for c, j in zip(cases, judged, strict=True) if c.kind == kind]
        found[kind] = _share([c for c, _ in rows], [j for _, j in rows])
    free = [(j.margin > 0) == c.is_supported for c, j in zip(cases, judged, strict=True) if not j.conflicts]
    found["model where no check objects"] = signal(sum(free), len(free))._asdict()
    return found


def _share(cases: Sequence[Case], judged: Sequence[Supported]) -> dict[str, Any]:
    said = [j.holds for j in judged]
    true = [c.is_supported for c in cases]
    both = sum(s and t for s, t in zip(said, true, strict=True))
    objected = sum(bool(j.conflicts) and not t for j, t in zip(judged, true, strict=True))
    return {
        "case_count": len(cases),
        **precision_recall(both, sum(said), sum(true)),
        "decided_by_checks_ratio": objected / max(1, len(true) - sum(true)),
        "contains_precision": _plain(cases),
    }


def _plain(cases: Sequence[Case]) -> float:
    """Precision of a search for the claim's words in the passage, four in five of them: the usual baseline."""
    words = [(set(c.claim.lower().split()), set(c.passage.lower().split()), c.is_supported) for c in cases]
    said = [true for claim, passage, true in words if len(claim & passage) >= 0.8 * len(claim)]
    return sum(said) / len(said) if said else 0.0


def evaluate(support: Support, seed: int) -> dict[str, Any]:
    """Fit on the templates for fitting, judge those held out: 240 cases."""
    support.fitted(entailment_cases(seed, held_out=False))
    cases = entailment_cases(seed, held_out=True, fill_count=2)
    found = score(cases, support.check_many([(c.claim, c.passage) for c in cases]))
    return {"fit": support.fit._asdict(), "read_tokens": support.judge.read_count, **found}
