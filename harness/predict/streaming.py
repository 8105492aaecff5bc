"""Running a model larger than its RAM: pin what fits, stream the rest each pass, overlap the disk with arithmetic.

    t(pass) = ((B_s / D)^p + t_c^p)^(1/p),    B_s: streamed bytes

D: what storage gives while the engine computes (bytes/s); t_c: arithmetic of the pass (s). Several tokens in one pass
(verified drafts) share one reading. The naive contrast is a mapped file larger than the page cache: blocks are used in
a cycle, least recently used ones are dropped, so each is dropped just before it is wanted, and all of it is read again
for every token.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from harness.huge_pages import HUGE_PAGE_BYTES

BUSY_DISK_RATIO: Final = 0.95
"""Share of a disk's sequential speed that a computing engine is served with, where nobody measured it: 0.88 to 0.99,
which is all that is published (streaming.csv: six dense models, mapped, on one desktop)."""

RECLAIM_S_PER_BYTE: Final = 0.21e-9
"""Time in which a thread that faults makes room itself, as it must under a limit of its group (Linux, cgroup-v2.rst,
``memory.max``). What remains of a byte's time on two devices under one (streaming.csv, Qwen3 1.7B) after computing and
the disk's data sheet: 0.11 ns on a desktop (7 GB/s), 0.38 ns on a phone (4 GB/s); geometric mean, 0.9 us for a page."""

SLOT_COUNT: Final = 4
"""Most parts of blocks in memory at a time: one computed from, the others read ahead."""

MARGIN_BYTES: Final = 24 * 2**20
"""Room that streaming leaves for mapped code and the rows of the token table that are looked up."""
PAGE_TABLE_RATIO: Final = 8 / 4096
"""Page tables of every byte of the model, streamed ones too: a moved slot leaves its empty table behind. They are
charged like other memory; for a file of 40 GB they are 80 MB."""


def margin_bytes(weight_bytes: int) -> int:
    """What a budget must hold beside weights and all that the engine holds, for a model of that size."""
    return MARGIN_BYTES + int(weight_bytes * PAGE_TABLE_RATIO)


SMOOTHNESS: Final = 3.0
"""p of even splits: reading alone or computing alone is reached only where the other is far shorter, since readers and
the engine's threads share cores and memory. Measured with a model of 1.1 GB on two cores, as shares of the longer of
the two: 0.98 where reading takes 5 times as long, 0.96 at 4, 0.92 at 2, 0.78 where both take the same (p = 3: 0.997,
0.995, 0.96, 0.79)."""


class Split(NamedTuple):
    """An equal part of each of some blocks, streamed through slots that take turns: so many parts are in memory."""

    block_count: int
    part_bytes: int
    slot_count: int

    @property
    def streamed_bytes(self) -> int:
        """Read in each pass."""
        return self.block_count * self.part_bytes


def least_split(room_bytes: Sequence[int], excess_bytes: int, unit_bytes: int, most_slots: int) -> Split | None:
    """The split that streams least; None where not even streaming all of every block is enough.

    Streaming s bytes each of n blocks through r slots takes n s bytes out of memory and brings r s back, so
    (n - r) s >= excess. Fewer slots stream less; three still read one block ahead of the one that is waited for, two do
    not and are the last resort. Where s is a multiple of a huge page, streaming some of the blocks, evenly spread, may
    be less than rounding up in all of them. ``room_bytes`` may be streamed of each block, ``excess_bytes`` of all have
    no room; s is a multiple of ``unit_bytes``, and ``most_slots`` at least 2.
    """
    most = min(most_slots, len(room_bytes))
    for slot_counts in (range(most, 2, -1), range(2, 1, -1)):
        best: Split | None = None
        for slots in slot_counts:
            for count in range(len(room_bytes), slots, -1):
                part = -(-excess_bytes // (count - slots) // unit_bytes) * unit_bytes
                if part > min(room_bytes[i] for i in evenly_spread(count, len(room_bytes))):
                    break  # fewer blocks would need still larger parts
                if best is None or count * part < best.streamed_bytes:
                    best = Split(count, part, slots)
        if best is not None:
            return best
    return None


def evenly_spread(count: int, of: int) -> tuple[int, ...]:
    """That many of the numbers below ``of``, evenly spread."""
    return tuple(i * of // count for i in range(count))


def pass_s(streamed_bytes: float, disk_bytes_per_s: float, compute_s: float) -> float:
    """t(pass) above."""
    seconds: float = ((streamed_bytes / disk_bytes_per_s) ** SMOOTHNESS + compute_s**SMOOTHNESS) ** (1 / SMOOTHNESS)
    return seconds


def streamed_bytes(layer_bytes: Sequence[int], resident_bytes: int, budget_bytes: int) -> int | None:
    """Bytes read in each pass under a RAM budget, an equal part of every layer streamed: how this harness streams.

    Parts are those of :func:`least_split`: whole huge pages, of which a layer that may begin anywhere holds one less
    than its size would; where layers are too small for them, any size. What is held beside the layers grows by
    :func:`margin_bytes`. None where not even the parts on their way fit.

    ``resident_bytes`` must be held anyway: KV cache, scratch, output matrix, runtime.

    Raises:
        ValueError: A size is negative.
    """
    if min([resident_bytes, budget_bytes, *layer_bytes], default=0) < 0:
        raise ValueError("sizes must be at least 0")
    total = sum(layer_bytes)
    excess = total - (budget_bytes - resident_bytes) + margin_bytes(total)
    if excess <= 0:
        return 0
    whole = [max(0, size // HUGE_PAGE_BYTES - 1) * HUGE_PAGE_BYTES for size in layer_bytes]
    split = least_split(whole, excess, HUGE_PAGE_BYTES, SLOT_COUNT) or least_split(layer_bytes, excess, 1, SLOT_COUNT)
    return split.streamed_bytes if split else None


def mmap_read_s(mapped_bytes: float, cache_bytes: float, read_bytes_per_s: float, *, limited: bool = False) -> float:
    """Seconds of reading in one pass over a mapped file: none if the cache holds it, all of it otherwise.

        t = B (1 / D + r)

    LRU under a cyclic scan has no hit once the scan is longer than the cache (Denning 1968; the case that Belady's
    MIN is drawn against). r, ``RECLAIM_S_PER_BYTE``, where the cache ends at a limit of the process's own group.
    """
    if mapped_bytes <= cache_bytes:
        return 0.0
    return mapped_bytes * (1 / read_bytes_per_s + (RECLAIM_S_PER_BYTE if limited else 0.0))
