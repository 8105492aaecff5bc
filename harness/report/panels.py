"""Sections of a report that installed packages make of records: a table of rows, and facts beside it."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from harness import plugins
from harness.domain.record import RunRecord
from harness.printable import clean
from harness.units import format_bytes, format_rate, format_seconds

GROUP = "edge_harness.panels"
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
    offers = plugins.every(GROUP)
    found = [_cleaned(panel) for offer in offers for record in records if (panel := offer(record)) is not None]
    found.sort(key=lambda panel: panel.title)
    return [(title, list(group)) for title, group in groupby(found, key=lambda panel: panel.title)]


def _cleaned(panel: Panel) -> Panel:
    return Panel(
        clean(panel.title, _LONGEST),
        clean(panel.label, _LONGEST),
        clean(panel.outcome, _LONGEST),
        [clean(text, _LONGEST) for text in panel.columns],
        [[clean(text, _LONGEST) for text in row] for row in panel.rows[:_MOST_ROWS]],
        [(clean(name, _LONGEST), clean(value, _LONGEST)) for name, value in panel.facts[:_MOST_ROWS]],
    )


def flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    """Nested results as lines of text, in the unit that the name ends in; lists of many or of tables are left out."""
    if isinstance(value, dict):
        return [line for k, v in value.items() for line in flat(f"{prefix}.{k}" if prefix else str(k), v)]
    listed = value if isinstance(value, list | tuple) else ()
    if value in (None, "", [], ()) or len(listed) > 8 or any(isinstance(part, dict) for part in listed):
        return []
    if isinstance(value, bool):
        return [(prefix, "yes" if value else "no")]
    if isinstance(value, int | float):
        return [(prefix, _in_unit(prefix, value))]
    return [(prefix, str(value))]


def _in_unit(name: str, value: float) -> str:
    if name.endswith("_bytes_per_s"):
        return format_rate(value)
    if name.endswith("_bytes"):
        return format_bytes(value)
    if name.endswith("_s") and not name.endswith("_per_s"):
        return format_seconds(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
