"""How judgements are written: a function a format, all with the same words."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final, get_args
from xml.etree import ElementTree as ET

from msgspec import Meta

from harness.core.base import Frozen
from harness.core.budget import Budget
from harness.core.metric import FIGURES
from harness.core.printable import clean
from harness.core.printable import escape_markdown as escape
from harness.core.tables import shipped_table, shipped_text
from harness.core.units import counted, format_amount
from harness.gates.judge import GateAnswer, Judgement, worst_of


class Shown(Frozen):
    """How one answer of a gate is shown, as ``data/answers.toml`` explains it."""

    word: str
    others: str
    sign: str
    level: str
    colour: Annotated[str, Meta(pattern="^#[0-9a-f]{6}$")]
    advice: str = ""
    element: str = ""


def read_shown() -> dict[GateAnswer, Shown]:
    """``data/answers.toml``.

    Raises:
        BadDataError: An answer or a column that there is not, or a colour that is none.
    """
    return shipped_table("data/answers.toml", into=dict[GateAnswer, Shown])


_SHOWN = read_shown()
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold."""


_ROWS: Final = 3
_DATA: Final = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_FIELD: Final = _DATA | {":": "%3A", ",": "%2C"}
"""How a workflow command writes what would end it, in its text and in its fields."""


def summary(judgements: Sequence[Judgement], notes: Sequence[str] = ()) -> str:
    """The first screen, of at most 14 lines: the verdict in one word, the three worst budgets, what to do."""
    counts: Counter[GateAnswer] = Counter(judgement.answer for judgement in judgements)
    worst = worst_of(counts)
    parts = [f"{counts[worst]} of {counted(len(judgements), 'budget')}"]
    others = [answer for answer in get_args(GateAnswer) if counts[answer] and answer != worst]
    parts += [f"{counts[answer]} {_SHOWN[answer].others}" for answer in others]
    lines = [f"{_SHOWN[worst].word}: {', '.join(parts)}.{_SHOWN[worst].advice}", ""]
    shown = sorted((j for j in judgements if j.answer == worst and worst != "pass"), key=margin_of)
    lines += _aligned([row_words(judgement) for judgement in shown[:_ROWS]])
    if len(shown) > _ROWS:
        lines.append(f"  and {len(shown) - _ROWS} more")
    if shown:
        why = Counter(_why(judgement) for judgement in shown)
        lines += ["", *(f"  {reason}" for reason, _ in why.most_common(2))]
    if worst == "pass":
        lines += _would_have_failed(judgements)
    lines += [f"  {clean(note, 160)}" for note in notes[:_ROWS]]
    lines.append("  More: --all (every budget, with its evidence)")
    return "\n".join(lines) + "\n"


def _would_have_failed(judgements: Sequence[Judgement]) -> list[str]:
    """What a gate that passed would not have passed, by the budget that is blindest; empty where none is known."""
    known = [j for j in judgements if j.fails_from_ratio is not None]
    if not known:
        return []
    blindest = max(known, key=lambda j: j.fails_from_ratio or 0.0)
    figure = FIGURES[blindest.budget.metric]
    worse = figure.words[not figure.higher_is_better]
    said = f"{figure.title} {blindest.fails_from_ratio:.0%} {worse}"
    all_or_blindest = "" if len(known) == 1 else ", the others less"
    return [f"  It would have failed: {said}{all_or_blindest}."]


def _why(judgement: Judgement) -> str:
    """What is missing, or what would settle it; of a limit that is broken nothing is to be said."""
    if judgement.value is None:
        return clean(judgement.reason, 140)
    if judgement.settles:
        return f"To settle it: {judgement.settles}."
    return "To be sure: edge-harness gate live."


def margin_of(judgement: Judgement) -> float:
    """How far inside its limit a figure lies, to order judgements by; 0 without a figure."""
    return judgement.margin_ratio or 0.0


def row_words(judgement: Judgement) -> tuple[str, str, str, str]:
    """How much, whose, which figure, and the interval; the reason in place of a figure that is not there."""
    budget = judgement.budget
    quant = str(budget.pin.get("quant", ""))
    whose = clean(budget.model if budget.model.endswith(quant) else f"{budget.model} {quant}", 34)
    depth = budget.pin.get("depth_tokens", 0)
    what = FIGURES[budget.metric].title + (f", after {depth:,} tokens" if depth else "")
    if judgement.value is None:
        return "not measured", whose, what, ""
    how_much = judgement.change.partition(" than ")[0] or f"{abs(margin_of(judgement)):.0%} outside"
    number, percent, words = how_much.partition("%")
    if percent:
        how_much = f"{float(number):.0f} %{words}"
    if judgement.relative_to and judgement.low is not None and judgement.high is not None:
        ends = sorted((judgement.low - 1.0, judgement.high - 1.0), key=abs)
        percent_of = 100 if judgement.value > 1.0 else -100
        return how_much, whose, what, f"{percent_of * ends[0]:.0f} to {percent_of * ends[1]:.0f} %"
    return how_much, whose, what, f"{_quantity(judgement.value, judgement)}, {_limit(judgement)}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "   ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def terminal(judgements: Sequence[Judgement]) -> str:
    """One block a budget: answer, limit, value, what could have been seen, reason and evidence."""
    blocks = []
    for j in judgements:
        seen = counted(j.sample_count, "sample")
        if j.budget.predicted:
            seen = "predicted"
        lines = [
            f"{j.answer.upper():>13}  {_title(j.budget)}",
            f"{'limit':>13}  {_limit(j)}",
            f"{'value':>13}  {_interval(j)}, {seen}",
        ]
        if j.detectable_ratio is not None:
            lines.append(f"{'finds':>13}  a change of {j.detectable_ratio:.1%} or more in 95 of 100 gates")
        if j.fails_from_ratio is not None:
            lines.append(
                f"{'fails from':>13}  {j.fails_from_ratio:.1%} worse than it was, by these very runs"
            )
        lines.append(f"{'because':>13}  {j.reason}")
        lines += [f"{'evidence':>13}  {e}" for e in j.evidence[:8]]
        if len(j.evidence) > 8:
            lines.append(f"{'':>13}  ... and {len(j.evidence) - 8} more")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def markdown(judgements: Sequence[Judgement]) -> str:
    """A table for a pull request's comment, and a line of reason for each budget that did not pass."""
    lines = [
        "| budget | limit | value [interval] | samples | smallest change found | answer |",
        "|---|---|---|---|---|---|",
    ]
    for j in judgements:
        seen = "-"
        if j.detectable_ratio is not None:
            seen = f"{j.detectable_ratio:.1%}"
        cells = (
            _title(j.budget),
            _limit(j),
            _interval(j),
            str(j.sample_count),
            seen,
            _SHOWN[j.answer].sign,
        )
        lines.append("| " + " | ".join(escape(c) for c in cells) + " |")
    reasons = [
        f"- **{escape(_title(j.budget))}**: {escape(j.reason)}" for j in judgements if j.answer != "pass"
    ]
    return "\n".join([*lines, *(["", *reasons] if reasons else [])]) + "\n"


