"""What a figure of a report is."""

from typing import NamedTuple


class Figure(NamedTuple):
    """One figure.

    Attributes:
        note: What to see in it.
    """

    key: str
    title: str
    note: str
    svg: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
