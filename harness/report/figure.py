"""What a figure of a report is."""

from typing import NamedTuple


class Figure(NamedTuple):
    """One figure.

    Attributes:
        key: Identifier on the page.
        note: What to see in it.
        columns: Head of the table of its numbers.
    """

    key: str
    title: str
    note: str
    svg: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
