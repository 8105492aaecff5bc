"""Running a model larger than its RAM: pin what fits, stream the rest each pass, overlap the disk with arithmetic.

    t_r = t_c + (B_s - D_b t_c) / D    where the engine waits for storage, else B_s / D_b
    t(pass) = (t_r^p + t_c^p)^(1/p)

B_s: streamed bytes; t_c: arithmetic of the pass (s); D_b and D: what storage gives while the engine computes,
and while it waits (bytes/s). Several tokens in one pass (verified drafts) share one reading. The naive
contrast is a mapped file larger than the page cache: blocks are used in a cycle, least recently used ones are
dropped, so each is dropped just before it is wanted, and all of it is read again for every token.

Mixtures of experts: bytes of a token, and how often the experts it wants are in memory already.

Routing is skewed: expert i of n is wanted with probability p_i ~ 1 / i^z. A token wants k different experts
of a layer, so the first few are wanted nearly always, and no oftener. With choices drawn one after the other
without putting back, expert i is among them with about pi_i = 1 - exp(-p_i t), t such that sum pi_i = k
(Rosen 1997, asymptotic theory for order sampling; each expert's exponential clock has rung by t). A memory of
C experts that keeps the most wanted hits with the sum of the C largest pi_i / k, which is the most that any
can where choices are independent (Aho, Denning & Ullman 1971).
"""

import math
import mmap
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

from harness.core.huge_pages import HUGE_PAGE_BYTES
from harness.core.model import Weights

BUSY_DISK_RATIO: Final = 0.95
"""Share of a disk's sequential speed that a computing engine is served with, where nobody measured it: 0.88
to 0.99, which is all that is published (streaming.csv: six dense models, mapped, on one desktop)."""

RECLAIM_S_PER_BYTE: Final = 0.21e-9
"""Time in which a thread that faults makes room itself, as it must under a limit of its group (Linux,
cgroup-v2.rst, ``memory.max``). What remains of a byte's time on two devices under one (streaming.csv, Qwen3
1.7B) after computing and the disk's data sheet: 0.11 ns on a desktop (7 GB/s), 0.38 ns on a phone (4 GB/s);
geometric mean, 0.9 us for a page."""

READ_AHEAD_BYTES: Final = 22 * 2**20
"""Least that is read ahead of the block that is computed: the output matrix gives nothing back while it is
multiplied with, and a device is late at times."""
_SLOTS_OF_A_BLOCK: Final = 32
"""About so many at most: those of large blocks are larger."""

MARGIN_BYTES: Final = 24 * 2**20
"""Room that streaming leaves for mapped code and the rows of the token table that are looked up."""
PAGE_TABLE_RATIO: Final = 8 / 4096
"""Page tables of every byte of the model, streamed ones too: a moved slot leaves its empty table behind. They
are charged like other memory; for a file of 40 GB they are 80 MB."""


def margin_bytes(weight_bytes: int) -> int:
    """What a budget must hold beside weights and all that the engine holds, for a model of that size."""
    return MARGIN_BYTES + int(weight_bytes * PAGE_TABLE_RATIO)


SMOOTHNESS: Final = 8.0
"""p: where both take the same time, the engine is late for some blocks and the readers for others. Measured
with a model of 1.1 GB on two cores: 0.87 to 0.93 of the longer of the two (p = 8: 0.92)."""


class StreamSplit(NamedTuple):
    """Slots of equal size, so many streamed of each block, and how many of all are in memory at a time."""

    slot_bytes: int
    counts: tuple[int, ...]
    slot_count: int

    @property
    def streamed_bytes(self) -> int:
        """Read in each pass."""
        return self.slot_bytes * sum(self.counts)


