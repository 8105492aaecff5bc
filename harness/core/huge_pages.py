"""Memory for direct reads: private, aligned, and in huge pages where the system has them.

A device takes a read of 2 MiB into 512 small pages as several reads: one virtual disk gave 1.6 GB/s that way
and 4.2 into huge pages.
"""

import contextlib
import ctypes
import mmap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

HUGE_PAGE_BYTES: Final = 2 * 2**20
"""Of x86-64 and of Arm with small pages of 4 KiB."""
READER_COUNT: Final = 4
"""Readers at a time: one alone leaves a device idle between its reads."""


@contextlib.contextmanager
def read_buffer(size_bytes: int) -> Iterator[memoryview]:
    """A buffer [size_bytes] to read into, touched already.

    In plain memory where huge pages cannot be asked for.
    """
    private: dict[str, int] = {}
    if hasattr(mmap, "MADV_HUGEPAGE"):
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
    with mmap.mmap(-1, (1 - -size_bytes // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES, **private) as region:
        with contextlib.suppress(AttributeError, OSError):  # a system without them
            region.madvise(mmap.MADV_HUGEPAGE)
        start = -ctypes.addressof(ctypes.c_char.from_buffer(region)) % HUGE_PAGE_BYTES
        with memoryview(region) as everything, everything[start : start + size_bytes] as view:
            view[:: mmap.PAGESIZE] = bytes(len(view[:: mmap.PAGESIZE]))
            yield view


def parallel_read_bytes_per_s(
    read_into: Callable[[memoryview, int], object], offsets: Sequence[int]
) -> float:
    """Bandwidth of ``READER_COUNT`` readers of one huge page at each of these offsets, which ``read_into`` reads."""
    left = iter(offsets)  # one for all readers: each takes the next

    def work() -> None:
        with read_buffer(HUGE_PAGE_BYTES) as buffer:
            for offset in left:
                read_into(buffer, offset)

    threads = [threading.Thread(target=work) for _ in range(READER_COUNT)]
    started_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(offsets) * HUGE_PAGE_BYTES / (time.perf_counter() - started_s)
