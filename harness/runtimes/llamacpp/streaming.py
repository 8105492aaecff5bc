"""Run a model that is larger than the RAM it may use, on unmodified llama.cpp: block by block.

Of the memory laid over the mapping, most is filled once and kept (pinned), and the same number of bytes at the end of
every block, or of most, is streamed. Few slots of that size exist; when the evaluation callback tells that a block is
done, its slot moves (``mremap``, no byte is copied) to the place of a block further on, and readers fill it past the
page cache while the engine computes the next ones. A cyclic scan under LRU would miss always; here every pass reads
exactly the streamed bytes, in large direct reads, evenly spread over the pass.

Slots are huge pages, aligned in memory: a device fills them several times as fast as small ones, and a slot that moves
from one aligned place to another stays huge. Where blocks are too small for that, or nearly all of them must be
streamed, slots are small pages, which readers fill by way of a huge page of their own.

Every pass reads all streamed bytes, also those of experts that no token wants.
"""

import contextlib
import ctypes
from pathlib import Path

from harness.domain.streaming import PAGE_BYTES, StreamPlan
from harness.errors import EngineError, RefusedError
from harness.runtimes.llamacpp.budgeted import BLOCK_MARK, BudgetedSession
from harness.runtimes.llamacpp.laid_memory import BUFFERS_BYTES
from harness.runtimes.llamacpp.session import NAME_OFFSET
from harness.runtimes.llamacpp.stream_plan import Extent, FileLayout, layout_of, plan_split, whole_pages


class StreamedSession(BudgetedSession):
    """A session that streams the end of every block; arguments and errors are those of :class:`BudgetedSession`."""

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

    def _streamed(self, load: int) -> Extent:
        """Where the load of that number goes: the last pages of its block."""
        block = self.plan.blocks[load % self._count]
        end = whole_pages(self._layout.blocks[block], self.plan.unit_bytes, self._memory.base).end
        return Extent(end - self.plan.slot_bytes, end)

    def _place(self) -> None:
        self._count = len(self.plan.blocks)
        huge = self.plan.unit_bytes > PAGE_BYTES
        streamed = {block: self._streamed(load) for load, block in enumerate(self.plan.blocks)}
        pieces = list(self._layout.others)
        for index, block in enumerate(self._layout.blocks):
            if (part := streamed.get(index)) is None:
                pieces.append(block)
            else:
                self._memory.lay(part.start, part.end - part.start, huge=huge)
                pieces += [Extent(block.start, part.start), Extent(part.end, block.end)]
        self._memory.pin(pieces, huge=huge)

    def _begin(self) -> None:
        self._next_load = 0  # loads go in order: number n % count of the streamed blocks, in pass n // count
        self._finished = 0
        self._block = 0
        for _ in range(self.plan.slot_count):
            self._enqueue()

    def _enqueue(self) -> None:
        number = self._next_load
        self._next_load += 1
        self._readers.submit(number, [self._streamed(number)])

    # -- the engine's callback ----------------------------------------------------------------------------------

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
        if block == self.plan.blocks[self._finished % self._count]:
            self._release()
        self._block += 1
        if self._block < len(self._layout.blocks):
            return self._wait_for_block()
        self._finish_pass()
        return self._failed() is None

    def _wait_for_block(self) -> bool:
        """Wait until what is streamed of the block that comes next is in memory."""
        if self._block == self.plan.blocks[self._finished % self._count]:
            self.stalls_s[self._block] += self._readers.wait(self._finished)
        return self._failed() is None

    def _release(self) -> None:
        """The oldest streamed part was used: its slot goes to the next load."""
        source, target = self._streamed(self._finished).start, self._streamed(self._next_load).start
        self._finished += 1
        if source != target and not self._memory.move(source, target, self.plan.slot_bytes):
            self._failure = EngineError(f"the system would not move a slot (errno {ctypes.get_errno()})")
            return
        self._enqueue()
