"""Pictures as inline SVG: places are shares of the width, so that text keeps its size on any screen.

Colours are classes of the page's style sheet. Nothing here has a style attribute, which the page's policy
forbids.
"""

from collections.abc import Iterable, Sequence
from html import escape
from math import floor, log, log10
from typing import Final, NamedTuple

from harness.core.prediction import Interval
from harness.core.units import format_number
from harness.show.state import ShownMetric, State

_DISC: Final = '<circle r="6"/>'
_SHAPES: Final = {
    State.OUTSIDE: '<path d="M0-7 7 0 0 7-7 0Z"/>',
    State.DISTURBED: '<path d="M-5-5h10v10h-10zM-5 0 0-5M-5 5 5-5M0 5 5 0"/>',
}
_NICE: Final = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_MOST_TICKS: Final = 5


class Drawing(str):
    """SVG or HTML made here, whose texts are escaped: a template shows it as it is, in a cell of that ``kind``."""

    kind = ""

    def __html__(self) -> str:
        """Itself."""
        return self


def cell(text: str, kind: str = "", small: str = "") -> Drawing:
    """A cell of a table, and what stands small below its text."""
    body = text if isinstance(text, Drawing) else escape(text)
    if small:
        body += f"<small>{escape(small)}</small>"
    made = Drawing(body)
    made.kind = kind
    return made


