"""Anonymous memory laid over the engine's mapping of a model file, and the threads that fill it past the page cache.

llama.cpp maps the file and computes from addresses in that mapping. Memory of this process laid over them
(``mmap`` with ``MAP_FIXED``) is what it then computes from; what is resident of it is decided here, not by
the page cache.

Linux only: it needs ``mremap(MREMAP_DONTUNMAP)`` (kernel 5.13 and later for any mapping, 5.7 for anonymous
ones).
"""

import ctypes
import mmap
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from statistics import harmonic_mean
from typing import Any, Final

from harness.core.errors import EngineError
from harness.core.huge_pages import HUGE_PAGE_BYTES, READER_COUNT, parallel_read_bytes_per_s, read_buffer
from harness.hardware.threads import yield_to_readers
from harness.runtimes.llamacpp.stream_plan import Extent, merged_pages

_FILL_BYTES: Final = 8 * 2**20
_MREMAP_FLAGS: Final = 1 | 2 | 4  # MAYMOVE, FIXED, DONTUNMAP
_MAP_FIXED: Final = 0x10
_MAP_NORESERVE: Final = 0x4000
_HUGE_PAGES: Final = 14  # MADV_HUGEPAGE
_NO_HUGE_PAGES: Final = 15  # MADV_NOHUGEPAGE
CHUNK_BYTES: Final = HUGE_PAGE_BYTES
BUFFERS_BYTES: Final = READER_COUNT * CHUNK_BYTES
"""What readers hold that read through buffers of their own."""
_PROBE_CHUNKS: Final = 256
_PROBE_S: Final = 1.0
"""Of a look: some disks are half as fast again for its first half."""


