"""What gates answered before, kept beside the results: for a budget that must not stay undecided for ever."""

from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from harness.core.base import Frozen
from harness.core.budget import Budget
from harness.core.foreign import json_in, typed
from harness.core.grouping import grouped
from harness.gates.judge import GateAnswer, Judgement
from harness.gates.pins import lasting
from harness.records.store import write_atomically

_MOST_BYTES: Final = 8 << 20
_KEPT: Final = 200
"""Answers of one budget that are kept, the newest."""
_CONCLUSIVE: Final = frozenset({"pass", "fail"})


class PastAnswer(Frozen):
    """One answer to one budget: at what time, about which runs (a digest of their names)."""

    budget: str
    at: Annotated[datetime, Meta(tz=True)]
    build: str
    answer: GateAnswer


class _AnswersFile(Frozen):
    answers: tuple[PastAnswer, ...] = ()


def read_answers(path: Path) -> tuple[PastAnswer, ...]:
    """Answers of earlier gates, oldest first; none where there is no such file.

    Raises:
        BadDataError: The file holds none, or the time of one is no time.
    """
    if not path.exists():
        return ()
    return typed(json_in(path, "answers of gates", _MOST_BYTES), _AnswersFile, path).answers


def keep_answers(
    path: Path, earlier: Sequence[PastAnswer], judgements: Sequence[Judgement], now: datetime
) -> None:
    """Add the answers of a gate; CouldNotRunError where that cannot be written."""
    every = (*earlier, *(_answered(judgement, now) for judgement in judgements))
    kept = [each for answers in grouped(every, lambda one: one.budget).values() for each in answers[-_KEPT:]]
    whole = _AnswersFile(answers=tuple(sorted(kept, key=lambda each: each.at)))
    write_atomically(path, msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n")


def with_deadlines(
    judgements: Sequence[Judgement], earlier: Sequence[PastAnswer], now: datetime
) -> list[Judgement]:
    """The judgements; one that is undecided for longer than its budget allows is a broken one.

    Only a pass or a fail begins anew. What a budget's limit says does not matter: a changed one goes on.
    """
    answers = list(judgements)
    for index, judgement in enumerate(judgements):
        budget = judgement.budget
        late = ""
        if judgement.answer == "inconclusive":
            open_since = _undecided_since(budget, earlier)
            builds = {each.build for each in open_since} | {_build(judgement)}
            first = min((each.at for each in open_since), default=now)
            days = (now - first).days
            if budget.undecided_days is not None and days >= budget.undecided_days:
                late = f"undecided for {days} days, {budget.undecided_days} are allowed"
            elif budget.undecided_builds is not None and len(builds) >= budget.undecided_builds:
                late = f"undecided for {len(builds)} builds in a row, {budget.undecided_builds} are allowed"
        if late:
            advice = "leave a core free, make more runs, or gate in turns (gate live)"
            reason = f"{late}: {advice}; {judgement.reason}"
            answers[index] = judgement.replace(answer="fail", reason=reason)
    return answers


def _undecided_since(budget: Budget, earlier: Sequence[PastAnswer]) -> list[PastAnswer]:
    """Answers since the budget's last conclusive one, newest first."""
    own = (each for each in reversed(earlier) if each.budget == _name(budget))
    return list(takewhile(lambda each: each.answer not in _CONCLUSIVE, own))


def _answered(judgement: Judgement, now: datetime) -> PastAnswer:
    name = _name(judgement.budget)
    return PastAnswer(budget=name, at=now, build=_build(judgement), answer=judgement.answer)


def _name(budget: Budget) -> str:
    """What a budget is about, whatever its limit."""
    names = (budget.metric, budget.label, budget.workload, budget.model, budget.device)
    return " | ".join((*names, str(lasting(budget.pin))))


def _build(judgement: Judgement) -> str:
    return blake2b("\0".join(judgement.evidence).encode(), digest_size=8).hexdigest()
