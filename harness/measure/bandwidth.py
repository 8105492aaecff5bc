"""Memory bandwidth of all cores: what a kernel that only reads sustains, and a copy.

A language model decodes at the speed at which its weights are read, so the figure that matters is a *read* kernel
over arrays that no cache holds. Each thread has its own array; together they are at least four times the last-level
cache, so less than a quarter of the data could have stayed in it, and in fact none does, since each pass goes through
all of it in order. Best of several passes, as in STREAM (McCalpin 1995): a disturbance only ever slows a pass down.
Plain numpy reductions release the interpreter lock, so threads really run side by side.
"""

import timeit
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

MINIMUM_BYTES: Final = 256 * 2**20
CACHE_MULTIPLE: Final = 4

Array = NDArray[Any]


class Bandwidth(NamedTuple):
    """Bytes read plus written, each counted once, over the wall time: of a kernel's best pass and of its middle one.

    Far under the best one, the middle one says that the machine was disturbed.
    """

    kernel: str
    bytes_per_s: float
    median_bytes_per_s: float
    thread_count: int
    array_bytes: int


def array_bytes(last_cache_bytes: int, limit_bytes: int) -> int:
    """Bytes one pass goes through: four times the last-level cache, at least 256 MiB, at most an eighth of RAM."""
    return min(max(MINIMUM_BYTES, CACHE_MULTIPLE * last_cache_bytes), limit_bytes // 8)


READ_KERNELS: Final[dict[str, Callable[[Array], object]]] = {
    "dot product": lambda array: np.dot(array, array),
    "minimum of bytes": lambda array: array.view(np.uint8).min(),
    "maximum of floats": lambda array: array.max(),
}
"""Different libraries prefetch differently; the fastest of them is nearest to what the memory gives."""


def read_bandwidth(thread_count: int, size_bytes: int, *, pass_count: int = 5) -> Bandwidth:
    """Read bandwidth of ``thread_count`` threads together: the best pass of the best kernel.

    Counts every byte once: the dot product of an array with itself reads it once.
    """
    with ThreadPoolExecutor(thread_count) as pool:
        arrays = _arrays(pool, thread_count, size_bytes // thread_count // 4)
        found = [_passes(pool, name, kernel, pass_count, arrays) for name, kernel in READ_KERNELS.items()]
    return max(found, key=lambda one: one.bytes_per_s)


def copy_bandwidth(thread_count: int, size_bytes: int, *, pass_count: int = 5) -> Bandwidth:
    """Copy bandwidth: bytes read plus bytes written, each counted once, over the time of the copy.

    Source and target together have ``size_bytes``. A cache that reads a line before it overwrites it moves a third
    share that is not counted here, as in STREAM.
    """
    count = size_bytes // thread_count // 8
    with ThreadPoolExecutor(thread_count) as pool:
        sources, targets = _arrays(pool, thread_count, count), _arrays(pool, thread_count, count)
        return _passes(pool, "copy", np.copyto, pass_count, targets, sources)


def _arrays(pool: ThreadPoolExecutor, thread_count: int, count: int) -> list[Array]:
    """Arrays each made on its own thread, so that on machines with several memory nodes each lies near its reader."""
    return list(pool.map(lambda _: np.full(count, 0.5, np.float32), range(thread_count)))


def _passes(
    pool: ThreadPoolExecutor, name: str, kernel: Callable[..., object], pass_count: int, *given: list[Array]
) -> Bandwidth:
    """Best and middle of several passes of a kernel over the arrays of all threads."""
    total = sum(array.nbytes for arrays in given for array in arrays)
    times = timeit.repeat(lambda: list(pool.map(kernel, *given)), number=1, repeat=pass_count)
    return Bandwidth(name, total / min(times), total / float(np.median(times)), len(given[0]), total)
