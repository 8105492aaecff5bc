"""The answers of a gate on a page: one line a budget, the worst first."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from harness.gates.formats import row_words
from harness.gates.judge import GateAnswer, Judgement
from harness.printable import clean
from harness.report import drawing
from harness.report.drawing import Axis, Drawing
from harness.report.state import State

ANSWERS: Final[dict[GateAnswer, tuple[str, State, str, str]]] = {
    "fail": ("fails", State.OUTSIDE, "fail", "Do not release this build."),
    "could not run": ("no evidence", State.NONE, "have no evidence", "The gate could not be run."),
    "inconclusive": (
        "undecided",
        State.DISTURBED,
        "are undecided",
        "Measure again before this build goes out.",
    ),
    "pass": ("passes", State.INSIDE, "pass", "This build may go out."),
}
"""Of each answer its word, its mark, its verb, and what it means for a release; the worst first."""


class Change(NamedTuple):
    """A budget: the change, whose, of which figure, its interval, why it is undecided, and a picture."""

    change: str
    whose: str
    what: str
    between: str
    reason: str
    picture: Drawing


class Gate(NamedTuple):
    """All of a gate: its sentence, how many budgets came to what, and the changes of each answer."""

    title: str
    number: str
    unit: str
    verdict: str
    lead: str
    counts: list[tuple[State, str, int]]
    changes: list[tuple[State, str, list[Change]]]
    axis: Drawing


def gate_of(judgements: Sequence[Judgement]) -> Gate:
    """What a page says of the judgements of a gate."""
    shares = [_shares(judgement) for judgement in judgements]
    axis = Axis.of_factors([0.7, 1.4, *(share for triple in shares for share in triple)])
    by_answer: dict[GateAnswer, list[tuple[float, Change]]] = defaultdict(list)
    for judgement, triple in zip(judgements, shares, strict=True):
        by_answer[judgement.answer].append((judgement.margin_ratio or 0.0, _change(judgement, triple, axis)))
    counts = Counter(judgement.answer for judgement in judgements)
    changes = []
    for answer, (word, state, *_) in ANSWERS.items():
        if counts[answer]:
            ordered = sorted(by_answer[answer], key=lambda pair: pair[0])
            changes.append((state, word, [change for _, change in ordered]))
    worst = next(answer for answer in ANSWERS if counts[answer])
    first = changes[0][2][0]
    unit = f"of {len(judgements)} budgets {ANSWERS[worst][2]}"
    ticks = [
        drawing.label(axis.at(value), 14, text)
        for value, text in ((0.7, "−30 %"), (1.0, "0"), (1.4, "+40 %"))
    ]
    return Gate(
        title=f"Gate: {counts[worst]} {unit}",
        number=str(counts[worst]),
        unit=unit,
        verdict=ANSWERS[worst][3],
        lead="" if worst == "pass" else f"The worst: {first.whose}, {first.what}: {first.change}.",
        counts=[
            (state, word, counts[answer]) for answer, (word, state, *_) in ANSWERS.items() if counts[answer]
        ],
        changes=changes,
        axis=drawing.picture("Scale: per cent of the baseline, or of the limit", 18, ticks, "scale"),
    )


def _shares(judgement: Judgement) -> tuple[float, ...]:
    """Value and ends of its interval, relative as the budget is, else over its limit.

    Empty without a value.
    """
    if not judgement.value or judgement.value < 0 or judgement.limit <= 0:
        return ()
    by = judgement.limit
    if judgement.relative_to:
        by = 1.0
    ends = [judgement.value if end is None else end for end in (judgement.low, judgement.high)]
    kept = [min(max(end, judgement.value / 20), judgement.value * 20) for end in ends]
    return judgement.value / by, kept[0] / by, kept[1] / by


def _change(judgement: Judgement, shares: tuple[float, ...], axis: Axis) -> Change:
    word, state, *_ = ANSWERS[judgement.answer]
    told = row_words(judgement)
    parts = []
    if shares:
        value, low, high = shares
        limit = 1.0
        if judgement.relative_to:
            limit = judgement.limit
            parts.append(drawing.rule(axis.at(1.0), 34, "zero"))
        start = axis.at(low)
        width = max(axis.at(high) - start, 0.4)
        kind = f"range {state.name.lower()}"
        parts += [drawing.rule(axis.at(limit), 34, "limit"), drawing.bar(width, 13, 8, kind, start)]
        parts.append(drawing.mark(axis.at(value), 17, state))
    reason = ""
    if judgement.answer not in {"pass", "fail"}:
        reason = clean(judgement.settles or judgement.reason, 300)
    return Change(*told, reason, drawing.picture(f"{told[0]}, {told[3]}: {word}", 34, parts))
