"""How much of a file lies in the page cache, and how to get it out: what makes a load cold."""

import ctypes
import mmap
import os
from pathlib import Path


def drop(path: Path) -> bool:
    """Ask the system to forget the cached pages of a file; False where it has no such call.

    Pages that are dirty or mapped by another process stay: check with :func:`cached_ratio`.
    Source: posix_fadvise(2), POSIX_FADV_DONTNEED.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def cached_ratio(path: Path) -> float | None:
    """Share of the file's pages in the page cache; None where the system does not tell. Source: mincore(2)."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        mincore, munmap = libc.mincore, libc.munmap
    except (OSError, AttributeError, TypeError):
        return None
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return 0.0
        # By hand: Python's mmap gives the address of writable mappings only.
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
        if address in {None, ctypes.c_void_p(-1).value}:
            return None
        pages = -(-size // mmap.PAGESIZE)
        resident = (ctypes.c_ubyte * pages)()
        status = mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), resident)
        munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
    if status != 0:
        return None
    return sum(value & 1 for value in bytes(resident)) / pages
