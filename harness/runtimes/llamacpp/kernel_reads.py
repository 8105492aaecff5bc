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
from collections.abc import Iterable
from struct import Struct
from typing import Final

from harness.domain.streaming import PAGE_BYTES
from harness.errors import EngineError
from harness.runtimes.llamacpp.laid_memory import LaidMemory, ReaderPool
from harness.runtimes.llamacpp.stream_plan import Extent

_GENERIC: Final = {"setup": 0, "destroy": 1, "submit": 2, "getevents": 4}
_CALLS: Final = {
    "x86_64": {"setup": 206, "destroy": 207, "getevents": 208, "submit": 209},
    "aarch64": _GENERIC,
    "riscv64": _GENERIC,
}
_MOST_READS: Final = 4096
"""Under way at a time: more than all slots take."""
_READ_BYTES: Final = 4 * 2**20


_BLOCK: Final = Struct("=Q8xIIQQq16x")
"""``struct iocb``: a number to know it by (ticket and pages), 0 for a read, file, address, bytes, place in the file."""
_EVENT: Final = Struct("=Q8xq8x")
"""``struct io_event``: that number, and the bytes that were read."""


class KernelReads:
    """Reads straight into the laid memory, asked for by one thread; EngineError where the system offers none."""

    def __init__(self, memory: LaidMemory) -> None:
        self._memory = memory
        self.failure: EngineError | None = None
        self.read_bytes = 0
        self._context = ctypes.c_ulong(0)
        self._events = ctypes.create_string_buffer(_MOST_READS * _EVENT.size)
        self._left: dict[int, int] = {}
        # An app of Android that makes a call which it may not make is ended.
        if hasattr(sys, "getandroidapilevel") or self._call("setup", _MOST_READS, ctypes.byref(self._context)) < 0:
            raise EngineError("the system offers no reads of its own")

    def _call(self, name: str, *arguments: object) -> int:
        """What the system answers; below 0 and kept as the failure where it refuses."""
        number = _CALLS.get(platform.machine(), {}).get(name, -1)
        while (result := int(self._memory.libc.syscall(ctypes.c_long(number), *arguments))) < 0:
            if ctypes.get_errno() != errno.EINTR:
                self.failure = EngineError(f"reading the model failed: io_{name} (errno {ctypes.get_errno()})")
                break
        return result

    def submit(self, ticket: int, extents: Iterable[Extent]) -> None:
        """Hand whole pages over to be read; ``ticket`` is what :meth:`wait` asks for, and new each time."""
        parts = [(at, min(_READ_BYTES, end - at)) for start, end in extents for at in range(start, end, _READ_BYTES)]
        memory, count, done = self._memory, len(parts), 0
        packed = [
            _BLOCK.pack(ticket << 16 | size // PAGE_BYTES, 0, memory.descriptor, memory.base + at, size, at)
            for at, size in parts
        ]
        blocks = ctypes.create_string_buffer(b"".join(packed))
        first = ctypes.addressof(blocks)
        pointers = (ctypes.c_void_p * count)(*range(first, first + count * _BLOCK.size, _BLOCK.size))
        self._left[ticket] = count
        while done < count and self.failure is None:
            done += self._call("submit", self._context, ctypes.c_long(count - done), ctypes.byref(pointers, 8 * done))

    def wait(self, ticket: int) -> float:
        """Wait until all of that ticket is in memory, or a read failed; seconds waited."""
        started_s = time.perf_counter()
        self._reap(0)
        while self._left[ticket] and self.failure is None:
            self._reap(1)
        del self._left[ticket]
        return time.perf_counter() - started_s

    def _reap(self, least: int) -> None:
        bounds = ctypes.c_long(least), ctypes.c_long(_MOST_READS)
        count = self._call("getevents", self._context, *bounds, self._events, None)
        for number, size in _EVENT.iter_unpack(memoryview(self._events)[: max(count, 0) * _EVENT.size]):
            ticket, pages = divmod(number, 1 << 16)
            if size != pages * PAGE_BYTES:  # no slot reaches the end of the file
                self.failure = EngineError(
                    f"reading the model failed: the system gave {size} for {pages * PAGE_BYTES} bytes"
                )
            self._left[ticket] -= 1
            self.read_bytes += size

    def stop(self) -> None:
        """Wait for what is under way: the memory that it goes to must not be given back before."""
        self._call("destroy", self._context)


def direct_reads(memory: LaidMemory) -> KernelReads | ReaderPool:
    """Reads by the kernel; by threads where it offers none."""
    try:
        return KernelReads(memory)
    except EngineError:
        return ReaderPool(memory)