class Axis(NamedTuple):
    """From a value to its place, in per cent of the width; linear from 0, else by factors."""

    low: float
    high: float

    @classmethod
    def from_zero(cls, values: Iterable[float]) -> "Axis":
        """Linear from 0; ends at a round number 1.2 times the largest value or more."""
        largest = 1.2 * (max(values, default=0.0) or 1.0)
        unit = 10.0 ** floor(log10(largest))
        return cls(0.0, next(unit * nice for nice in _NICE if unit * nice >= largest))

    @classmethod
    def of_factors(cls, values: Iterable[float]) -> "Axis":
        """Logarithmic around all values, with some room at both ends."""
        positive = [value for value in values if value > 0] or [1.0]
        return cls(min(positive) / 1.3, max(positive) * 1.3)

    def at(self, value: float) -> float:
        """Place of a value, kept on the axis."""
        share = value / self.high
        if self.low:
            share = log(max(value, self.low) / self.low) / log(self.high / self.low)
        return round(100 * min(max(share, 0.0), 1.0), 2)

    def ticks(self) -> list[float]:
        """Round values for marks of factors, at most five."""
        tens = [10.0**power for power in range(floor(log10(self.low)), floor(log10(self.high)) + 1)]
        inside = [step * ten for ten in tens for step in (1.0, 3.0) if self.low <= step * ten <= self.high]
        if len(inside) <= _MOST_TICKS:
            return inside
        inside = [value for value in inside if value in tens]
        return inside[:: -(-len(inside) // _MOST_TICKS)]


def picture(says: str, height: int, parts: Sequence[str]) -> Drawing:
    """One picture; ``says`` is what a screen reader tells of it."""
    label = escape(says, quote=True)
    body = "".join(parts)
    size = f'width="100%" height="{height}"'
    return Drawing(f'<svg class="draw" {size} role="img" aria-label="{label}">{body}</svg>')


def band(axis: Axis, interval: Interval, y: float, height: float = 14) -> str:
    """An interval with its likeliest value."""
    left = axis.at(interval.low)
    width = max(axis.at(interval.high) - left, 0.4)
    middle = axis.at(interval.mid)
    box = (
        f'<rect class="band" x="{left}%" y="{y - height / 2}" width="{width:.2f}%" height="{height}" rx="3"/>'
    )
    return (
        f'{box}<line class="hair" x1="{middle}%" x2="{middle}%" y1="{y - height / 2}" y2="{y + height / 2}"/>'
    )


def beside(
    axis: Axis,
    height: int,
    says: str,
    predicted: Interval | None = None,
    measured: tuple[float, State] | None = None,
    rules: Sequence[str] = (),
) -> Drawing:
    """An interval on an axis and the mark of what was measured, over some lines."""
    parts = [rule(axis.at(value), height) for value in axis.ticks()]
    parts += rules
    if predicted is not None:
        parts.append(band(axis, predicted, height / 2))
    if measured is not None:
        parts.append(mark(axis.at(measured[0]), height / 2, measured[1]))
    return picture(says, height, parts)


def mark(place: float, y: float, state: State) -> str:
    """The mark of a state at a place in per cent."""
    return f'<svg class="mark {state.name.lower()}" x="{place}%" y="{y}" overflow="visible">{_SHAPES.get(state, _DISC)}</svg>'


def shape(state: State, says: str = "") -> Drawing:
    """The mark of a state in a line of text; ``says`` what no word beside it does."""
    told = f'role="img" aria-label="{escape(says, quote=True)}"' if says else 'aria-hidden="true"'
    box = 'width="14" height="14" viewBox="-8 -8 16 16"'
    return Drawing(f'<svg class="mark {state.name.lower()}" {box} {told}>{_SHAPES.get(state, _DISC)}</svg>')


def stated(state: State, word: str) -> Drawing:
    """The mark of a state and a word: always both."""
    return Drawing(f'<span class="state {state.name.lower()}">{shape(state)}{escape(word)}</span>')


def swatch(kind: str, name: str) -> Drawing:
    """The colour of a part of a bar, and its name."""
    box = f'<svg width="13" height="13" aria-hidden="true"><rect class="{kind}" width="13" height="13" rx="3"/></svg>'
    return Drawing(f"{box} {escape(name)}")


def rule(place: float, height: float, kind: str = "grid") -> str:
    """A vertical line."""
    return f'<line class="{kind}" x1="{place}%" x2="{place}%" y1="0" y2="{height}"/>'


def label(place: float, y: float, text: str, kind: str = "") -> str:
    """Text that stays inside the picture: its anchor is the side of it that is nearer to the edge."""
    anchor = "middle"
    if place < 12:
        anchor = "start"
    elif place > 88:
        anchor = "end"
    return f'<text class="{kind}" x="{place}%" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def bar(share: float, y: float, height: float, kind: str, start: float = 0.0) -> str:
    """A filled part of the width, both in per cent."""
    return f'<rect class="{kind}" x="{start:.2f}%" y="{y}" width="{max(share, 0.0):.2f}%" height="{height}" rx="2"/>'


def bullet(figure: ShownMetric, says: str) -> Drawing:
    """A measured figure on its predicted interval, from 0; the end of the axis stands below."""
    divisor = figure.divisor
    measured = (figure.measured or 0.0) / divisor
    predicted = figure.predicted.through(lambda value: value / divisor) if figure.predicted else None
    axis = Axis.from_zero([measured, predicted.high if predicted else 0.0])
    parts = [bar(100, 8, 6, "track")]
    if predicted is not None:
        parts.append(band(axis, predicted, 11))
    if figure.measured is not None:
        parts.append(mark(axis.at(measured), 11, figure.state))
    end = f"{format_number(axis.high)} {figure.unit_word}"
    return picture(says, 36, [*parts, label(0, 34, "0"), label(100, 34, end)])


def factor_axis(axis: Axis) -> Drawing:
    """The scale below rows of speeds."""
    ticks = [label(axis.at(value), 14, format_number(value)) for value in axis.ticks()]
    return picture("Scale: tokens a second", 18, ticks)


def stack(parts: Sequence[tuple[str, float, str]], says: str) -> Drawing:
    """Parts of a whole side by side, with a gap between them; each is a name, a size and a class."""
    whole = sum(size for _, size, _ in parts)
    drawn = []
    start = 0.0
    for _, size, kind in parts:
        share = 100 * size / whole
        drawn.append(bar(share - 0.3, 0, 34, kind, start))
        start += share
    return picture(says, 34, drawn)


def value_bar(share: float, text: str, kind: str) -> Drawing:
    """A bar of at most half of the width, so that its figure has room beside it."""
    width = 50 * share
    figure = f'<text class="value" x="{width:.1f}%" dx="6" y="16">{escape(text)}</text>'
    return picture(text, 22, [bar(width, 3, 16, kind), figure])


def course(values: Sequence[float], at: Sequence[float], ends: tuple[str, str], says: str) -> Drawing:
    """Values from 0, joined, in even steps or where ``at`` says; the first and the last are marked."""
    axis = Axis.from_zero(values)
    steps = at or range(len(values))
    whole = (steps[-1] - steps[0]) or 1
    parts = ['<line class="ground" x1="0" x2="100%" y1="108" y2="108"/>']
    before = ""
    for index, (step, value) in enumerate(zip(steps, values, strict=True)):
        place = round(4 + 92 * (step - steps[0]) / whole, 2)
        y = round(108 - 0.96 * axis.at(value), 1)
        if before:
            parts.append(f'<line class="joined" {before} x2="{place}%" y2="{y}"/>')
        before = f'x1="{place}%" y1="{y}"'
        if index in {0, len(values) - 1}:
            parts += [mark(place, y, State.MEASURED), label(place, y - 10, format_number(value), "value")]
    parts += [label(0, 126, ends[0]), label(100, 126, ends[1])]
    return picture(f"{says}: {', '.join(format_number(value) for value in values)}", 130, parts)