def least_split(room_bytes: Sequence[int], excess_bytes: int, unit_bytes: int) -> StreamSplit | None:
    """The split that streams least; None where not even streaming all of every block is enough.

    Streaming n slots in a pass through r takes n out of memory and brings r back, so n - r make up the
    excess. The r are those of the block that is computed, and as many ahead as the next one has, or more as
    far as there is room. Blocks give in proportion to ``room_bytes``, what may be streamed of each, so that
    reading and computing alternate evenly. A slot is a multiple of ``unit_bytes``.
    """
    slot_bytes = slot_of(room_bytes, unit_bytes)
    room = [size // slot_bytes for size in room_bytes]
    excess = -(-excess_bytes // slot_bytes)
    ahead = -(-READ_AHEAD_BYTES // slot_bytes)
    while True:
        count = excess
        while count <= sum(room):
            counts = evenly_spread(count, room)
            slots = max(counts) + max(*counts, ahead)
            if count - slots >= excess:
                return StreamSplit(slot_bytes, counts, slots)
            count = excess + slots
        if not ahead:
            return None
        ahead //= 2


def slot_of(room_bytes: Sequence[int], unit_bytes: int) -> int:
    """Bytes of a slot where so many may be streamed of each block."""
    return unit_bytes * max(1, max(room_bytes, default=0) // unit_bytes // _SLOTS_OF_A_BLOCK)


def evenly_spread(count: int, room: Sequence[int]) -> tuple[int, ...]:
    """So many in all, in proportion to the room that each has: no part is more than that."""
    ends = [count * end // max(sum(room), 1) for end in accumulate(room, initial=0)]
    return tuple(end - start for start, end in pairwise(ends))


def pass_s(
    streamed_bytes: float, disk_bytes_per_s: float, busy_bytes_per_s: float, compute_s: float
) -> float:
    """t(pass) above; the disk's rates are D and D_b."""
    left_bytes = streamed_bytes - busy_bytes_per_s * compute_s
    read_s = compute_s + left_bytes / (disk_bytes_per_s if left_bytes > 0 else busy_bytes_per_s)
    return float((read_s**SMOOTHNESS + compute_s**SMOOTHNESS) ** (1 / SMOOTHNESS))


def streamed_bytes(layer_bytes: Sequence[int], resident_bytes: int, budget_bytes: int) -> int | None:
    """Bytes read in each pass under a RAM budget, a part of every layer streamed: how this harness streams.

    Parts are those of :func:`least_split`: whole huge pages, of which a layer that may begin anywhere holds
    one less than its size would; where layers are too small for them, small ones. What is held beside the
    layers grows by :func:`margin_bytes`. None where not even the parts on their way fit.

    ``resident_bytes`` must be held anyway: KV cache, scratch, output matrix, runtime.
    """
    total = sum(layer_bytes)
    excess = total - (budget_bytes - resident_bytes) + margin_bytes(total)
    if excess <= 0:
        return 0
    for unit in (HUGE_PAGE_BYTES, mmap.PAGESIZE):
        whole = [max(0, size // unit - 1) * unit for size in layer_bytes]
        if (split := least_split(whole, excess, unit)) is not None:
            return split.streamed_bytes
    return None


def mmap_read_s(
    mapped_bytes: float, cache_bytes: float, read_bytes_per_s: float, *, limited: bool = False
) -> float:
    """Seconds of reading in one pass over a mapped file: none if the cache holds it, all of it otherwise.

    The time is B (1 / D + r), with B ``mapped_bytes`` in bytes and D ``read_bytes_per_s``.

    LRU under a cyclic scan has no hit once the scan is longer than the cache (Denning 1968; the case that
    Belady's MIN is drawn against). The term r is ``RECLAIM_S_PER_BYTE`` where the cache ends at a limit of the
    process's own group, and else 0.
    """
    if mapped_bytes <= cache_bytes:
        return 0.0
    return mapped_bytes * (1 / read_bytes_per_s + (RECLAIM_S_PER_BYTE if limited else 0.0))


DEFAULT_SKEW: Final = 0.75
"""z: by the middle of 89 published speeds of mixtures read from disk (streaming.csv), which keep experts in
ways of their own. Routers trained for balance are flatter."""

EXPERTS_RATIO: Final = 0.6
"""Speed of a token whose experts are fetched one by one, to that with whole matrices in memory."""

WAITING_S: Final = 0.5e-3
"""Of each block, waiting for its router's choice: 0.3 to 0.6 ms where published systems have all experts in
memory."""


def popularity(expert_count: int, skew: float = DEFAULT_SKEW) -> tuple[float, ...]:
    """Probabilities [expert_count] of a Zipf law, most wanted first."""
    weights = [rank**-skew for rank in range(1, expert_count + 1)]
    total = sum(weights)
    return tuple(weight / total for weight in weights)


@lru_cache(maxsize=64)
def inclusion(expert_count: int, used_count: int, skew: float = DEFAULT_SKEW) -> tuple[float, ...]:
    """Probabilities [expert_count] that a token wants each expert, most wanted first.

    The probabilities sum to ``used_count``, the experts of one token.
    """
    p = popularity(expert_count, skew)
    if used_count <= 1:
        return p
    if used_count >= expert_count:
        return (1.0,) * expert_count

    def rung(time: float) -> tuple[float, ...]:
        return tuple(1 - math.exp(-one * time) for one in p)

    time = 0.0
    for power in range(60, -60, -1):
        step = 2.0**power
        if sum(rung(time + step)) < used_count:
            time += step
    return rung(time)


def hit_ratio(
    expert_count: int, cached_count: float, *, used_count: int = 1, skew: float = DEFAULT_SKEW
) -> float:
    """Share of wanted experts that a memory of the most wanted holds.

    ``cached_count`` of a layer's experts may be a fraction (a mean over layers); ``used_count`` is k;
    ``skew`` is z, 0 for uniform routing.
    """
    if cached_count >= expert_count:
        return 1.0
    wanted = inclusion(expert_count, used_count, skew)
    whole = int(cached_count)
    return (sum(wanted[:whole]) + (cached_count - whole) * wanted[whole]) / sum(wanted)


def expert_bytes(weights: Weights) -> tuple[int, int]:
    """Bytes of all routed experts, and of everything else but the token table."""
    sizes = Counter[str]()
    for tensor in weights.tensors:
        sizes[tensor.role] += tensor.size_bytes
    return sizes["expert"], sizes["output"] + sizes["other"]


def cached_experts(
    weights: Weights, room_bytes: float, disk_bytes_per_s: float, compute_s: float
) -> tuple[float, float]:
    """Seconds of a token of a mixture, and the share of wanted experts that a room of so many bytes finds there.

    The most wanted experts fill the room, the others come from disk once the router asks for them.
    ``compute_s``: of a token with all weights in memory.
    """
    experts = weights.shape.experts
    assert experts is not None
    routed, _ = expert_bytes(weights)
    cached = min(float(experts.expert_count), experts.expert_count * max(room_bytes, 0.0) / routed)
    hit = hit_ratio(experts.expert_count, cached, used_count=experts.used_count)
    missed_bytes = routed * weights.shape.expert_ratio * (1 - hit)
    waiting_s = WAITING_S * weights.shape.layer_count
    return missed_bytes / disk_bytes_per_s + compute_s / EXPERTS_RATIO + waiting_s, hit
