"""Storage read past the page cache: in sequence, at random, beside computing, and by faults on a mapped file.

Linux: ``O_DIRECT`` into huge pages; where the file system refuses that, the pages are dropped with
``posix_fadvise(DONTNEED)`` before they are read again. Other systems: ``F_NOCACHE`` on macOS; what is left (Windows)
is reported as possibly cached.
"""

import contextlib
import mmap
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from harness.huge_pages import HUGE_PAGE_BYTES, parallel_read_bytes_per_s, read_buffer
from harness.measure.machine import cpu

BLOCK_BYTES: Final = 4 * 2**20
RANDOM_BLOCK_BYTES: Final = 4096 * 16
"""Random reads are those of page faults with read-ahead: 64 KiB, one after the other."""
BUSY_S: Final = 1.0
"""Reading beside computing lasts so long: many disks are faster for the first tenth of a second, a model streams on."""

Way = Literal["direct", "dropped", "uncached", "possibly cached"]


class DiskSpeed(NamedTuple):
    """Speed of the storage under one folder.

    Attributes:
        sequential_bytes_per_s: One reader, 4 MiB a call, in order.
        random_bytes_per_s: One reader, 64 KiB a call, at random places.
        way: How the page cache was passed by.
        mapped_bytes_per_s: One reader that touches every page of the mapped file in order; None where pages cannot be
            dropped from the cache first.
        busy_bytes_per_s: As many readers as streaming has, 2 MiB a call, while all threads compute; None where the page
            cache cannot be passed by.
    """

    sequential_bytes_per_s: float
    random_bytes_per_s: float
    way: Way
    file_bytes: int
    mapped_bytes_per_s: float | None = None
    busy_bytes_per_s: float | None = None


def disk_speed(folder: Path, *, file_bytes: int = 512 * 2**20, random_count: int = 512, seed: int = 1) -> DiskSpeed:
    """Write a file of incompressible bytes into ``folder``, read it back past the cache, and remove it.

    Raises:
        OSError: The folder cannot be written, or has no room.
    """
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".disk-probe-", delete=False) as handle:
        path = Path(handle.name)
    try:
        size = _fill(path, file_bytes)
        with _opened(path) as (descriptor, way):
            sequential_s = _read_blocks(descriptor, BLOCK_BYTES, range(size // BLOCK_BYTES))
        with _opened(path) as (descriptor, way):
            random_s = _read_blocks(descriptor, RANDOM_BLOCK_BYTES, _random_places(size, random_count, seed))
            busy = _read_beside_computing(descriptor, size) if way in {"direct", "uncached"} else None
        mapped_s = _touch_all(path)
        return DiskSpeed(
            sequential_bytes_per_s=size / sequential_s,
            random_bytes_per_s=random_count * RANDOM_BLOCK_BYTES / random_s,
            way=way,
            file_bytes=size,
            mapped_bytes_per_s=size / mapped_s if mapped_s else None,
            busy_bytes_per_s=busy,
        )
    finally:
        path.unlink(missing_ok=True)


def _fill(path: Path, file_bytes: int) -> int:
    """Write whole blocks; each differs, so that neither compression nor deduplication can help."""
    block = bytearray(os.urandom(BLOCK_BYTES))
    count = max(file_bytes // BLOCK_BYTES, 1)
    with path.open("wb") as out:
        for index in range(count):
            block[:8] = index.to_bytes(8, "little")
            for offset in range(4096, BLOCK_BYTES, 4096):
                block[offset : offset + 4] = ((index << 12) ^ offset).to_bytes(8, "little")[:4]
            out.write(block)
        out.flush()
        os.fsync(out.fileno())
    return count * BLOCK_BYTES


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[int, Way]]:
    """The file, opened so that reads reach the device."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    descriptor, way = -1, "possibly cached"
    if hasattr(os, "O_DIRECT"):
        with contextlib.suppress(OSError):
            descriptor, way = os.open(path, flags | os.O_DIRECT), "direct"
            probe = mmap.mmap(-1, 4096)
            try:
                os.preadv(descriptor, [probe], 0)  # some file systems accept the flag and refuse the read
            except OSError:
                os.close(descriptor)
                descriptor, way = -1, "possibly cached"
            finally:
                probe.close()
    if descriptor < 0:
        descriptor = os.open(path, flags)
        way = _uncache(descriptor)
    try:
        yield descriptor, way  # type: ignore[misc]
    finally:
        os.close(descriptor)


def _uncache(descriptor: int) -> Way:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return "dropped"
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        no_cache = getattr(fcntl, "F_NOCACHE", None)
        if no_cache is not None:
            fcntl.fcntl(descriptor, no_cache, 1)
            return "uncached"
    return "possibly cached"


def _read_into(descriptor: int, buffer: memoryview, offset: int) -> None:
    done = 0
    while done < len(buffer):
        if hasattr(os, "preadv"):
            got = os.preadv(descriptor, [buffer[done:]], offset + done)
        else:
            os.lseek(descriptor, offset + done, os.SEEK_SET)
            data = os.read(descriptor, len(buffer) - done)
            got = len(data)
            buffer[done : done + got] = data
        if got == 0:
            return
        done += got


def _read_blocks(descriptor: int, block_bytes: int, places: Iterable[int]) -> float:
    """Seconds to read the blocks of these numbers, one after the other."""
    with read_buffer(block_bytes) as view:
        start = time.perf_counter()
        for place in places:
            _read_into(descriptor, view, place * block_bytes)
        return time.perf_counter() - start


def _random_places(size_bytes: int, count: int, seed: int) -> list[int]:
    """Numbers of random blocks of a file; different ones, where it has enough."""
    places, draw = size_bytes // RANDOM_BLOCK_BYTES, random.Random(seed)
    return draw.sample(range(places), count) if count <= places else [draw.randrange(places) for _ in range(count)]


def _read_beside_computing(descriptor: int, size_bytes: int) -> float:
    """Bytes/s of the whole file, read again and again for ``BUSY_S``, while each thread goes through memory."""
    thread_count, stop, rates = cpu().thread_count, threading.Event(), []
    array = np.ones(BLOCK_BYTES, np.float32)

    def compute() -> None:
        while not stop.is_set():
            array.max()

    with ThreadPoolExecutor(thread_count) as pool:
        try:
            for _ in range(thread_count):
                pool.submit(compute)
            until_s = time.perf_counter() + BUSY_S
            while time.perf_counter() < until_s:
                offsets = range(0, size_bytes, HUGE_PAGE_BYTES)
                rates.append(parallel_read_bytes_per_s(lambda view, at: _read_into(descriptor, view, at), offsets))
        finally:
            stop.set()
    return len(rates) / sum(1 / rate for rate in rates)


def _touch_all(path: Path) -> float | None:
    """Seconds to touch every page of the mapped file, none of which is in memory; None where that cannot be had."""
    if not hasattr(os, "posix_fadvise"):
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)  # as llama.cpp asks for
        with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as view:
            start = time.perf_counter()
            bytes(view[:: mmap.PAGESIZE])
            return time.perf_counter() - start
    finally:
        os.close(descriptor)