class LaidMemory:
    """The mapping of one file in this process, which begins at the address ``base``.

    Every method counts offsets in bytes from the start of the file. EngineError where the engine has not
    mapped the file yet.
    """

    def __init__(self, path: Path) -> None:
        self._libc = _libc()
        self._path = path
        self.base = next((start - offset for start, _, offset in _mappings(path)), -1)
        if self.base < 0:
            raise EngineError(f"{path.name} is not mapped by the engine")
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)

    def lay(self, offset: int, size: int, *, huge: bool = False) -> None:
        """Lay empty memory over whole pages of the mapping (EngineError where the system refuses).

        The new pages take no physical memory until they are filled. What is filled of huge pages must begin
        and end at their bounds, or where the laid memory ends: a huge page makes all of itself resident.
        """
        address = self.base + offset
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED | _MAP_NORESERVE
        got = self._libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        if got != address:
            raise EngineError(
                f"the system would not lay {size} bytes over the mapped file (errno {ctypes.get_errno()})"
            )
        self._libc.madvise(address, size, _HUGE_PAGES if huge else _NO_HUGE_PAGES)

    def pin(self, pieces: Sequence[Extent], *, huge: bool = False) -> None:
        """Lay memory over the pages of the pieces, as :meth:`lay` does, and fill it, as :meth:`read` does."""
        for pages in merged_pages(pieces):
            self.lay(pages.start, pages.size, huge=huge)
            for at in range(pages.start, pages.end, _FILL_BYTES):
                self.read(at, min(_FILL_BYTES, pages.end - at))

    def read(self, offset: int, size: int, through: int = 0) -> None:
        """Read whole pages from the file into the memory laid over them (EngineError where a read fails).

        Several threads may read at the same time. ``through`` is the address of a buffer of at least ``size``
        bytes to read by way of.
        """
        address = through or self.base + offset
        buffer = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
        done = 0
        try:
            while got := os.preadv(self._descriptor, [buffer[done:]], offset + done):
                done += got  # past the end of the file: the rest of its last page
        except OSError as error:
            raise EngineError(f"reading the model failed (errno {error.errno})") from error
        if through:
            ctypes.memmove(self.base + offset, through, done)

    def move(self, source: int, target: int, size: int) -> bool:
        """Move resident pages to another laid place without copying a byte; the source stays laid, and empty.

        Return False where the system refuses the move: the pages are then where they were.
        """
        got = self._libc.mremap(self.base + source, size, size, _MREMAP_FLAGS, self.base + target)
        return bool(got == self.base + target)

    def probe_bytes_per_s(self) -> float:
        """Bandwidth of as many readers past the page cache, over ``_PROBE_S`` at least.

        Over pieces from everywhere in the file: parts of it may lie in a cache of the storage's own.
        """
        chunk_count = self._path.stat().st_size // CHUNK_BYTES
        wanted = min(chunk_count, _PROBE_CHUNKS)
        step_bytes = chunk_count // max(wanted, 1) * CHUNK_BYTES

        def read_into(buffer: memoryview, offset: int) -> int:
            return os.preadv(self._descriptor, [buffer], offset)

        offsets = [i * step_bytes for i in range(wanted)]
        until_s = time.perf_counter() + _PROBE_S
        rates = [parallel_read_bytes_per_s(read_into, offsets)]
        while time.perf_counter() < until_s:
            rates.append(parallel_read_bytes_per_s(read_into, offsets))
        return harmonic_mean(rates)

    def drop(self, offset: int, size: int) -> None:
        """Give back the memory of whole pages; they stay laid, and empty."""
        self._libc.madvise(self.base + offset, size, mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Close the file; the laid memory goes when the engine unmaps the file."""
        os.close(self._descriptor)


class ReaderPool:
    """Threads that read what is put in line, first come first served.

    ``through_buffers`` reads into a huge page of each reader's own and copies from there. Into small pages
    that are in memory already, a device reads at half the speed that it reads into huge ones; the copy costs
    less. EngineError where there is no memory for them.
    """

    def __init__(self, memory: LaidMemory, *, through_buffers: bool = False) -> None:
        self._memory = memory
        self.failure: EngineError | None = None
        self.read_bytes = 0
        self._line: SimpleQueue[tuple[int, int, int] | None] = SimpleQueue()
        self._left: Counter[int] = Counter()  # pieces of each ticket that are not in memory yet
        self._changed = threading.Condition()
        self._buffers = ExitStack()
        addresses = [0] * READER_COUNT
        if through_buffers:
            try:
                for reader in range(READER_COUNT):
                    buffer = self._buffers.enter_context(read_buffer(CHUNK_BYTES))
                    addresses[reader] = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
            except OSError as error:
                self._buffers.close()
                raise EngineError(
                    f"the system gave no {BUFFERS_BYTES} bytes for the readers' buffers"
                ) from error
        self._threads = [
            threading.Thread(target=self._serve, args=(address,), daemon=True) for address in addresses
        ]
        for thread in self._threads:  # now, while they get the priority of this one
            thread.start()

    def go_first(self) -> None:
        """Put all other threads of this process, for as long as it lives, behind the readers."""
        readers = {thread.native_id for thread in self._threads}
        for task in Path("/proc/self/task").iterdir():
            if int(task.name) not in readers:
                yield_to_readers(int(task.name))

    def submit(self, ticket: int, extents: Iterable[Extent]) -> None:
        """Put whole pages in line; ``ticket`` is what :meth:`wait` asks for, and new each time."""
        pieces = [
            (ticket, offset, min(CHUNK_BYTES, extent.end - offset))
            for extent in extents
            for offset in range(extent.start, extent.end, CHUNK_BYTES)
        ]
        with self._changed:
            self._left[ticket] = len(pieces)
        for piece in pieces:
            self._line.put(piece)

    def wait(self, ticket: int) -> float:
        """Wait until all pages of a ticket are in memory or a read failed, and return the seconds waited."""
        started_s = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: not self._left[ticket])
            del self._left[ticket]
        return time.perf_counter() - started_s

    def wait_for_all(self) -> None:
        """Wait until nothing that was put in line is left."""
        with self._changed:
            self._changed.wait_for(lambda: not any(self._left.values()))

    def _serve(self, through: int) -> None:
        for ticket, offset, size in iter(self._line.get, None):
            try:
                self._memory.read(offset, size, through)
            except EngineError as error:
                self.failure = error
            with self._changed:
                self.read_bytes += size
                self._left[ticket] -= 1
                if not self._left[ticket]:
                    self._changed.notify_all()

    def stop(self) -> None:
        """End the threads, once what is in line is read."""
        for _ in self._threads:
            self._line.put(None)
        for thread in self._threads:
            thread.join()
        self._buffers.close()


def anonymous_bytes() -> int:
    """Anonymous memory and page tables of this process."""
    held = 0
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(("RssAnon:", "VmPTE:", "RssShmem:")):
            held += int(line.split()[1]) * 1024
    return held


def read_sparsely(path: Path) -> None:
    """Give back the pages of a mapped file, and read from now on the pages that are touched, and no others.

    The engine fills the page cache when it maps a file, to be read from end to end: a fault on one norm then
    brings some MB with it, which under a limit push out what was read before.
    """
    libc = _libc()
    for start, end, _ in _mappings(path):  # the engine unmaps what it does not use, and others may lie there
        libc.madvise(start, end - start, mmap.MADV_DONTNEED)
        libc.madvise(start, end - start, mmap.MADV_RANDOM)
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _mappings(path: Path) -> Iterator[tuple[int, int, int]]:
    """Start, end and offset in the file of every mapping of it in this process."""
    wanted = str(path.resolve())
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == wanted:
            start, end = fields[0].split("-")
            yield int(start, 16), int(end, 16), int(fields[2], 16)


def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_size_t
    address = ctypes.c_void_p
    for name, arguments, result in (
        ("mmap", [address, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long], address),
        ("mremap", [address, size, size, ctypes.c_int, address], address),
        ("madvise", [address, size, ctypes.c_int], ctypes.c_int),
    ):
        function = getattr(libc, name)
        function.argtypes = arguments
        function.restype = result
    return libc
