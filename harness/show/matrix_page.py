"""The page of many models on many devices, or of one model in several quantisations and contexts."""

from collections.abc import Sequence
from typing import NamedTuple

from harness.answer.answer import Answer
from harness.core.prediction import Interval
from harness.show.drawing import Drawing, cell
from harness.show.first_screen import READ_TOKENS_PER_S, between_s, each, of_sizes, two
from harness.show.panels import Panel, Section
from harness.show.tiles import room_words

PACES = {0.0: "hardly", 1.0: "slow", 5.0: "as you read", 15.0: "fast", 50.0: "at once"}
"""What a speed from so many tokens/s on means to somebody who reads along."""
_SLOWEST_RATE = 0.5
"""Tokens/s below which seconds a token are said."""
_NOTE = (
    "At once: 50 tokens/s and more. Fast: 15 to 50. As you read: 5 to 15. Slow: 1 to 5. Hardly: under 1. Each cell: the "
    "word, the likeliest speed, its range (90 %). Unsure: the range spans three words or more. Split: card and RAM. Tight: "
    "one machine in five lacks the room. From storage: weights are read while it writes."
)


class Grid(NamedTuple):
    """Answers by row and column.

    Attributes:
        columns: Title and detail of each column.
        rows: Title and detail of each row, and its answers in the order of the columns; None where the question
            cannot be asked.
    """

    columns: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, str, Sequence[Answer | None]]]


def pace_of(speed: Interval) -> tuple[int, str]:
    """Step (1 to 5) and word of a speed, by its likeliest value as it is printed; ``unsure`` over three words."""
    steps = [sum(_printed(value) >= least for least in PACES) for value in (speed.low, speed.mid, speed.high)]
    word = "unsure" if steps[2] - steps[0] > 1 else list(PACES.values())[steps[1] - 1]
    return steps[1], word


def _printed(value: float) -> float:
    return float(f"{value:.2g}")


def grid_section(key: str, grid: Grid, heading: str, lead: str, corner: str) -> Section:
    """A grid as a table of coloured cells; below it the largest row that writes as fast as you read, from memory."""
    columns = [cell(corner), *(cell(title, small=detail) for title, detail in grid.columns)]
    rows = []
    for title, detail, answers in grid.rows:
        rows.append([cell(title, small=detail), *map(_cell, answers)])
    return Section(key, heading, lead, [Panel("", columns=columns, rows=rows, kind="heat")], note=_NOTE)


def _cell(one: Answer | None) -> Drawing:
    if one is None:
        return cell(Drawing("<b>no</b>cannot be run so"), "h0")
    verdict = one.prediction.verdict
    if not one.runs:
        return cell(
            Drawing(f"<b>no</b>needs {of_sizes(verdict.needed_bytes, verdict.available_bytes)}"), "h0"
        )
    speed = each(one)
    step, word = pace_of(speed)
    if one.prediction.speed.decode_evidence.is_unmeasured:
        return cell(Drawing("<b>not known</b>"), "h0", "nobody has measured it")
    figure, between = two(speed.mid), f"{two(speed.low)} to {two(speed.high)}"
    if speed.mid < _SLOWEST_RATE:
        slow = speed.through(lambda rate: 1 / rate)
        figure, between = f"{two(slow.mid)} s a token", between_s(slow)
    how = room_words(one)[0]
    return cell(
        Drawing(f"{word}<strong>{figure}</strong>{between}"), f"h{step}", "" if how == "fits" else how
    )


def grid_finding(grid: Grid) -> str:
    """What a grid shows: the column where most rows stop, the threshold of a single column, or a count."""
    total = sum(one is not None for _, _, answers in grid.rows for one in answers)
    readable = sum(_is_readable(one) for _, _, answers in grid.rows for one in answers)
    best = None
    for at, (title, _) in enumerate(grid.columns):
        whole = [row[0] for row in grid.rows if _is_whole(row[2][at])]
        if whole and len(whole) < len(grid.rows):
            best = (title, whole[-1], len(whole))
    if readable in {0, total}:
        return f"{'All' if readable else 'None'} of {total} pairs write as fast as you read"
    said = f"{readable} of {total} pairs write as fast as you read"
    if best is not None:
        return f"{best[0]} holds up to {best[1]} whole; {said}"
    return said


def largest_per_column(grid: Grid) -> list[str]:
    """The last row of each column that writes as fast as you read with all of it in memory."""
    found = []
    for at in range(len(grid.columns)):
        names = [
            f"{title} {detail}".strip()
            for title, detail, answers in grid.rows
            if _is_readable(answers[at], whole=True)
        ]
        found.append(names[-1] if names else "none of these")
    return found


def _is_whole(one: Answer | None) -> bool:
    return one is not None and one.runs and one.best.kind.is_whole


def _is_readable(one: Answer | None, *, whole: bool = False) -> bool:
    if one is None or not one.runs or (whole and one.best.kind.is_read):
        return False
    return _printed(each(one).mid) >= round(READ_TOKENS_PER_S)
