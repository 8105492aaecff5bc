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

First what is common to all schedules of what is read when.
The engine opens the mapped file and computes one pass, so that all its buffers are touched and what it holds
beside weights can be read off; the file's pages are given back; a schedule plans what stays in what is left
of the budget, lays memory over the mapping, fills it, and then acts on the engine's evaluation callback.
"""

import contextlib
import ctypes
import sys
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from statistics import harmonic_mean
from typing import ClassVar, Final

from harness.core.errors import EngineError, RefusedError
from harness.core.huge_pages import HUGE_PAGE_BYTES
from harness.core.scenario import Scenario
from harness.core.streaming import PAGE_BYTES, StreamPlan, StreamReport
from harness.core.units import format_bytes
from harness.runtimes.llamacpp.laid_memory import (
    BUFFERS_BYTES,
    LaidMemory,
    ReaderPool,
    anonymous_bytes,
    read_sparsely,
)
from harness.runtimes.llamacpp.pass_clock import Company, PassClock
from harness.runtimes.llamacpp.session import NAME_OFFSET, LlamaSession
from harness.runtimes.llamacpp.stream_plan import (
    ROOM_FOR_BLOCKS,
    Extent,
    FileLayout,
    NoRoomError,
    layout_of,
    plan_split,
    whole_pages,
)
from harness.runtimes.one_sequence import Closing
from harness.speed.storage import margin_bytes

BLOCK_MARK: Final = b"l_out-"
_AMPLE_BYTES: Final = 1 << 62


class BudgetedSession(Closing):
    """A session whose weights stay within a budget: use its ``session`` as any other.

    The GGUF file is not split, and the scenario's ``mmap`` and ``repack`` are set as streaming needs them.
    ``budget_bytes`` is what this process may use in all, everything it holds already included; ``held_bytes``
    what it holds beside weights. Without a budget all weights are in memory, and the engine is called back as if
    some were streamed: the control that a streamed run is held against.

    Raises:
        RefusedError: Not on this system, or the budget is too small.
        EngineError: The engine refused the file, or does not mark what the schedule goes by.
    """

    name: ClassVar[str]
    """What the schedule reads: ``blocks`` or ``experts``."""
    through_buffers: bool = False
    """Whether its readers read through buffers of their own; a schedule may decide it with its plan."""

    def __init__(
        self, path: Path, scenario: Scenario, budget_bytes: int | None, *, batch_tokens: int = 32
    ) -> None:
        if sys.platform != "linux":
            raise RefusedError(
                "layer streaming needs Linux: elsewhere the residency of mapped pages cannot be controlled"
            )
        self._layout = self._read_layout(path)
        self._is_control = budget_bytes is None
        budget_bytes = _AMPLE_BYTES if budget_bytes is None else budget_bytes
        self._clock = PassClock()
        self._active = False
        self._begun = False
        self._first_node = b""
        self._failure: EngineError | None = None
        self._held = ExitStack()
        self.session = LlamaSession(
            path,
            scenario.replace(mmap=True, repack=False, ubatch_tokens=batch_tokens),
            batch_tokens=batch_tokens,
            output_tokens=min(batch_tokens, 16),
            eval_hook=self._clock.timed(self._hook),
        )
        self._company = Company(self.session.thread_count)
        self._held.callback(self.session.close)
        try:
            memory = self._memory = LaidMemory(path)
            self._held.callback(memory.close)
            margin = margin_bytes(path.stat().st_size) + (BUFFERS_BYTES if self.through_buffers else 0)
            scratch = [b.size_bytes for b in self.session.buffers if b.part in {"compute buffer", "output"}]
            self.held_bytes = anonymous_bytes() + sum(scratch)
            # Before a pass over the mapped file, which takes for ever where hardly a page of it may stay.
            always_bytes = sum(extent.size for extent in self._layout.others)
            if budget_bytes - anonymous_bytes() - margin < always_bytes:
                largest_bytes = max(block.size for block in self._layout.blocks)
                raise NoRoomError(always_bytes + 2 * largest_bytes, ROOM_FOR_BLOCKS)  # noqa: TRY301  told below
            # One pass touches every buffer of the engine, so that what it holds beside weights can be read
            # off.
            self.session.decode([0] * min(16, batch_tokens), position=0, logits="all")
            self.session.decode([0] * batch_tokens, position=16, logits="last")
            self.session.clear()
            read_sparsely(path)
            self.held_bytes = anonymous_bytes()
            streams = self._make_plan(budget_bytes - self.held_bytes - margin)
            self._readers = ReaderPool(memory, through_buffers=streams and self.through_buffers)
            self._held.callback(self._readers.stop)
            self._looks = [memory.probe_bytes_per_s()] if streams else []
            self._place()
            if streams or self._is_control:
                self._begin()
                self._active = True
        except NoRoomError as error:
            held_bytes = self.held_bytes + margin
            self.close()
            raise RefusedError(
                f"the budget: found {format_bytes(budget_bytes)}, expected at least "
                f"{format_bytes(held_bytes + error.least_bytes)}: {error}, beside {format_bytes(held_bytes)} that "
                f"the engine and this process need. The file has {format_bytes(path.stat().st_size)}"
            ) from error
        except BaseException:
            self.close()
            raise
        self.reset()

    @abstractmethod
    def _read_layout(self, path: Path) -> FileLayout:
        """Where the weights lie."""

    @abstractmethod
    def _make_plan(self, room_bytes: int) -> bool:
        """Plan for that much room for weights; whether anything is streamed."""

    @abstractmethod
    def _place(self) -> None:
        """Lay memory over everything that is computed from, and fill what stays."""

    @abstractmethod
    def _begin(self) -> None:
        """Make ready for the first streamed pass."""

    @abstractmethod
    def _hook(self, node: int, ask: bool) -> bool:
        """Answer the engine's callback, an :data:`harness.runtimes.llamacpp.session.EvalHook`."""

    def _starts_pass(self, name: bytes) -> bool:
        """Whether a pass begins with this node, whose clock is then started.

        The nodes after the last block belong to the pass that ends, so a new one begins with the first node.
        """
        if self._begun or (self._first_node and name != self._first_node):
            return False
        self._begun = True
        self._first_node = name
        self._clock.begin()
        return True

    def _finish_pass(self) -> float:
        """Note that the last block of a pass was seen, and return the seconds that it took until now."""
        self._begun = False
        self.session.compute_by(self._company.thread_count())
        return self._clock.so_far_s()

    # -- results
    # ------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Count from here on."""
        self._readers.read_bytes = 0
        self._clock.reset()
        self._answer_passes_s: list[float] = []

    def put_readers_first(self) -> None:
        """Let readers have a core whenever they want one: for a process that does nothing else, since it lasts."""
        self._readers.go_first()

    def _failed(self) -> EngineError | None:
        return self._failure or self._readers.failure

    def report(self) -> StreamReport:
        """What happened since the last reset.

        EngineError where a read failed, or no block was marked (``l_out``).
        """
        if failure := self._failed():
            raise failure
        if self._active and self._begun:
            raise EngineError("this architecture does not mark the end of its blocks: it cannot be streamed")
        self._clock.settle()
        clock = self._clock
        return StreamReport(
            pass_count=len(clock.passes_s),
            duration_s=sum(clock.passes_s),
            read_bytes=self._readers.read_bytes,
            stall_s=clock.stall_s,
            probe_bytes_per_s=harmonic_mean(self._looks) if self._looks else 0.0,
            engine_s=clock.engine_s,
            move_s=clock.move_s,
            callback_s=clock.hook_s - clock.stall_s - clock.move_s,
            answer_passes_s=tuple(self._answer_passes_s),
            looks_bytes_per_s=tuple(self._looks),
        )

    def end_answer(self, pass_count: int) -> None:
        """Keep the times of an answer's passes after its prompt, so many."""
        self._clock.settle()
        if pass_count:
            self._answer_passes_s += self._clock.passes_s[-pass_count:]

    def probe_again(self) -> None:
        """Look at the storage once more, between answers.

        It is shared with others on many machines and changes from second to second: a bound holds for the
        time of the run, and not for its best moment. What is in line for the next pass is read first: it
        would slow the look down.
        """
        if self._looks:
            self._readers.wait_for_all()
            self._looks.append(self._memory.probe_bytes_per_s())

    def close(self) -> None:
        """End the readers, then free the engine's memory and this module's with it."""
        self._held.close()


