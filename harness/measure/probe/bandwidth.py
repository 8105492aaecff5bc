"""Memory bandwidth of all cores: what a kernel that only reads sustains, by the size of what it goes through.

A language model decodes at the speed at which its weights are read, so the figure that matters is a *read*
kernel. Each thread has its own array and goes through all of it again and again, in order. Best of several
passes, as in STREAM (McCalpin 1995): a disturbance only ever slows a pass down. Plain numpy reductions
release the interpreter lock, so threads really run side by side.

What a cache gives is found by a sweep: working sets from 1 MiB to several times the last-level cache as it is
told, and at least 256 MiB. A hypervisor may tell a cache that it shares out, or one for each of its CPUs.
"""

import timeit
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MINIMUM_BYTES: Final = 256 * 2**20
CACHE_MULTIPLE: Final = 4
_FIRST_STEP: Final = 20
_PASS_S: Final = 0.01
_GUESSED_BYTES_PER_S: Final = 1e10
_IN_CACHE_RATIO: Final = 1.25
"""So much faster than memory, and a working set is held by a cache at least in part."""

Array = NDArray[Any]
WorkingSets = tuple[tuple[int, float], ...]
"""Pairs (bytes that all threads together go through, bytes/s), smallest first."""


def array_bytes(last_cache_bytes: int, limit_bytes: int) -> int:
    """Bytes one pass goes through: four times the last-level cache, at least 256 MiB, at most an eighth of RAM.

    Never less than 1 MiB, however little RAM is told.
    """
    return max(min(max(MINIMUM_BYTES, CACHE_MULTIPLE * last_cache_bytes), limit_bytes // 8), 1 << _FIRST_STEP)


READ_KERNELS: Final[dict[str, Callable[[Array], object]]] = {
    "dot product": lambda array: np.dot(array, array),
    "minimum of bytes": lambda array: array.view(np.uint8).min(),
    "maximum of floats": lambda array: array.max(),
}
"""Different libraries prefetch differently; the fastest of them is nearest to what the memory gives."""


def read_bandwidth(thread_count: int, size_bytes: int, *, pass_count: int = 5) -> float:
    """Bytes/s that ``thread_count`` threads read together: the best pass of the best kernel, each byte counted once.

    Each array is made on its own thread, so that on machines with several memory nodes it lies near its
    reader. A small one is gone through many times in one pass, so that a pass lasts a hundredth of a second.
    """
    best = 0.0
    count = max(size_bytes // thread_count // 4, 1)
    with ThreadPoolExecutor(thread_count) as pool:
        arrays = list(pool.map(lambda _: np.full(count, 0.5, np.float32), range(thread_count)))
        for kernel in READ_KERNELS.values():
            times = max(1, round(_PASS_S * (best or _GUESSED_BYTES_PER_S) / size_bytes))
            passes = timeit.repeat(partial(_pass, pool, kernel, times, arrays), number=1, repeat=pass_count)
            best = max(best, times * sum(array.nbytes for array in arrays) / min(passes))
    return best


def sweep(thread_count: int, last_cache_bytes: int, limit_bytes: int) -> WorkingSets:
    """Read speed of working sets from 1 MiB on, in steps of two, and last of what :func:`array_bytes` says."""
    most = array_bytes(last_cache_bytes, limit_bytes)
    sizes = [*(1 << step for step in range(_FIRST_STEP, (most - 1).bit_length())), most]
    return tuple((size, read_bandwidth(thread_count, size)) for size in sizes)


def cache_found(working_sets: WorkingSets) -> int:
    """Bytes of the largest working set that is read clearly faster than the largest of all.

    It is 0 where no cache can be told from memory.
    """
    if not working_sets:
        return 0
    memory = max(speed for _, speed in working_sets[-2:])  # one of the two may have been disturbed
    return max((size for size, speed in working_sets if speed > _IN_CACHE_RATIO * memory), default=0)


def cached_shares(working_sets: WorkingSets, cached_bytes: int) -> tuple[tuple[int, float], ...]:
    """Share of a working set's bytes that a cache gives, for each size: 1 is what ``cached_bytes`` have, 0 the largest.

    Time of a byte = share x time in the cache + (1 - share) x time in memory.
    """
    if not cache_found(working_sets):
        return ()
    sizes, speeds = np.array(working_sets).T
    memory_s = 1 / speeds[-1]
    cache_s = 1 / np.interp(cached_bytes, sizes, speeds)
    if cache_s >= memory_s:
        return ()
    shares = np.clip((memory_s - 1 / speeds) / (memory_s - cache_s), 0.0, 1.0)
    falling = np.maximum.accumulate(
        shares[::-1]
    )  # what fits, fits when it is smaller; the rest is disturbance
    return tuple((size, float(share)) for (size, _), share in zip(working_sets, falling[::-1], strict=True))


def _pass(
    pool: ThreadPoolExecutor, kernel: Callable[[Array], object], times: int, arrays: Sequence[Array]
) -> None:
    list(pool.map(lambda array: [kernel(array) for _ in range(times)], arrays))
