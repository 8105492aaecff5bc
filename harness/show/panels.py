"""What a page is made of: sections of tables and pictures; installed packages offer some for each record."""

import warnings
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from harness.core import plugins
from harness.core.printable import clean
from harness.core.record import Record
from harness.show.drawing import Drawing
from harness.show.state import ShownMetric, State

GROUP = "edge_harness.panels"
_LONGEST = 200
_MOST_ROWS = 200


Pictures = tuple[str, Sequence[tuple[str, Drawing]]]
"""Small pictures of one title, each below its text."""


class Panel(NamedTuple):
    """A table, with what stands above and below it.

    Attributes:
        title: What folds it: panels of one title stand together.
        label: What it is of.
        outcome: How it ended.
        columns: Headings.
        rows: Cells: text, or what :mod:`harness.show.drawing` made.
        facts: Names and values below the table.
        kind: Class of the table.
        picture: Above the table.
        pictures: Small ones side by side, each with its title, and below that texts above drawings.
    """

    title: str
    label: str = ""
    outcome: str = "ok"
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    facts: Sequence[tuple[str, str]] = ()
    kind: str = ""
    picture: Drawing = Drawing()
    pictures: Sequence[Pictures] = ()


class Section(NamedTuple):
    """A heading, what leads to its panels, those, those that are folded, and what explains them.

    ``opened`` are the titles of folds that are open; a section that is half as wide stands beside the next.
    """

    key: str
    heading: str
    lead: str = ""
    panels: Sequence[Panel] = ()
    folds: Sequence[Panel] = ()
    opened: Sequence[str] = ()
    note: str = ""
    is_half: bool = False

    @property
    def folded(self) -> list[tuple[str, list[Panel]]]:
        """Panels by what folds them."""
        return [(title, list(group)) for title, group in groupby(self.folds, key=lambda panel: panel.title)]


class Headline(NamedTuple):
    """The first sentence: what leads to the figure, the figure, what follows; the verdict stands out."""

    before: str = ""
    number: str = ""
    unit: str = ""
    after: str = ""
    verdict: str = ""
    feel: str = ""


class Note(NamedTuple):
    """The one box: what was not as predicted (outside), or what was left out (disturbed)."""

    state: State
    title: str
    text: str


class Page(NamedTuple):
    """Everything that a template shows; what is empty is left out.

    Attributes:
        counts: Of a gate, how many budgets came to what.
        tiles: Of each its title, figure, what it is of, and its picture.
    """

    kind: str
    title: str
    subject: str
    place: str
    headline: Headline
    created: str = ""
    note: Note | None = None
    counts: Sequence[tuple[Drawing, int]] = ()
    tiles: Sequence[tuple[str, ShownMetric, str, Drawing]] = ()
    sections: Sequence[Section] = ()


def offered(records: Iterable[Record]) -> list[Panel]:
    """What installed packages make of records."""
    panels: list[Panel] = []
    records = list(records)
    for offer in plugins.every(GROUP):
        try:
            panels += [cleaned(panel) for panel in map(offer, records) if panel is not None]
        except Exception as error:  # noqa: BLE001 - of a stranger's package: the rest of the report is shown
            where = getattr(offer, "__module__", type(offer).__name__)
            warnings.warn(f"a section of {where} is left out: {type(error).__name__}: {error}", stacklevel=2)
    return panels


def cleaned(panel: Panel) -> Panel:
    """The same without characters that nobody sees, and without an end to its rows."""
    return Panel(
        clean(panel.title, _LONGEST),
        clean(panel.label, _LONGEST),
        clean(panel.outcome, _LONGEST),
        [clean(text, _LONGEST) for text in panel.columns],
        [[clean(text, _LONGEST) for text in row] for row in panel.rows[:_MOST_ROWS]],
        [(clean(name, _LONGEST), clean(value, _LONGEST)) for name, value in panel.facts[:_MOST_ROWS]],
    )
