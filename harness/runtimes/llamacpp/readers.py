"""Threads that read parts of a model file into the memory laid over it, and what the storage gives them."""

import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Final

from harness.errors import EngineError
from harness.huge_pages import read_buffer
from harness.runtimes.llamacpp.laid_memory import LaidMemory
from harness.runtimes.llamacpp.stream_plan import Extent

CHUNK_BYTES: Final = 2 * 2**20
READER_COUNT: Final = 4
BUFFERS_BYTES: Final = READER_COUNT * CHUNK_BYTES
"""What readers hold that read through buffers of their own."""
_PROBE_CHUNKS: Final = 256


class ReaderPool:
    """Reads what is put in line, first come first served; ``read_bytes`` counts since the last :meth:`reset`.

    ``through_buffers`` reads into a huge page of each reader's own and copies from there. Into small pages that are in
    memory already, a device reads at half the speed that it reads into huge ones; the copy costs less.
    """

    def __init__(self, memory: LaidMemory) -> None:
        self._memory = memory
        self.through_buffers = False
        self._gate = threading.Condition()
        self._chunks: deque[tuple[int, int, int]] = deque()
        self._left: dict[int, int] = {}
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self.failure: EngineError | None = None
        self.read_bytes = 0
        self._reading_s = 0.0
        self._busy_count = 0
        self._busy_since_s = 0.0

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
        with read_buffer(CHUNK_BYTES) if self.through_buffers else nullcontext() as buffer:
            self._serve(buffer)

    def _serve(self, buffer: memoryview | None) -> None:
        while True:
            with self._gate:
                while not self._chunks and not self._stopped:
                    self._gate.wait()
                if self._stopped:
                    return
                ticket, offset, size = self._chunks.popleft()
                if not self._busy_count:
                    self._busy_since_s = time.perf_counter()
                self._busy_count += 1
            try:
                if buffer is None:
                    self._memory.read(offset, size)
                else:
                    self._memory.read_through(buffer, offset, size)
            except EngineError as error:
                self.failure = error
            with self._gate:
                self._busy_count -= 1
                if not self._busy_count:
                    self._reading_s += time.perf_counter() - self._busy_since_s
                self.read_bytes += size
                self._left[ticket] -= 1
                if self._left[ticket] == 0:
                    del self._left[ticket]
                    self._gate.notify_all()

    def reset(self) -> None:
        """Count from here on."""
        with self._gate:
            self.read_bytes = 0
            self._reading_s = 0.0
            self._busy_since_s = time.perf_counter()

    def reading_s(self) -> float:
        """Seconds since the last reset in which at least one read was under way."""
        with self._gate:
            under_way_s = time.perf_counter() - self._busy_since_s if self._busy_count else 0.0
            return self._reading_s + under_way_s

    def stop(self) -> None:
        """End the threads."""
        with self._gate:
            self._stopped = True
            self._gate.notify_all()
        for thread in self._threads:
            thread.join()


def probe_bytes_per_s(memory: LaidMemory, file_bytes: int) -> float:
    """Bandwidth of as many readers past the page cache.

    Over pieces from everywhere in the file: parts of it may lie in a cache of the storage's own.
    """
    wanted = min(file_bytes // CHUNK_BYTES, _PROBE_CHUNKS)
    step = file_bytes // CHUNK_BYTES // max(wanted, 1)
    numbers = iter(range(wanted))  # one for all readers: each takes the next

    def work() -> None:
        with read_buffer(CHUNK_BYTES) as buffer:
            for number in numbers:
                memory.read_into(buffer, number * step * CHUNK_BYTES)

    threads = [threading.Thread(target=work) for _ in range(READER_COUNT)]
    started_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wanted * CHUNK_BYTES / (time.perf_counter() - started_s)
