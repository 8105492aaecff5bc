"""Storage read past the page cache: in sequence, beside computing, and by faults on a mapped file.

Linux: ``O_DIRECT`` into huge pages; where the file system refuses that, the pages are dropped with
``posix_fadvise(DONTNEED)`` before they are read again. Other systems: ``F_NOCACHE`` on macOS; what is left
(Windows) is reported as possibly cached.
"""

import contextlib
import mmap
import os
import re
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import harmonic_mean
from typing import Final, Literal

import numpy as np

from harness.cpus import read_text
from harness.domain.device import Figure, Storage, measured
from harness.huge_pages import HUGE_PAGE_BYTES, parallel_read_bytes_per_s, read_buffer
from harness.measure import page_cache
from harness.runtimes._threads import default_thread_count, yield_to_readers

BLOCK_BYTES: Final = 4 * 2**20
FIRST_READ_RATIO: Final = 2.5
"""Three files of 130 to 160 MB that had rested for hours took 2.7, 2.8 and 4.4 times as long to map as they
did once more (a virtual machine, Zen 3)."""
_BOARDS: Final = re.compile(
    r"QEMU|\bKVM\b|VMware|VirtualBox|Virtual Machine|\bXen\b|Google Compute Engine|Amazon EC2(?!.*metal)"
    "|OpenStack|Parallels|Apple Virtualization|linux,dummy-virt"
)
_BOARD_FILES: Final = (
    "sys/class/dmi/id/sys_vendor", "sys/class/dmi/id/product_name", "proc/device-tree/compatible",
)  # fmt: skip
_HYPERVISOR_FILES: Final = ("sys/hypervisor/type", "proc/device-tree/hypervisor/compatible")
BUSY_S: Final = 1.0
"""So long many reads at a time are timed: many disks are faster for the first tenth of a second, a model
streams on."""

Way = Literal["direct", "dropped", "uncached", "possibly cached"]


def storage_under(folder: Path, *, file_bytes: int) -> Storage:
    """The storage of a folder, by a file of incompressible bytes that is written, read back past the cache, removed.

    It is read in order by one reader, 4 MiB a call; mapped, every page touched in order (where pages can be
    dropped from the cache first); and by as many readers as streaming has, 2 MiB a call, while all threads
    compute (where the page cache can be passed by). Where the folder cannot be written or has no room, 100
    MB/s are assumed.

    The host of a virtual machine still holds what was just written: mapped, it is taken to come
    ``FIRST_READ_RATIO`` times as fast as a model that was not used lately.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".disk-probe-") as inner:
            path = Path(inner) / "bytes"
            size = _fill(path, file_bytes)
            sequential_s, way = _read(path, size)
            touched = _touched_bytes_per_s(path, size)
            busy = read_rate(path, size, computing=True)
    except OSError:
        unread = Figure(1e8, "not measured: the cache folder has no room", "assumed")
        return Storage(technology="not measured", sequential_read_bytes_per_s=unread)
    how = f"{way} reads of a {size >> 20} MiB file"
    which = "the file"
    if touched and is_virtual():
        touched = touched / FIRST_READ_RATIO
        which = f"the file, over {FIRST_READ_RATIO:g} as the host still held it,"
    mapped = None
    if touched:
        mapped = measured(touched, f"{which} mapped, every page touched in order")
    return Storage(
        technology="disk under the cache folder",
        sequential_read_bytes_per_s=measured(size / sequential_s, f"{how}, 4 MiB each, in order"),
        mapped_read_bytes_per_s=mapped,
        busy_read_bytes_per_s=measured(busy, f"{how}, four at a time, all threads computing")
        if busy
        else None,
    )


def is_virtual(*, root: Path = Path("/")) -> bool:
    """Whether a hypervisor runs this Linux: by the x86 flag, the names of the board, or what only a guest is told."""
    boards = " ".join(read_text(root / name) for name in _BOARD_FILES)
    told = any(read_text(root / name) for name in _HYPERVISOR_FILES)
    return told or "hypervisor" in read_text(root / "proc/cpuinfo") or _BOARDS.search(boards) is not None


def _fill(path: Path, file_bytes: int) -> int:
    """Write whole blocks of random bytes: neither compression nor deduplication can help."""
    count = max(file_bytes // BLOCK_BYTES, 1)
    draw = np.random.default_rng()
    with path.open("wb") as out:
        for _ in range(count):
            out.write(draw.bytes(BLOCK_BYTES))
        out.flush()
        os.fsync(out.fileno())
    return count * BLOCK_BYTES


def _read(path: Path, size_bytes: int) -> tuple[float, Way]:
    """Seconds to read the file block by block, and how the page cache was passed by."""
    descriptor, way = _open(path)
    with os.fdopen(descriptor, "rb", buffering=0) as file, read_buffer(BLOCK_BYTES) as view:
        start_s = time.perf_counter()
        for _ in range(0, size_bytes, BLOCK_BYTES):
            file.readinto(view)
        return time.perf_counter() - start_s, way


def _open(path: Path) -> tuple[int, Way]:
    """The file, opened so that reads reach the device."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    if hasattr(os, "O_DIRECT"):
        with contextlib.suppress(OSError), mmap.mmap(-1, 4096) as page:
            descriptor = os.open(path, flags | os.O_DIRECT)
            try:
                os.preadv(descriptor, [page], 0)  # some file systems accept the flag and refuse the read
            except OSError:
                os.close(descriptor)
            else:
                return descriptor, "direct"
    dropped = page_cache.drop(path)
    descriptor = os.open(path, flags)
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        if hasattr(fcntl, "F_NOCACHE"):
            fcntl.fcntl(descriptor, fcntl.F_NOCACHE, 1)
            return descriptor, "uncached"
    return descriptor, "dropped" if dropped else "possibly cached"


def read_rate(path: Path, size_bytes: int, *, computing: bool) -> float | None:
    """Bytes/s of that much of a file, read past the page cache.

    ``computing``: while each thread goes through memory.

    Again and again for ``BUSY_S``. None where it cannot be passed by.
    """
    descriptor, way = _open(path)
    stop = threading.Event()
    rates = []
    array = np.ones(BLOCK_BYTES, np.float32)

    def compute() -> None:
        yield_to_readers(threading.get_native_id())
        while not stop.is_set():
            array.max()

    with os.fdopen(descriptor, "rb", buffering=0), ThreadPoolExecutor(default_thread_count()) as pool:
        if way not in {"direct", "uncached"}:
            return None
        try:
            for _ in range(default_thread_count() * computing):
                pool.submit(compute)
            until_s = time.perf_counter() + BUSY_S
            offsets = range(0, size_bytes, HUGE_PAGE_BYTES)
            while time.perf_counter() < until_s:
                rates.append(
                    parallel_read_bytes_per_s(lambda view, at: os.preadv(descriptor, [view], at), offsets)
                )
        finally:
            stop.set()
    return harmonic_mean(rates)


def _touched_bytes_per_s(path: Path, size_bytes: int) -> float | None:
    """Bytes/s of touching every page of the end of a mapped file, none in memory.

    None where that cannot be had.
    """
    if not page_cache.drop(path):
        return None
    start = (
        max(path.stat().st_size - size_bytes, 0) // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    )
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)  # as llama.cpp asks for
        with (
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, offset=start) as mapped,
            memoryview(mapped) as view,
        ):
            start_s = time.perf_counter()
            bytes(view[:: mmap.PAGESIZE])
            return len(view) / (time.perf_counter() - start_s)