class StreamedSession(BudgetedSession):
    """A session that streams the end of every block.

    The arguments and the errors are the same as those of :class:`BudgetedSession`, which it extends.
    """

    name = "blocks"
    plan: StreamPlan

    def _read_layout(self, path: Path) -> FileLayout:
        return layout_of(path)

    def _make_plan(self, room_bytes: int) -> bool:
        self.plan = self._plan_for(room_bytes)
        if self._is_control:  # pinned as a streamed run pins
            self.plan = self.plan.replace(unit_bytes=HUGE_PAGE_BYTES)
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
            sum(extent.size for extent in self._layout.others),
            room_bytes,
            mapped_bytes=mapped.size if mapped else 0,
            base=self._memory.base,
        )

    def _place(self) -> None:
        plan = self.plan
        self._counts = [0] * len(self._layout.blocks)
        for block in plan.blocks:
            self._counts[block] += 1
        self._firsts = list(accumulate(self._counts, initial=0))  # of each block, among the slots of a pass
        self._starts: list[int] = []
        huge = plan.unit_bytes > PAGE_BYTES
        pieces = list(self._layout.others)
        for extent, count in zip(self._layout.blocks, self._counts, strict=True):
            end = extent.end
            if count:
                end = whole_pages(extent, plan.unit_bytes, self._memory.base).end
            start = end - count * plan.slot_bytes
            self._starts.append(start)
            if count:
                self._memory.lay(start, end - start, huge=huge)
            pieces += [Extent(extent.start, start), Extent(end, extent.end)]
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
            self._clock.stall_s += self._readers.wait(self._loads.popleft())
        return self._failed() is None

    def _release(self) -> bool:
        """The streamed part of the block was used: its slots go to the next loads."""
        source = self._starts[self._block]
        count = self._counts[self._block]
        for number, extent in self._places(self._finished + self.plan.slot_count, count):
            began_s = time.perf_counter()
            moved = self._memory.move(source, extent.start, extent.size)
            self._clock.move_s += time.perf_counter() - began_s
            if not moved:
                self._failure = EngineError(f"the system would not move a slot (errno {ctypes.get_errno()})")
                return False
            self._load(number, extent)
            source += extent.size
        self._finished += count
        return True
