"""Tiles and rows of a predicted answer: figure, range, picture, and how well it is known."""

from collections.abc import Sequence
from typing import NamedTuple

from harness.answer.answer import Answer, ReadingKind
from harness.answer.variations import spare_bytes
from harness.core.prediction import Basis, Evidence, Interval
from harness.core.units import GIB
from harness.core.way import WayKind
from harness.show import drawing
from harness.show.drawing import Axis, Drawing, cell
from harness.show.first_screen import (
    READ_TOKENS_PER_S,
    UNKNOWN_RATIO,
    UNSURE_RATIO,
    between_s,
    each,
    of_sizes,
    seconds,
    sizes,
    two,
)

_ROW_HEIGHT = 44
SPEED_NOTE = (
    "Tokens a second; equal distances are equal factors. The bar is the range in which nine of ten measurements "
    "should lie, the line in it the likeliest. Dashed: about as fast as you read."
)


class Tile(NamedTuple):
    """One quantity of an answer.

    Attributes:
        word: How it is known, or what to mind: ``predicted``, ``unsure``, ``tight``, ``not known``.
        figure: The likeliest value; the range where that is unsure.
        of: What the figure is of.
        foot: The range, and on how many runs it rests.
    """

    title: str
    word: str
    figure: str
    unit: str
    of: str
    picture: Drawing
    foot: str


def tiles_of(one: Answer) -> list[Tile]:
    """Writes, Starts, Memory, Loads: always these four."""
    speed = one.prediction.speed
    writes = each(one)
    deep = one.by_depth[-1] if one.by_depth else None
    of = "one answer at a time" if one.scenario.batch_count == 1 else "for each user"
    if one.reads_only:
        of = "text that it reads"
    elif deep is not None:
        of += f"; {two(deep.decode_tokens_per_s.mid / one.scenario.batch_count)} when the context is full"
    first = f"to the first word after {one.scenario.prompt_tokens:,} tokens"
    for reading in one.reading:
        if reading.kind is ReadingKind.DOCUMENT and reading.seconds.mid > 2 * speed.ttft_warm_s.mid:
            first += f"; {between_s(reading.seconds)} after {reading.tokens:,}"
    loads = f"when the file is in memory; {seconds(speed.load_cold_s.mid)} from the disk"
    return [
        _tile("Reads" if one.reads_only else "Writes", writes, "tokens/s", of, speed.decode_evidence),
        _tile("Starts", speed.ttft_warm_s, "s", first, speed.prefill_evidence),
        _memory_tile(one),
        _tile("Loads", speed.load_warm_s, "s", loads, None),
    ]


def _tile(title: str, value: Interval, unit: str, of: str, evidence: Evidence | None) -> Tile:
    is_time = unit == "s"
    between = between_s(value) if is_time else f"{two(value.low)} to {two(value.high)} {unit}"
    word = "predicted"
    figure = two(value.mid)
    if is_time:
        figure, _, unit = seconds(value.mid).partition(" ")
    if evidence is not None and evidence.is_unmeasured:
        word, figure, unit = "not known", "not known", ""
    elif value.low <= 0 or value.high > UNKNOWN_RATIO * value.low:
        word, figure, unit = "not known", between, ""
    elif value.high > UNSURE_RATIO * value.low:
        word, figure, unit = "unsure", between, ""
    axis = Axis.from_zero([value.high])
    foot = f"likely {between}"
    if evidence is not None:
        foot += f" · {evidence_words(evidence)}"
    end = between_s(Interval(axis.high, axis.high, axis.high)).rpartition(" to ")[2] if is_time else ""
    return Tile(
        title, word, figure, unit, of, _bar(title, axis, value, between, end or f"{axis.high:g} {unit}"), foot
    )


