"""Reads that the kernel carries out by itself, in Linux's own way (``io_submit``): no thread of ours waits for them.

Where every core has a thread that computes, a thread that reads waits for its turn after each read, and the device
stands still meanwhile. Here all reads of a block are handed over in one call, and the device goes from one to the next.

Sources: io_submit(2), io_getevents(2), linux/aio_abi.h; numbers of the calls: asm/unistd_64.h, asm-generic/unistd.h.
"""

import ctypes
import errno
import platform
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from harness.errors import EngineError
from harness.runtimes.llamacpp.laid_memory import LaidMemory, ReaderPool, Reads
from harness.runtimes.llamacpp.stream_plan import Extent

_GENERIC: Final = {"setup": 0, "destroy": 1, "submit": 2, "getevents": 4}
_CALLS: Final = {
    "x86_64": {"setup": 206, "destroy": 207, "getevents": 208, "submit": 209},
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
}
_MOST_READS: Final = 128
"""Under way at a time."""
_READ_BYTES: Final = 4 * 2**20


class _Block(ctypes.Structure):
    """``struct iocb``: what to read; all other fields are 0."""

    _fields_ = (
        ("number", ctypes.c_uint64),
        ("unused", ctypes.c_uint64),
        ("read", ctypes.c_uint32),
        ("descriptor", ctypes.c_uint32),
        ("address", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("more", ctypes.c_uint64 * 2),
    )


class _Event(ctypes.Structure):
    """``struct io_event``: how a read ended."""

    _fields_ = (
        ("number", ctypes.c_uint64),
        ("block", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("more", ctypes.c_int64),
    )


class KernelReads(Reads):
    """Reads straight into the laid memory, asked for by one thread; EngineError where the system offers none."""

    def __init__(self, memory: LaidMemory) -> None:
        super().__init__(memory)
        self._context = ctypes.c_ulong(0)
        if hasattr(sys, "getandroidapilevel"):  # there a call that an app may not make ends it
            raise EngineError("no reads by the kernel in an app of Android")
        self._call("setup", _MOST_READS, ctypes.byref(self._context))
        self._blocks, self._events = (_Block * _MOST_READS)(), (_Event * _MOST_READS)()
        self._free = list(range(_MOST_READS))
        self._tickets = [0] * _MOST_READS
        self._waiting: deque[tuple[int, int, int]] = deque()
        self._left: Counter[int] = Counter()

    def _call(self, name: str, *arguments: object) -> int:
        number = _CALLS.get(platform.machine(), {}).get(name, -1)
        while (result := int(self._memory.libc.syscall(ctypes.c_long(number), *arguments))) < 0:
            if ctypes.get_errno() != errno.EINTR:
                raise EngineError(f"io_{name} failed (errno {ctypes.get_errno()})")
        return result

    def submit(self, ticket: int, extents: Iterable[Extent]) -> None:
        """Hand whole pages over to be read; ``ticket`` is what :meth:`wait` asks for, and new each time."""
        for start, end in extents:
            parts = [(ticket, at, min(_READ_BYTES, end - at)) for at in range(start, end, _READ_BYTES)]
            self._left[ticket] += len(parts)
            self._waiting += parts
        self._hand_over()

    def _hand_over(self) -> None:
        count = min(len(self._waiting), len(self._free))
        if not count:
            return
        pointers = (ctypes.c_void_p * count)()
        for place in range(count):
            ticket, offset, size = self._waiting.popleft()
            number = self._free.pop()
            self._tickets[number] = ticket
            block = self._blocks[number]
            block.number, block.descriptor, block.size, block.offset = number, self._memory.descriptor, size, offset
            block.address = self._memory.base + offset
            pointers[place] = ctypes.addressof(block)
        self._began(count)
        done = 0
        while done < count:
            done += self._call("submit", self._context, ctypes.c_long(count - done), ctypes.byref(pointers, 8 * done))

    def wait(self, ticket: int) -> float:
        """Wait until all of that ticket is in memory, or a read failed; seconds waited."""
        started_s = time.perf_counter()
        try:
            self._reap(0)
            while self._left[ticket]:
                self._reap(1)
            del self._left[ticket]
        except EngineError as error:
            self.failure = error
        return time.perf_counter() - started_s

    def _reap(self, least: int) -> None:
        bounds = ctypes.c_long(least), ctypes.c_long(_MOST_READS)
        count = self._call("getevents", self._context, *bounds, self._events, None)
        for event in self._events[:count]:
            number = event.number
            block = self._blocks[number]
            if event.result < 0:
                raise EngineError(f"reading the model failed (errno {-event.result})")
            if event.result < block.size:  # past the end of the file, or interrupted
                self._memory.read(block.offset + event.result, block.size - event.result)
            self._left[self._tickets[number]] -= 1
            self._free.append(number)
            self._ended(block.size)
        self._hand_over()

    def stop(self) -> None:
        """Wait for what is under way: the memory that it goes to must not be given back before."""
        self._call("destroy", self._context)


def direct_reads(memory: LaidMemory) -> Reads:
    """Reads by the kernel; by threads where it offers none."""
    try:
        return KernelReads(memory)
    except EngineError:
        return ReaderPool(memory)
