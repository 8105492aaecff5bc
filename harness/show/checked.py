"""What a check showed: its first screen, at most fourteen lines of eighty columns."""

import textwrap
from collections.abc import Sequence
from typing import Final

from harness.core.printable import clean
from harness.core.record import Record
from harness.show import words
from harness.show.drawing import Axis
from harness.show.pages import TILES, headline_of, note_of
from harness.show.state import ShownMetric, State, figures_of

WIDTH: Final = 78
_BAR: Final = 12
_MARKS: Final = {State.EDGE: "○", State.OUTSIDE: "◆", State.DISTURBED: "?", State.IMPOSSIBLE: "!"}
_MOST_RUNS: Final = 9


def screen(records: Sequence[Record]) -> list[str]:
    """Of one run the sentence, and each figure beside its prediction; of several a line each."""
    if len(records) == 1:
        return _one(records[0])
    settings = words.setting_words(records)
    lines = []
    for record, setting in zip(records[:_MOST_RUNS], settings, strict=False):
        speed = figures_of(record)["decode"]
        name = ", ".join(filter(None, (f"{words.model_words(record)} {record.quant}".strip(), setting)))
        if record.outcome == "ok":
            outcome = _word(speed)
        else:
            outcome = record.outcome
        said = clean(f"{outcome}: {name}", WIDTH - 32)
        lines.append(f"  {speed.shown:>14}  {bar(speed)}  {said}")
    if len(records) > _MOST_RUNS:
        lines.append(f"  and {len(records) - _MOST_RUNS} more")
    return lines


def _one(record: Record) -> list[str]:
    figures = figures_of(record)
    headline = headline_of(record, figures["decode"])
    said = " ".join(
        filter(None, (headline.before, headline.number, headline.unit, headline.after + headline.verdict))
    )
    note = note_of(record, figures)
    said = said.rstrip(".") + "."
    if note and note.state is State.OUTSIDE:
        said += f" {note.title}."
    lines = textwrap.wrap(said, WIDTH)
    if not headline.number:
        lines += textwrap.wrap(headline.feel, WIDTH)
    shown = [(title.lower(), figures[name]) for name, title in TILES]
    rows = [(title, figure) for title, figure in shown if figure.state is not State.NONE]
    if rows:
        lines += ["", f"{'':12}{'measured':14}{'90 % interval':15}0{'':{_BAR}}"]
    for title, figure in rows:
        lines.append(
            f"  {title:10}{figure.shown:14}{figure.between or 'not predicted':15} {bar(figure)}  {_word(figure)}"
        )
    if note and note.state is State.DISTURBED:
        lines += ["", *(f"  {line}" for line in textwrap.wrap(f"{note.title}. {note.text}", WIDTH - 2))]
    return lines


def _word(figure: ShownMetric) -> str:
    """The state; in capitals where it is seen without colour that something is off."""
    return "OUTSIDE, " * (figure.state is State.OUTSIDE) + figure.word


def bar(figure: ShownMetric) -> str:
    """The interval and the measured figure on a line from 0, in characters: ``····━━●━━···``."""
    values = [figure.measured or 0.0]
    if figure.predicted:
        values.append(figure.predicted.high)
    axis = Axis.from_zero(values)

    def place(value: float) -> int:
        return min(int(axis.at(value) / 100 * _BAR + 1e-3), _BAR - 1)  # places are rounded to a hundredth

    signs = ["·"] * _BAR
    if figure.predicted:
        for index in range(place(figure.predicted.low), place(figure.predicted.high) + 1):
            signs[index] = "━"
    if figure.measured is not None:
        signs[place(figure.measured)] = _MARKS.get(figure.state, "●")
    return "".join(signs)