def _memory_tile(one: Answer) -> Tile:
    """The memory that binds, with a dashed line at what there is."""
    verdict = one.prediction.verdict
    peak = one.prediction.memory.peak_bytes
    above = (peak.high - peak.mid) / GIB
    needed = verdict.needed_bytes / GIB
    value = Interval(needed, max(needed - (peak.mid - peak.low) / GIB, 0.0), needed + above)
    available = verdict.available_bytes / GIB
    axis = Axis.from_zero([value.high, available])
    word = "predicted"
    if not one.best.fits:
        word = "does not fit"
    elif not one.best.has_room:
        word = "tight"
    between = f"{value.low:.1f} to {value.high:.1f} GiB"
    limit = drawing.rule(axis.at(available), 22, "limit")
    picture = _bar("Memory", axis, value, between, f"{axis.high:g} GiB", limit)
    of = f"of {available:.1f} GiB that one program may use"
    return Tile(
        "Memory", word, f"{needed:.1f}", "GiB", of, picture, f"likely {between} · dashed: what there is"
    )


def _bar(title: str, axis: Axis, value: Interval, between: str, end: str, *more: str) -> Drawing:
    parts = [drawing.bar(100, 8, 6, "track"), drawing.band(axis, value, 11), *more]
    parts += [drawing.label(0, 34, "0"), drawing.label(100, 34, end)]
    return drawing.picture(f"{title}: likely {between}, on an axis from 0 to {end}", 38, parts)


def evidence_words(evidence: Evidence) -> str:
    """On what a prediction rests, in a few words."""
    if evidence.is_unmeasured:
        return "nobody has measured anything like it"
    runs = "1 run" if evidence.count == 1 else f"{evidence.count} runs"
    return {
        Basis.TIMED: "timed on this machine",
        Basis.TAUGHT: f"{runs} of this device",
        Basis.CHIP: f"{runs} of this chip",
        Basis.RELATIVES: f"{runs} of related chips",
        Basis.LAW: "no run near it",
    }[evidence.basis]


def room_words(one: Answer) -> tuple[str, str]:
    """Whether it fits, in a word, and how much is to spare."""
    verdict = one.prediction.verdict
    spare = f"{sizes(abs(spare_bytes(one)))[0]} to spare"
    if not one.runs:
        return "does not fit", f"needs {of_sizes(verdict.needed_bytes, verdict.available_bytes)}"
    if one.best.kind.is_read:
        return "from storage", "read while it writes"
    if one.best.kind in {WayKind.LAYERS, WayKind.EXPERTS}:
        return "split", "card and RAM"
    if one.best.kind is WayKind.CPU:
        return "by the CPU", spare
    return ("fits", spare) if one.best.has_room else ("tight", spare)


def speed_axis(answers: Sequence[Answer]) -> Axis:
    """One axis of factors for the speeds of some answers, with reading speed on it."""
    ends = [READ_TOKENS_PER_S]
    for one in answers:
        if one.runs:
            ends += [each(one).low, each(one).high]
    return Axis.of_factors(ends)


def speed_row(
    name: str, detail: str, one: Answer, axis: Axis, last: str, *, is_own: bool = False
) -> tuple[str, ...]:
    """A row of a speed table: name, range on the axis, likeliest with its range, and a remark."""
    rules = [drawing.rule(axis.at(READ_TOKENS_PER_S), _ROW_HEIGHT, "reading")]
    first = cell(name, "own" if is_own else "", detail)
    word, room = room_words(one)
    if not one.runs:
        blank = drawing.picture(f"{name}: does not fit", _ROW_HEIGHT, [])
        return first, blank, cell("does not fit", "n", room), cell("", "", last)
    value = each(one)
    between = f"{two(value.low)} to {two(value.high)}"
    figure = "unsure" if value.high > UNSURE_RATIO * value.low else two(value.mid)
    if one.prediction.speed.decode_evidence.is_unmeasured:
        figure = "not known"
    says = f"{name}: {figure} tokens/s, likely {between}"
    drawn = drawing.beside(axis, _ROW_HEIGHT, says, value, rules=rules)
    return first, drawn, cell(figure, "n speed", between), cell(word, "", last or room)


def axis_row(axis: Axis) -> tuple[Drawing, Drawing, Drawing, Drawing]:
    """The scale below the rows of a speed table."""
    return Drawing(), drawing.factor_axis(axis), Drawing(), Drawing()
