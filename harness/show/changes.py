"""The answers of a gate on a page: one line a budget, the worst first."""

from collections.abc import Sequence
from typing import Final

from harness.core.grouping import grouped
from harness.core.prediction import Interval
from harness.core.printable import clean
from harness.gates.formats import margin_of, row_words
from harness.gates.judge import GateAnswer, Judgement
from harness.show import drawing
from harness.show.drawing import Axis, Drawing, cell, stated
from harness.show.panels import Headline, Page, Panel, Section
from harness.show.state import State

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


def gate_of(judgements: Sequence[Judgement]) -> Page:
    """What a page says of the judgements of a gate: its sentence, how many came to what, and the changes."""
    ends = [0.7, 1.4]
    for judgement in judgements:
        if change := _change(judgement):
            ends += [change.low, change.high]
    axis = Axis.of_factors(ends)
    worst_first = sorted(judgements, key=margin_of)
    answered = grouped(worst_first, lambda one: one.answer)
    ticks = {"−30 %": 0.7, "0": 1.0, "+40 %": 1.4}
    labels = [drawing.label(axis.at(value), 14, text) for text, value in ticks.items()]
    scale = drawing.picture("Scale: per cent of the baseline, or of the limit", 18, labels)
    found = [answer for answer in ANSWERS if answer in answered]
    counts = []
    folds = []
    opened = []
    for answer in found:
        word, state, *_ = ANSWERS[answer]
        rows = [_row(judgement, axis) for judgement in answered[answer]]
        counts.append((stated(state, word), len(rows)))
        rows.append([Drawing(), Drawing(), scale, Drawing()])
        title = f"{len(answered[answer])} {word}"
        folds.append(
            Panel(title, columns=("of", "change", "beside the limit", "answer"), rows=rows, kind="rows")
        )
        if answer in {"fail", "could not run"}:
            opened.append(title)
    worst = found[0]
    *_, verb, verdict = ANSWERS[worst]
    lead = ""
    if worst != "pass":
        how_much, whose, what, _ = row_words(answered[worst][0])
        lead = f"The worst: {whose}, {what}: {how_much}."
    number = str(len(answered[worst]))
    unit = f"of {len(judgements)} budgets {verb}"
    section = Section(
        "changes",
        "Since the baseline",
        "A budget fails when its interval lies beyond the limit, and is undecided when the limit lies within it. "
        "Dashed: the limit; the full line: no change from the baseline.",
        folds=folds,
        opened=opened,
    )
    headline = Headline("", number, unit, verdict=verdict, feel=lead)
    return Page("gate", f"Gate: {number} {unit}", "no run", "", headline, counts=counts, sections=[section])


def _change(judgement: Judgement) -> Interval | None:
    """The figure with its interval, as a share of the baseline or of the limit; None without a figure."""
    value = judgement.value
    if not value or value < 0 or judgement.limit <= 0:
        return None
    by = 1.0 if judgement.relative_to else judgement.limit
    low, high = (value if end is None else end for end in (judgement.low, judgement.high))
    return Interval(value / by, max(low, value / 20) / by, min(high, value * 20) / by)


def _row(judgement: Judgement, axis: Axis) -> list[Drawing]:
    """Whose and which figure, the change with its interval, a picture, and the answer with its reason."""
    word, state, *_ = ANSWERS[judgement.answer]
    how_much, whose, what, between = row_words(judgement)
    parts = []
    if change := _change(judgement):
        limit = 1.0
        if judgement.relative_to:
            limit = judgement.limit
            parts.append(drawing.rule(axis.at(1.0), 34, "zero"))
        parts.append(drawing.rule(axis.at(limit), 34, "limit"))
        parts.append(drawing.band(axis, change, 17))
        parts.append(drawing.mark(axis.at(change.mid), 17, state))
    reason = ""
    if judgement.answer not in {"pass", "fail"}:
        reason = clean(judgement.settles or judgement.reason, 300)
    picture = drawing.picture(f"{how_much}, {between}: {word}", 34, parts)
    return [
        cell(whose, small=what),
        cell(how_much, "speed", between),
        picture,
        cell(stated(state, word), small=reason),
    ]
