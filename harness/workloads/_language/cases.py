"""Which cases an evaluation runs, for how long, and how far it is."""

import random
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Final, TypeVar

from harness.ports import WorkloadContext

_SAY_EACH_S: Final = 15.0

Case = TypeVar("Case")


def drawn(
    rows: Sequence[Case], context: WorkloadContext, usual: int, *, by: Callable[[Case], object] = lambda _: 0
) -> list[Case]:
    """A sample of the rows, drawn by the seed, in an order of its own: ``usual`` of them, or as many as are asked for.

    Each stratum (rows that ``by`` gives one value) has the share of the sample that it has of all rows, to one row.
    """
    count = usual if context.cases is None else context.cases or len(rows)
    rng = random.Random(f"cases {context.seed}")
    strata: dict[object, list[Case]] = {}
    for row in rng.sample(list(rows), len(rows)):
        strata.setdefault(by(row), []).append(row)
    # Row n of a stratum of m stands at (n + 1/2) / m: the first rows of that order are a sample in proportion.
    placed = [((n + 0.5) / len(s), at, row) for at, s in enumerate(strata.values()) for n, row in enumerate(s)]
    chosen = [row for _, _, row in sorted(placed, key=lambda p: p[:2])[:count]]
    return rng.sample(chosen, len(chosen))


def watched(rows: Sequence[Case], context: WorkloadContext, title: str) -> Iterator[Case]:
    """The rows while there is time for one more, two at least; says from time to time how far it is."""
    start = said = perf_counter()
    for done, row in enumerate(rows):
        now = perf_counter()
        if done > 1 and now + (now - start) / done > context.until_s:
            context.say(f"{title}: the time is up after {done} of {len(rows)}")
            return
        if done and now - said > _SAY_EACH_S:
            left_s = (now - start) / done * (len(rows) - done)
            context.say(f"{title}: {done} of {len(rows)}, about {left_s:.0f} s left")
            said = now
        yield row
    context.say(f"{title}: {len(rows)} in {perf_counter() - start:.0f} s")
