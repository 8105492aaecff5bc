"""Run a model that is larger than the RAM it may use, on unmodified llama.cpp: block by block.

Of the memory laid over the mapping, most is filled once and kept (pinned); the end of every block is streamed
in slots of one size, of which few exist. When the evaluation callback tells that a block is done, its slots
move (``mremap``, no byte is copied) to places further on, and readers fill them past the page cache while the
engine computes the next blocks. A cyclic scan under LRU would miss always; here every pass reads exactly the
streamed bytes, in large direct reads, evenly spread over the pass.

Slots are huge pages, aligned in memory: a device fills them several times as fast as small ones, and a slot
that moves from one aligned place to another stays huge. Where blocks are too small for that, or nearly all of
them must be streamed, slots are small pages, which readers fill by way of a huge page of their own.

Every pass reads all streamed bytes, also those of experts that no token wants.
"""

import contextlib
import ctypes
from collections import Counter, deque
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from harness.domain.streaming import PAGE_BYTES, StreamPlan
from harness.errors import EngineError, RefusedError
from harness.runtimes.llamacpp.budgeted import BLOCK_MARK, BudgetedSession
from harness.runtimes.llamacpp.laid_memory import BUFFERS_BYTES
from harness.runtimes.llamacpp.session import NAME_OFFSET
from harness.runtimes.llamacpp.stream_plan import Extent, FileLayout, layout_of, plan_split, whole_pages


class StreamedSession(BudgetedSession):
    """A session that streams the end of every block.

    Arguments and errors are those of :class:`BudgetedSession`.
    """

    name = "blocks"
    plan: StreamPlan

    def _read_layout(self, path: Path) -> FileLayout:
        return layout_of(path)

    def _make_plan(self, room_bytes: int) -> bool:
        self.plan = self._plan_for(room_bytes)
        if self.plan.slot_bytes > 0 and self.plan.unit_bytes == PAGE_BYTES:
            # Into small pages a device reads slowly. Where the budget has no room for buffers, slowly it is.
            with contextlib.suppress(RefusedError):
                self.plan = self._plan_for(room_bytes - BUFFERS_BYTES)
                self.through_buffers = True
        return self.plan.slot_bytes > 0

    def _plan_for(self, room_bytes: int) -> StreamPlan:
        mapped = self._layout.mapped
        return plan_split(
            self._layout.blocks,
            sum(e.end - e.start for e in self._layout.others),
            room_bytes,
            mapped_bytes=mapped.end - mapped.start if mapped else 0,
            base=self._memory.base,
        )

    def _place(self) -> None:
        plan = self.plan
        counts = Counter(self.plan.blocks)
        self._counts = [counts[index] for index in range(len(self._layout.blocks))]
        self._firsts = list(accumulate(self._counts, initial=0))  # of each block, among the slots of a pass
        self._starts: list[int] = []
        huge = plan.unit_bytes > PAGE_BYTES
        pieces = list(self._layout.others)
        for block, count in zip(self._layout.blocks, self._counts, strict=True):
            if count:
                end = whole_pages(block, plan.unit_bytes, self._memory.base).end
            else:
                end = block.end
            start = end - count * plan.slot_bytes
            self._starts.append(start)
            if count:
                self._memory.lay(start, end - start, huge=huge)
            pieces += [Extent(block.start, start), Extent(end, block.end)]
        self._memory.pin(pieces, huge=huge)

    def _begin(self) -> None:
        self._finished = 0  # slots that were computed from, of all passes
        self._block = 0
        self._loads: deque[int] = deque()  # not waited for yet
        for number, extent in self._places(0, self.plan.slot_count):
            self._load(number, extent)

    def _places(self, number: int, count: int) -> Iterator[tuple[int, Extent]]:
        """Where so many slots go from that number on, neighbours together: slot n of pass p has number n + p x all."""
        plan = self.plan
        all_count = len(self.plan.blocks)
        while count:
            at = number % all_count
            block = plan.blocks[at]
            # no more at once than lie between where slots come from and where they go to: the two must not
            # overlap
            size = min(count, self._firsts[block + 1] - at, all_count - plan.slot_count)
            start = self._starts[block] + (at - self._firsts[block]) * plan.slot_bytes
            yield number, Extent(start, start + size * plan.slot_bytes)
            number = number + size
            count = count - size

    def _load(self, number: int, extent: Extent) -> None:
        self._loads.append(number)
        self._readers.submit(number, [extent])

    # -- the engine's callback
    # ----------------------------------------------------------------------------------

    def _hook(self, node: int, ask: bool) -> bool:
        if not self._active:
            return not ask
        name = ctypes.string_at(node + NAME_OFFSET, 12)
        if ask:
            if self._starts_pass(name):
                self._block = 0
                self._wait_for_block()
            return name.startswith(BLOCK_MARK)
        block = int(name[len(BLOCK_MARK) :].split(b"\0", 1)[0])
        if block != self._block:
            self._failure = EngineError(f"block {block} finished out of order")
            return False
        if not self._release():
            return False
        self._block += 1
        if self._block < len(self._layout.blocks):
            return self._wait_for_block()
        self._finish_pass()
        return self._failed() is None

    def _wait_for_block(self) -> bool:
        """Wait until what is streamed of the block that comes next is in memory."""
        end = self._finished + self._counts[self._block]
        while self._loads and self._loads[0] < end:
            self.stalls_s[self._block] += self._readers.wait(self._loads.popleft())
        return self._failed() is None

    def _release(self) -> bool:
        """The streamed part of the block was used: its slots go to the next loads."""
        source = self._starts[self._block]
        count = self._counts[self._block]
        for number, extent in self._places(self._finished + self.plan.slot_count, count):
            size = extent.end - extent.start
            if not self._memory.move(source, extent.start, size):
                self._failure = EngineError(f"the system would not move a slot (errno {ctypes.get_errno()})")
                return False
            self._load(number, extent)
            source += size
        self._finished += count
        return True