def github(judgements: Sequence[Judgement]) -> str:
    """Workflow annotations, one a budget; data is escaped so that no text can begin another command."""
    data = str.maketrans(_DATA)
    field = str.maketrans(_FIELD)
    lines = []
    for j in judgements:
        place = ""
        if j.file:
            place = f"file={j.file.translate(field)},line={j.line},"
        head = f"::{_SHOWN[j.answer].level} {place}title={_title(j.budget).translate(field)}"
        text = f"{j.answer}: {_message(j)}".translate(data)
        lines.append(f"{head}::{text}\n")
    return "".join(lines)


def junit(judgements: Sequence[Judgement]) -> str:
    """One suite of JUnit XML: a broken budget is a failure, an inconclusive one skipped, a run not made an error."""
    counts = Counter(j.answer for j in judgements)
    suites = ET.Element("testsuites")
    suite = ET.SubElement(
        suites,
        "testsuite",
        name="edge-harness gate",
        tests=str(len(judgements)),
        failures=str(counts["fail"]),
        errors=str(counts["could not run"]),
        skipped=str(counts["inconclusive"]),
        time="0",
    )
    for j in judgements:
        case = ET.SubElement(
            suite, "testcase", classname="edge_harness.gate", name=_title(j.budget), time="0"
        )
        if j.file:
            case.set("file", j.file)
            case.set("line", str(j.line))
        message = _message(j)
        if name := _SHOWN[j.answer].element:
            element = ET.SubElement(case, name, message=message)
            if j.answer != "inconclusive":
                element.set("type", j.budget.metric)
            element.text = "\n".join(j.evidence)
        else:
            ET.SubElement(case, "system-out").text = message
    ET.indent(suites)
    text = _NOT_XML.sub("", ET.tostring(suites, encoding="unicode"))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def badge(judgements: Sequence[Judgement]) -> str:
    """A small picture (SVG) of the worst answer, and of how many budgets passed."""
    answers = [j.answer for j in judgements]
    worst = worst_of(answers)
    right = f"{worst}: {answers.count('pass')} of {len(answers)} budgets kept"
    width = 82 + 7 * len(right)
    picture = shipped_text("data/badge.svg")
    return picture.format(width=width, rest=width - 80, colour=_SHOWN[worst].colour, words=right)


def _title(budget: Budget) -> str:
    """What a budget is about: ``decode_tokens_per_s tg128, smollm2-135m on raspberry-pi-5``."""
    label = f" {budget.label}".rstrip()
    what = ""
    if budget.workload != "generate":
        what = f"{budget.workload}: "
    return clean(f"{what}{budget.metric}{label}, {budget.model} on {budget.device}", 300)


def _quantity(value: float | None, judgement: Judgement) -> str:
    """A value in the judgement's own terms: a unit, or a ratio to what it is relative to."""
    if value is None:
        return "-"
    if judgement.relative_to:
        return f"{value:.3f} x {judgement.relative_to}"
    unit = FIGURES[judgement.budget.metric].unit
    return format_amount(unit, value, f"{value:.4g} {unit}")


def _limit(judgement: Judgement) -> str:
    """The limit with its direction: ``at least 0.970 x baseline``."""
    side = "at most"
    if FIGURES[judgement.budget.metric].higher_is_better:
        side = "at least"
    return f"{side} {_quantity(judgement.limit, judgement)}"


def _interval(judgement: Judgement) -> str:
    value = judgement.value
    low = judgement.low
    high = judgement.high
    if value is None or low is None or high is None:
        return _quantity(value, judgement)
    if judgement.relative_to:
        return f"{value:.3f} [{low:.3f} .. {high:.3f}] x {judgement.relative_to}"
    return f"{_quantity(value, judgement)} [{_quantity(low, judgement)} .. {_quantity(high, judgement)}]"


def _message(judgement: Judgement) -> str:
    return f"{_interval(judgement)}; limit: {_limit(judgement)}; {judgement.reason}"
