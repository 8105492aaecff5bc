"""Process reward: how likely each step of a solution is right, by a local model fused with the exact checks.

The model reads problem and solution once, and is asked after each step whether that step is correct; its log-odds are
calibrated. A step in which an exact check finds a fault is wrong, whatever the model says.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.ports import Session
from harness.workloads._language.judgement import Judge
from harness.workloads._language.templates import ChatTemplate
from harness.workloads._language.texts import shipped_table
from harness.workloads.reasoning.analysis import analyse, f1

_TOLD: Final = shipped_table("instructions")["critic"]


class Trace(NamedTuple):
    """A problem, the steps of a solution, and the first wrong one (-1: none)."""

    problem: str
    steps: tuple[str, ...]
    label: int


class Read(NamedTuple):
    """A trace as the critic sees it: log-odds that each step is right [steps], and the first fault by exact checks."""

    margins: NDArray[np.float64]
    exact: int


class Critic:
    """Step critic.

    Args:
        session: With room for a trace, and nine sequences.
        template: The model's chat template.
    """

    def __init__(self, session: Session, template: ChatTemplate) -> None:
        self.judge = Judge(session, template, _TOLD["instruction"])
        self._room = session.context_tokens

    def read(self, trace: Trace) -> Read:
        """Log-odds for each step; steps beyond the context's room are taken for right."""
        pieces = [f"Problem: {trace.problem}\n\nSolution:\nStep 1: {trace.steps[0]}"]
        pieces += [f"\nStep {at}: {step}" for at, step in enumerate(trace.steps[1:], 2)]
        room = self._room - 400
        kept = [p for at, p in enumerate(pieces) if sum(len(x) for x in pieces[: at + 1]) / 2.5 < room] or pieces[:1]
        margins = np.full(len(pieces), 9.0)
        margins[: len(kept)] = self.judge.along(kept, _TOLD["question"])
        return Read(margins, analyse(trace.steps, trace.problem).first_error)


class Rule(NamedTuple):
    """When a step counts as wrong: its log-odds lie below ``threshold`` and ``drop`` below the trace's mean."""

    threshold: float
    drop: float


def first_wrong(read: Read, rule: Rule) -> int:
    """The first step that is wrong by the rule or by an exact check; -1 for none."""
    low = (read.margins < rule.threshold) & (read.margins < read.margins.mean() - rule.drop)
    by_model = int(np.argmax(low)) if low.any() else -1
    return min((at for at in (by_model, read.exact) if at >= 0), default=-1)


def fit(reads: Sequence[Read], labels: Sequence[int]) -> Rule:
    """The rule with the highest F1 on these traces, from the quantiles of their log-odds."""
    values = np.concatenate([r.margins for r in reads])
    rules = [
        Rule(float(t), float(d))
        for t in np.quantile(values, np.linspace(0.02, 0.7, 30))
        for d in (-9.0, 0.0, 0.25, 0.5, 1.0)
    ]

    def merit(rule: Rule) -> float:
        return f1([first_wrong(r, rule) for r in reads], labels)["f1"] or 0.0

    return max(rules, key=merit)
