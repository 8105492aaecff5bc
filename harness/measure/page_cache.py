"""How much of a model's files lies in the page cache, and how to get it out: what makes a load cold."""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np


def drop(*files: Path) -> bool:
    """Ask the system to forget the cached pages of files; False where it has no such call.

    Pages that are dirty or mapped by another process stay: check with :func:`cached_ratio`.
    Source: posix_fadvise(2), POSIX_FADV_DONTNEED.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in files:
        with path.open("rb") as file:
            try:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            except OSError:
                return False
    return True


def cached_ratio(*files: Path) -> float | None:
    """Share of all their bytes in the page cache; None where the system does not tell.

    Linux tells only those who own a file or may write it; of others every page seems to be there. Source:
    mincore(2).
    """
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
    except (OSError, AttributeError, TypeError):
        return None
    resident_count = page_count = 0
    for path in files:
        size = path.stat().st_size
        if path.stat().st_uid != os.geteuid() and not os.access(path, os.W_OK):
            return None
        resident = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
        page_count += resident.size
        if not size:
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            pages = np.frombuffer(mapped, np.uint8)
            status = mincore(pages.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(size), resident.ctypes)
            del pages  # a mapping that is looked at cannot be closed
        if status:
            return None
        resident_count += int((resident & 1).sum())
    return resident_count / max(page_count, 1)


def read_through(path: Path) -> None:
    """Bring a file into the page cache by reading it, where not all of it lies there."""
    if (cached_ratio(path) or 0.0) < 1.0:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass
