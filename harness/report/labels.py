"""Names beside the marks of a crowded plot: each where it covers nothing, or nowhere."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

_CHAR_PX = 6.3
_HEIGHT_PX = 11.0
_MARK_PX = 5.0
_GAP_PX = 7.0


class Named(NamedTuple):
    """A mark with its name, in pixels from the left and from the bottom."""

    x: float
    y: float
    text: str


class _Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: "_Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )


def place(
    marks: Sequence[Named], width: float, height: float, lines: Sequence[Sequence[tuple[float, float]]] = ()
) -> list[tuple[float, float] | None]:
    """Where each name begins (left edge, middle of its height), in pixels; None where there is no free place.

    Right of the mark if it can be, else left, above, below, then the corners; earlier marks choose first, and no name
    covers a mark or a line, or leaves the plot. Greedy: a name may find no place that a better order would have left.

    Args:
        marks: The marks, the most important first.
        width: Of the plot, px.
        height: Of the plot, px.
        lines: Corners of each line in steps, in its order, px: each piece is level or upright.
    """
    taken = [_Box(m.x - _MARK_PX, m.y - _MARK_PX, m.x + _MARK_PX, m.y + _MARK_PX) for m in marks]
    for (x0, y0), (x1, y1) in (piece for line in lines for piece in pairwise(line)):
        taken.append(_Box(min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1) + 1, max(y0, y1) + 1))
    found: list[tuple[float, float] | None] = []
    for mark in marks:
        size = _CHAR_PX * len(mark.text)
        right, left, middle = mark.x + _GAP_PX, mark.x - _GAP_PX - size, mark.x - size / 2
        up, down = mark.y + 1.6 * _GAP_PX, mark.y - 1.6 * _GAP_PX
        choices = (
            *((right, mark.y), (left, mark.y), (middle, up), (middle, down)),
            *((right, up), (left, down), (right, down), (left, up)),
        )
        place = None
        for x, y in choices:
            box = _Box(x, y - _HEIGHT_PX / 2, x + size, y + _HEIGHT_PX / 2)
            inside = box.left >= 0 and box.right <= width and box.bottom >= 0 and box.top <= height
            if inside and not any(box.meets(other) for other in taken):
                taken.append(box)
                place = (x, y)
                break
        found.append(place)
    return found
