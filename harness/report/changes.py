"""The answers of a gate on a page: one line a budget, the worst first."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from harness.gates.formats import row_words
from harness.gates.judge import GateAnswer, Judgement
from harness.printable import clean
from harness.report import drawing
from harness.report.drawing import Axis, Drawing, cell, stated
from harness.report.panels import Headline, Page, Panel, Section
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


def gate_of(judgements: Sequence[Judgement]) -> Page:
    """What a page says of the judgements of a gate: its sentence, how many came to what, and the changes."""
    shares = [_shares(judgement) for judgement in judgements]
    axis = Axis.of_factors([0.7, 1.4, *(share for triple in shares for share in triple)])
    ordered = sorted(zip(judgements, shares, strict=True), key=lambda pair: pair[0].margin_ratio or 0.0)
    rows: dict[GateAnswer, list[list[Drawing]]] = defaultdict(list)
    for judgement, triple in ordered:
        rows[judgement.answer].append(_row(judgement, triple, axis))
    ticks = [
        drawing.label(axis.at(value), 14, text)
        for value, text in ((0.7, "−30 %"), (1.0, "0"), (1.4, "+40 %"))
    ]
    scale = drawing.picture("Scale: per cent of the baseline, or of the limit", 18, ticks, "scale")
    found = [answer for answer in ANSWERS if rows[answer]]
    folds = []
    for answer in found:
        heads = ("of", "change", "beside the limit", "answer")
        title = f"{len(rows[answer])} {ANSWERS[answer][0]}"
        lines = [*rows[answer], [Drawing(), Drawing(), scale, Drawing()]]
        folds.append(Panel(title, columns=heads, rows=lines, kind="rows"))
    counts = Counter(judgement.answer for judgement in judgements)
    worst = found[0]
    lead = ""
    if worst != "pass":
        change, whose, what, *_ = row_words(next(one for one, _ in ordered if one.answer == worst))
        lead = f"The worst: {whose}, {what}: {change}."
    unit = f"of {len(judgements)} budgets {ANSWERS[worst][2]}"
    section = Section(
        "changes",
        "Since the baseline",
        "A budget fails when its interval lies beyond the limit, and is undecided when the limit lies within it. "
        "Dashed: the limit; the full line: no change from the baseline.",
        folds=folds,
        opened=[
            fold.title
            for fold, answer in zip(folds, found, strict=True)
            if answer in {"fail", "could not run"}
        ],
    )
    return Page(
        kind="gate",
        title=f"Gate: {counts[worst]} {unit}",
        subject="no run",
        place="",
        headline=Headline("", str(counts[worst]), unit, verdict=ANSWERS[worst][3], feel=lead),
        counts=[(stated(ANSWERS[answer][1], ANSWERS[answer][0]), counts[answer]) for answer in found],
        sections=[section],
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


def _row(judgement: Judgement, shares: tuple[float, ...], axis: Axis) -> list[Drawing]:
    """Whose and which figure, the change with its interval, a picture, and the answer with its reason."""
    word, state, *_ = ANSWERS[judgement.answer]
    change, whose, what, between = row_words(judgement)
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
    picture = drawing.picture(f"{change}, {between}: {word}", 34, parts)
    return [
        cell(whose, small=what),
        cell(change, "speed", between),
        picture,
        cell(stated(state, word), small=reason),
    ]
