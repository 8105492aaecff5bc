"""Sections of a report with a table for each record: results of a kind, and what installed packages make."""

import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from harness import plugins
from harness.domain.record import RunRecord
from harness.printable import clean
from harness.report.results import result_tables

GROUP = "edge_harness.panels"
_TITLES: Final = {
    "speculation": "Speculation",
    "stream": "Streaming",
    "soak": "Speed over minutes",
    "load": "Load on a server",
    "levels": "Load on a server, by level",
}
_LONGEST = 200
_MOST_ROWS = 200


class Panel(NamedTuple):
    """One record in a section.

    Attributes:
        title: The section's; panels of one title stand in one table, and have the same columns.
        label: What the record is of.
        outcome: How it ended.
        columns: Headings.
        rows: Cells as text.
        facts: Names and values beside the table.
    """

    title: str
    label: str
    outcome: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    facts: Sequence[tuple[str, str]] = ()


def sections(records: Sequence[RunRecord]) -> list[tuple[str, list[Panel]]]:
    """Panels of all records by title, every text cleaned; each offer is asked of each record."""
    panels = [panel for record in records for panel in _of_result(record)]
    offers = plugins.every(GROUP)
    for offer in offers:
        try:
            offered = [offer(record) for record in records]
        except Exception as error:  # noqa: BLE001 - of a stranger's package: the rest of the report is shown
            warnings.warn(
                f"a section of {offer.__module__} is left out: {type(error).__name__}: {error}", stacklevel=2
            )
            continue
        panels += [panel for panel in offered if panel is not None]
    panels = sorted(map(_cleaned, panels), key=lambda panel: panel.title)
    return [(title, list(group)) for title, group in groupby(panels, key=lambda panel: panel.title)]


def _of_result(record: RunRecord) -> Iterator[Panel]:
    """What the result of a record says, with a column for predictions even where there is none."""
    for kind, title, columns, rows in result_tables(record):
        if kind in _TITLES:
            if kind == "levels":
                heads = columns
            else:
                heads = ("", "measured", "predicted")
            filled = [(*row, *[""] * (len(heads) - len(row))) for row in rows]
            yield Panel(_TITLES[kind], title, record.outcome, heads, filled)


def _cleaned(panel: Panel) -> Panel:
    return Panel(
        clean(panel.title, _LONGEST),
        clean(panel.label, _LONGEST),
        clean(panel.outcome, _LONGEST),
        [clean(text, _LONGEST) for text in panel.columns],
        [[clean(text, _LONGEST) for text in row] for row in panel.rows[:_MOST_ROWS]],
        [(clean(name, _LONGEST), clean(value, _LONGEST)) for name, value in panel.facts[:_MOST_ROWS]],
    )
