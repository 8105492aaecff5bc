"""Which runs were made together: within an hour of each other, on one sitting, or in turns with a baseline.

What differs from hour to hour (other tenants of the host, heat, page cache) differs between sittings and not
within one. So runs of other hours are no repetition of each other: then a sitting counts once, by the mean of
its runs.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import exp
from typing import Final

from harness.core.grouping import grouped
from harness.core.record import Record
from harness.core.stats.runs import Runs, value_of

_BREAK: Final = timedelta(hours=1)
"""Between two runs that are no longer made together."""

Side = Sequence[tuple[Record, Sequence[float]]]
"""Runs with the values of each; no run is without one."""


def time_of(record: Record) -> datetime:
    """When a run was made; UTC where it does not say."""
    made = datetime.fromisoformat(record.created)
    if made.tzinfo:
        return made
    return made.replace(tzinfo=UTC)


def sittings_of(records: Sequence[Record]) -> list[list[Record]]:
    """The runs by the sitting in which they were made, both oldest first."""
    groups: list[list[Record]] = []
    for record in sorted(records, key=time_of):
        if groups and time_of(record) - time_of(groups[-1][-1]) <= _BREAK:
            groups[-1].append(record)
        else:
            groups.append([record])
    return groups


def comparable(new: Side, old: Side) -> tuple[str, Runs, Runs]:
    """What is repeated on both sides (``run`` or ``sitting``), and its values: of the build, of its baseline.

    Runs of the baseline that were made beside the build are compared with it alone. Where there are none each
    sitting is one value, of as many runs as the build's own sittings have, so that the values of both sides
    vary alike.
    """
    sittings = sittings_of([record for record, _ in (*new, *old)])
    number = {id(record): index for index, sitting in enumerate(sittings) for record in sitting}
    own = {number[id(record)] for record, _ in new}
    beside = [values for record, values in old if number[id(record)] in own]
    if beside and len(own) == 1:
        return "run", [values for _, values in new], beside
    by_sitting = [grouped(side, lambda one: number[id(one[0])]).values() for side in (new, old)]
    most = min(map(len, by_sitting[0]))
    sides = [[[exp(value_of([values for _, values in runs[:most]]))] for runs in side] for side in by_sitting]
    return "sitting", sides[0], sides[1]


def alternate(candidate: Sequence[Record], baseline: Sequence[Record]) -> bool:
    """Whether two sides were measured in turns: equally many runs, alternating in time."""
    if len(candidate) != len(baseline) or len(candidate) < 2:
        return False
    made = [(time_of(record), 0) for record in candidate] + [(time_of(record), 1) for record in baseline]
    sides = [side for _, side in sorted(made)]
    return all(sides[i] != sides[i + 1] for i in range(0, len(sides), 2))
