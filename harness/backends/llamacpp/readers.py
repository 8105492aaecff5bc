"""Threads that read parts of a model file into the memory laid over it, and what the storage gives them."""

import mmap
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

from harness.backends.llamacpp.laid_memory import LaidMemory
from harness.backends.llamacpp.stream_plan import Extent
from harness.errors import EngineError

CHUNK_BYTES: Final = 2 * 2**20
READER_COUNT: Final = 4
_PROBE_CHUNKS: Final = 256


class ReaderPool:
    """Reads what is put in line, first come first served.

    Args:
        memory: Where to and where from.

    Attributes:
        read_bytes: Bytes read since the last :meth:`reset`.
    """

    def __init__(self, memory: LaidMemory) -> None:
        self._memory = memory
        self._gate = threading.Condition()
        self._chunks: deque[tuple[int, int, int]] = deque()
        self._left: dict[int, int] = {}
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self.failure: EngineError | None = None
        self.read_bytes = 0

    def start(self) -> None:
        """Start the threads."""
        for number in range(READER_COUNT):
            thread = threading.Thread(target=self._work, name=f"stream-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def submit(self, ticket: int, extents: Iterable[Extent]) -> None:
        """Put whole pages in line; ``ticket`` is what :meth:`wait` asks for, and new each time."""
        parts = [
            (ticket, offset, min(CHUNK_BYTES, extent.end - offset))
            for extent in extents
            for offset in range(extent.start, extent.end, CHUNK_BYTES)
        ]
        if not parts:
            return
        with self._gate:
            self._left[ticket] = len(parts)
            self._chunks.extend(parts)
            self._gate.notify_all()

    def wait(self, ticket: int) -> float:
        """Wait until all of that ticket is in memory, or a read failed; seconds waited."""
        if ticket not in self._left:
            return 0.0
        started_s = time.perf_counter()
        with self._gate:
            while ticket in self._left and self.failure is None and not self._stopped:
                self._gate.wait(5.0)
        return time.perf_counter() - started_s

    def _work(self) -> None:
        while True:
            with self._gate:
                while not self._chunks and not self._stopped:
                    self._gate.wait()
                if self._stopped:
                    return
                ticket, offset, size = self._chunks.popleft()
            try:
                self._memory.read(offset, size)
            except EngineError as error:
                self.failure = error
            with self._gate:
                self.read_bytes += size
                self._left[ticket] -= 1
                if self._left[ticket] == 0:
                    del self._left[ticket]
                    self._gate.notify_all()

    def reset(self) -> None:
        """Count from here on."""
        with self._gate:
            self.read_bytes = 0

    def stop(self) -> None:
        """End the threads."""
        with self._gate:
            self._stopped = True
            self._gate.notify_all()
        for thread in self._threads:
            thread.join()


def probe_bytes_per_s(memory: LaidMemory, file_bytes: int) -> float:
    """Bandwidth of as many readers over the first bytes of the file, past the page cache."""
    wanted = min(file_bytes // CHUNK_BYTES, _PROBE_CHUNKS)
    offsets = deque(i * CHUNK_BYTES for i in range(wanted))

    def work() -> None:
        # Private memory, as the slots are: into shared memory direct reads are a third slower.
        buffer = mmap.mmap(-1, CHUNK_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        while True:
            try:
                offset = offsets.popleft()
            except IndexError:
                return
            memory.read_into(buffer, offset)

    threads = [threading.Thread(target=work) for _ in range(READER_COUNT)]
    started_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wanted * CHUNK_BYTES / (time.perf_counter() - started_s)
