"""Quantisations by contexts, as the table that people post: what stays whole in memory at which context, and how fast."""

from collections.abc import Sequence

from harness.answer.answer import Answer
from harness.show.first_screen import UNSURE_RATIO, device_name, each, model_name, two
from harness.show.output import screen_width, table
from harness.show.tiles import room_words

_FIRST_COLUMNS = 22
"""Columns of the screen that the type and its loss take."""
Row = tuple[str, Sequence[Answer | None]]
"""A quantisation and its answers, one for each context."""


def grid_lines(rows: Sequence[Row]) -> list[str]:
    """The finding, the table and what its words mean."""
    answers = [one for _, cells in rows for one in cells if one]
    first = answers[0]
    heads = [_context(column) for column in zip(*(cells for _, cells in rows), strict=True)]
    losses = [_loss(quant, cells) for quant, cells in rows]
    ranged = [[_cell(one) for one in cells] for _, cells in rows]
    if (
        sum(max(map(len, column)) + 2 for column in zip(heads, *ranged, strict=True)) + _FIRST_COLUMNS
        > screen_width()
    ):
        ranged = [[_cell(one, with_range=False) for one in cells] for _, cells in rows]
    body = [[quant, loss, *cells] for (quant, _), loss, cells in zip(rows, losses, ranged, strict=True)]
    return [
        f"{model_name(first)} on {device_name(first)}. {types_finding(rows)}.",
        "",
        table("", ["type", "loses", *heads], body),
        "  Tokens/s. Split: card and RAM. Tight: one machine in five lacks the room. Loses: growth of perplexity.",
    ]


def types_finding(rows: Sequence[Row]) -> str:
    """The finest type that stays whole in memory at each context, as a sentence; the first row is the finest."""
    said: list[tuple[str, str]] = []
    contexts = [_context(column) for column in zip(*(cells for _, cells in rows), strict=True)]
    for at, context in enumerate(contexts):
        for quant, cells in sorted(rows, key=lambda row: -_bits(row[1])):
            one = cells[at]
            if one is not None and one.runs and one.best.kind.is_whole and one.best.has_room:
                said.append((quant, context))
                break
    if not said:
        return "None of these stays whole in memory with room to spare"
    parts = []
    for place, (quant, context) in enumerate(said):
        if place + 1 < len(said) and said[place + 1][0] == quant:
            continue  # said once, with the longest context that it holds
        parts.append(f"{quant} up to {context}")
    return f"Finest that stays whole in memory: {', '.join(parts)}"


def _bits(cells: Sequence[Answer | None]) -> float:
    """Size of a type: bytes of its weights in the first answer there is."""
    return next((one.prediction.speed.active_bytes for one in cells if one), 0)


def _context(column: Sequence[Answer | None]) -> str:
    return next((f"{one.scenario.context_tokens:,}" for one in column if one), "")


def _loss(quant: str, cells: Sequence[Answer | None]) -> str:
    loss = next((one.perplexity_percent.get(quant) for one in cells if one), None)
    return "" if loss is None else f"{loss:.2g} %"


def _cell(one: Answer | None, *, with_range: bool = True) -> str:
    """Speed, its range where there is room for it, and what to mind."""
    if one is None:
        return "cannot be asked"
    if not one.runs:
        return "no"
    speed = each(one)
    between = f"{two(speed.low)} to {two(speed.high)}"
    figure = f"{two(speed.mid)} ({between})" if with_range else two(speed.mid)
    if speed.high > UNSURE_RATIO * speed.low:
        figure = between
    word = room_words(one)[0]
    return figure if word == "fits" else f"{figure} {word}"
