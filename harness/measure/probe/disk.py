"""Storage read past the page cache: in sequence, beside computing, and by faults on a mapped file.

Linux: ``O_DIRECT`` into huge pages; macOS: ``F_NOCACHE``. Where neither works (Windows, some file systems)
the pages are dropped first if that can be asked for, and what is read is reported as possibly cached.
"""

import contextlib
import mmap
import os
import re
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import harmonic_mean
from typing import Final

import numpy as np

from harness.core.device import Sourced, Storage, measured
from harness.core.huge_pages import HUGE_PAGE_BYTES, parallel_read_bytes_per_s
from harness.hardware.cpus import read_text
from harness.hardware.threads import default_thread_count, yield_to_readers
from harness.measure import page_cache

_BLOCK_BYTES: Final = 4 * 2**20
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
BUSY_S: Final = 2.0
"""So long many reads at a time are timed: many disks are faster at first, and some take up to a second to fall to
what they can keep. A model streams on."""


def storage_under(folder: Path, *, file_bytes: int) -> Storage:
    """The storage of a folder, by a file of incompressible bytes that is written, read back past the cache, removed.

    It is read by as many readers as streaming has, 2 MiB a call, alone and while all threads compute (where
    the page cache can be passed by); and mapped, every page touched in order (where pages can be dropped from
    the cache first). Where the folder cannot be written or has no room, 100 MB/s are assumed.

    The host of a virtual machine still holds what was just written: mapped, it is taken to come
    ``FIRST_READ_RATIO`` times as fast as a model that was not used lately.
    """
    mapped = busy = None
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".disk-probe-") as inner:
            path = Path(inner) / "bytes"
            size = _fill(path, file_bytes)
            how = f"reads of a {size >> 20} MiB file, four at a time"
            rate, busy_rate = (
                lasting(read_rates(path, size, computing=computing)) for computing in (False, True)
            )
            touched = _touched_bytes_per_s(path)
            if rate is None:
                page_cache.drop(path)
                start_s = time.perf_counter()
                path.read_bytes()
                rate = size / (time.perf_counter() - start_s)
                how = f"possibly cached, a {size >> 20} MiB file at once"
    except OSError:
        unread = Sourced(1e8, "not measured: the cache folder has no room", "assumed")
        return Storage(technology="not measured", sequential_read_bytes_per_s=unread)
    if busy_rate:
        busy = measured(busy_rate, f"{how}, all threads computing")
    if touched and is_virtual():
        which = f"the file, over {FIRST_READ_RATIO:g} as the host still held it, mapped, every page touched in order"
        mapped = measured(touched / FIRST_READ_RATIO, which)
    elif touched:
        mapped = measured(touched, "the file mapped, every page touched in order")
    return Storage(
        technology="disk under the cache folder",
        sequential_read_bytes_per_s=measured(rate, how),
        mapped_read_bytes_per_s=mapped,
        busy_read_bytes_per_s=busy,
    )


def is_virtual(*, root: Path = Path("/")) -> bool:
    """Whether a hypervisor runs this Linux: by the x86 flag, the names of the board, or what only a guest is told."""
    boards = " ".join(read_text(root / name) for name in _BOARD_FILES)
    told = any(read_text(root / name) for name in _HYPERVISOR_FILES)
    return told or "hypervisor" in read_text(root / "proc/cpuinfo") or _BOARDS.search(boards) is not None


def _fill(path: Path, file_bytes: int) -> int:
    """Write whole blocks of random bytes: neither compression nor deduplication can help."""
    count = max(file_bytes // _BLOCK_BYTES, 1)
    draw = np.random.default_rng()
    with path.open("wb") as out:
        for _ in range(count):
            out.write(draw.bytes(_BLOCK_BYTES))
        out.flush()
        os.fsync(out.fileno())
    return count * _BLOCK_BYTES


def _open(path: Path) -> int | None:
    """The file, opened so that reads reach the device; None where that cannot be had."""
    if hasattr(os, "O_DIRECT"):
        with contextlib.suppress(OSError), mmap.mmap(-1, 4096) as page:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
            try:
                os.preadv(descriptor, [page], 0)  # some file systems accept the flag and refuse the read
            except OSError:
                os.close(descriptor)
            else:
                return descriptor
    with contextlib.suppress(ImportError, AttributeError):
        import fcntl

        no_cache: int = fcntl.F_NOCACHE  # type: ignore[attr-defined,unused-ignore]  # macOS
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.fcntl(descriptor, no_cache, 1)
        return descriptor
    return None


def lasting(rates: Sequence[float]) -> float | None:
    """Bytes/s over all readings of the same size; None without one."""
    return harmonic_mean(rates) if rates else None


def read_rates(path: Path, size_bytes: int, *, computing: bool) -> list[float]:
    """Bytes/s of reading that much of a file past the page cache, again and again for ``BUSY_S``.

    With ``computing`` each thread goes through memory meanwhile. Empty where the system does not let the cache be
    passed by.
    """
    descriptor = _open(path)
    if descriptor is None:
        return []
    stop = threading.Event()
    rates = []
    array = np.ones(_BLOCK_BYTES, np.float32)

    def compute() -> None:
        yield_to_readers(threading.get_native_id())
        while not stop.is_set():
            array.max()

    def read_into(view: memoryview, at: int) -> None:
        os.preadv(descriptor, [view], at)

    with os.fdopen(descriptor, "rb", buffering=0), ThreadPoolExecutor(default_thread_count()) as pool:
        try:
            for _ in range(default_thread_count() * computing):
                pool.submit(compute)
            until_s = time.perf_counter() + BUSY_S
            while time.perf_counter() < until_s:
                rates.append(parallel_read_bytes_per_s(read_into, range(0, size_bytes, HUGE_PAGE_BYTES)))
        finally:
            stop.set()
    return rates


def _touched_bytes_per_s(path: Path) -> float | None:
    """Bytes/s of touching every page of a mapped file of which no page is in memory.

    It is None where the system keeps its pages in memory.
    """
    if not page_cache.drop(path):
        return None
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)  # as llama.cpp asks for
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as view:
            start_s = time.perf_counter()
            bytes(view[:: mmap.PAGESIZE])
            return len(view) / (time.perf_counter() - start_s)
