"""Which pages hold which experts: slices rarely begin on a page, so neighbours share one.

A page is needed by every resident slice that has bytes in it, and always where a pinned tensor has. It is
read when the first of them comes and given back when the last of them goes; a page that a neighbour has in
use is never read again.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.domain.streaming import PAGE_BYTES
from harness.runtimes.llamacpp.stream_plan import ExpertLayout, Extent, page_range

LEAST_MOVE_BYTES: Final = 16 * PAGE_BYTES
"""Shorter runs are given back and taken anew: a move costs a call, a split mapping and a flush on other
cores."""

MOST_CARRIED_SLICES: Final = 12_288
"""A slice that pages were carried to and from becomes up to five mappings, split where its first and last
pages begin and end, and Linux allows 65530 in a process (vm.max_map_count); past this many slices pages are
given back and taken anew."""

Key = tuple[int, int]
"""An expert: (layer, number)."""


class Move(NamedTuple):
    """Resident pages to carry over."""

    source: int
    target: int
    size: int


class PageChange(NamedTuple):
    """What to do with the laid memory, in this order: pages to carry over, to give back, and to read.

    ``early`` are pages of the tensors that are used first, ``late`` of those that are used last.
    """

    moves: list[Move]
    drops: list[Extent]
    early: list[Extent]
    late: list[Extent]


class ExpertPages:
    """Counts for every page the resident slices in it, in ``users``."""

    def __init__(self, layout: ExpertLayout) -> None:
        self._layers = layout.layers
        self._carries = layout.expert_count * sum(map(len, layout.layers.values())) <= MOST_CARRIED_SLICES
        end = max(s.slice(layout.expert_count).start for stacks in layout.layers.values() for s in stacks)
        self.users: NDArray[np.int32] = np.zeros(-(-end // PAGE_BYTES) + 1, np.int32)
        for extent in layout.rest:
            pages = page_range(extent)
            self.users[pages.start : pages.stop] += 1

    def change(self, goes: Iterable[Key], comes: Sequence[Key]) -> PageChange:
        """Account for experts that go and come, none of which is both.

        Pages that go are carried over to pages that come where both are as many: carrying is cheaper than
        giving back and having the system clear new ones, and pieces of any size would split mappings ever
        further.
        """
        free = self._step(goes, -1)
        # Early ones first: a page that both kinds have bytes in is then read early.
        early = self._step(comes, 1, (False,))
        late = self._step(comes, 1, (True,))
        if not self._carries:
            return PageChange([], free, early, late)
        by_size: defaultdict[int, list[Extent]] = defaultdict(list)
        for run in free:
            by_size[run.end - run.start].append(run)
        moves: list[Move] = []
        for extent in (*early, *late):
            size = extent.end - extent.start
            if size >= LEAST_MOVE_BYTES and by_size[size]:
                moves.append(Move(by_size[size].pop().start, extent.start, size))
        return PageChange(moves, [run for runs in by_size.values() for run in runs], early, late)

    def _step(
        self, experts: Iterable[Key], by: Literal[-1, 1], late: tuple[bool, ...] = (False, True)
    ) -> list[Extent]:
        """One user more or less of the experts' pages in such stacks.

        Runs that nobody had in memory, or needs now.
        """
        runs: list[Extent] = []
        for layer, expert in experts:
            for stack in (s for s in self._layers[layer] if s.late in late):
                pages = page_range(stack.slice(expert))
                part = self.users[pages.start : pages.stop]
                part += by
                runs += _runs(part == max(by, 0), pages.start)
        return runs


def _runs(marks: NDArray[np.bool_], first_page: int) -> list[Extent]:
    """Runs of marked pages, as bytes."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], marks, [False]))))
    return [
        Extent(int(first_page + a) * PAGE_BYTES, int(first_page + b) * PAGE_BYTES)
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]
