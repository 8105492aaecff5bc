"""How much of a file lies in the page cache, and how to get it out: what makes a load cold."""

import contextlib
import ctypes
import mmap
import os
from pathlib import Path

import numpy as np


def drop(path: Path) -> bool:
    """Ask the system to forget the cached pages of a file; False where it has no such call.

    Pages that are dirty or mapped by another process stay: check with :func:`cached_ratio`.
    Source: posix_fadvise(2), POSIX_FADV_DONTNEED.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file, contextlib.suppress(OSError):
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return True
    return False


def cached_ratio(path: Path) -> float | None:
    """Share of the file's pages in the page cache; None where the system does not tell. Source: mincore(2)."""
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
    except (OSError, AttributeError, TypeError):
        return None
    size = path.stat().st_size
    if size == 0:
        return 0.0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        pages = np.frombuffer(mapped, np.uint8)
        resident = np.empty(-(-size // mmap.PAGESIZE), np.uint8)
        status = mincore(pages.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(size), resident.ctypes)
        del pages  # a mapping that is looked at cannot be closed
    return float((resident & 1).mean()) if status == 0 else None
