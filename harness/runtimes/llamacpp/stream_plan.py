"""What of a model stays in memory and what is read again in each pass, when its weights exceed what they may take."""

import mmap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from harness.catalog.gguf import read_gguf
from harness.domain.base import Frozen
from harness.errors import RefusedError
from harness.huge_pages import HUGE_PAGE_BYTES
from harness.predict.streaming import SLOT_COUNT, evenly_spread, least_split

PAGE_BYTES: Final = mmap.PAGESIZE


class Extent(NamedTuple):
    """Bytes ``start`` to ``end`` of a file."""

    start: int
    end: int


class StreamPlan(Frozen, frozen=True, kw_only=True):
    """What stays and what is read again in each pass.

    Attributes:
        slot_bytes: Streamed bytes of each streamed block; 0 when everything fits.
        slot_count: Slots in memory at a time.
        pinned_bytes: Weights that stay.
        streamed_bytes: Weights read in each pass.
        mapped_bytes: Left to the file mapping: the token table, of which a pass reads a few rows.
        available_bytes: What the weights may take.
        blocks: Numbers of the blocks of which a part is streamed.
        unit_bytes: What slots are multiples of and aligned to: huge pages, or small ones where blocks are too small.
    """

    slot_bytes: int
    slot_count: int
    pinned_bytes: int
    streamed_bytes: int
    mapped_bytes: int
    available_bytes: int
    blocks: tuple[int, ...] = ()
    unit_bytes: int = PAGE_BYTES


def whole_pages(extent: Extent, unit_bytes: int = PAGE_BYTES, base: int = 0) -> Extent:
    """The pages that hold nothing but this extent.

    Args:
        extent: Part of the file.
        unit_bytes: Size of a page.
        base: Address that the file's start is mapped at; pages are aligned in memory, not in the file.
    """
    start = -(-(extent.start + base) // unit_bytes) * unit_bytes - base
    return Extent(start, max(start, (extent.end + base) // unit_bytes * unit_bytes - base))


def plan_split(
    blocks: Sequence[Extent],
    always_bytes: int,
    available_bytes: int,
    *,
    mapped_bytes: int = 0,
    slots: int = SLOT_COUNT,
    base: int = 0,
) -> StreamPlan:
    """Least streaming that fits.

    What must stay and the blocks exceed what is available; :func:`harness.predict.streaming.least_split`
    says which part of which blocks takes the excess off.

    Args:
        blocks: Where each block's tensors lie in the file.
        always_bytes: Other weights that each pass reads whole (output matrix).
        available_bytes: What all weights may take.
        mapped_bytes: Weights left to the file mapping.
        slots: Slots, at least 2; fewer where there are fewer blocks.
        base: Address that the file's start is mapped at.

    Raises:
        RefusedError: Even streaming all blocks needs more.
    """
    total_bytes = always_bytes + sum(b.end - b.start for b in blocks)
    excess_bytes = total_bytes - available_bytes
    if excess_bytes <= 0:
        return StreamPlan(
            slot_bytes=0,
            slot_count=0,
            pinned_bytes=total_bytes,
            streamed_bytes=0,
            mapped_bytes=mapped_bytes,
            available_bytes=available_bytes,
        )
    for unit_bytes in (HUGE_PAGE_BYTES, PAGE_BYTES):
        pages = [whole_pages(b, unit_bytes, base) for b in blocks]
        room = [p.end - p.start for p in pages]
        split = least_split(room, excess_bytes, unit_bytes, slots)
        if split is not None:
            return StreamPlan(
                slot_bytes=split.part_bytes,
                slot_count=split.slot_count,
                pinned_bytes=total_bytes - split.streamed_bytes,
                streamed_bytes=split.streamed_bytes,
                mapped_bytes=mapped_bytes,
                available_bytes=available_bytes,
                blocks=evenly_spread(split.block_count, len(blocks)),
                unit_bytes=unit_bytes,
            )
    least_bytes = total_bytes - max(len(blocks) - 2, 0) * min(room, default=0)
    raise RefusedError(
        f"streaming needs {least_bytes} bytes for weights, and {max(available_bytes, 0)} are left of the budget"
    )


class FileLayout(NamedTuple):
    """Where the weights lie in a GGUF file.

    Attributes:
        blocks: Extent of each block's tensors, in order of the blocks.
        others: Extents of the tensors that are outside the blocks and read whole in each pass.
        mapped: Extent of the token table when it is only looked up; None when it is the output matrix too.
    """

    blocks: tuple[Extent, ...]
    others: tuple[Extent, ...]
    mapped: Extent | None


def layout_of(path: Path) -> FileLayout:
    """Read where each block's tensors lie.

    Raises:
        BadDataError: The file is no GGUF file.
        RefusedError: The tensors of a block are scattered over the file.
    """
    blocks: dict[int, list[Extent]] = {}
    others: dict[str, Extent] = {}
    for tensor in read_gguf(path).tensors:
        extent = Extent(tensor.offset_bytes, tensor.offset_bytes + tensor.size_bytes)
        head, _, rest = tensor.name.partition(".")
        if head == "blk":
            blocks.setdefault(int(rest.partition(".")[0]), []).append(extent)
        else:
            others[tensor.name] = extent
    spans = tuple(Extent(min(e.start for e in b), max(e.end for e in b)) for _, b in sorted(blocks.items()))
    ordered = sorted([*spans, *others.values()])
    if any(a.end > b.start for a, b in pairwise(ordered)):
        raise RefusedError(f"{path.name}: the tensors of a block are scattered over the file: it cannot be streamed")
    tied = "output.weight" not in others
    mapped = None if tied else others.pop("token_embd.weight", None)
    return FileLayout(spans, tuple(others.values()), mapped)


class StreamReport(Frozen, frozen=True, kw_only=True):
    """What streaming did since the last reset.

    Attributes:
        pass_count: Passes of the model.
        duration_s: Time of those passes, first node to last block.
        read_bytes: Bytes read from storage.
        reading_s: Time in which at least one read was under way.
        stall_s: Time the engine waited for a block.
        stall_by_block_s: The same by block.
        probe_bytes_per_s: Storage bandwidth, measured before with the same readers.
    """

    pass_count: int
    duration_s: float
    read_bytes: int
    stall_s: float
    stall_by_block_s: tuple[float, ...]
    probe_bytes_per_s: float
    reading_s: float = 0.0

    @property
    def compute_s(self) -> float:
        """Time of one pass without its stalls."""
        return (self.duration_s - self.stall_s) / max(self.pass_count, 1)

    @property
    def overlap_ratio(self) -> float:
        """Share of the passes' time that either computing or reading alone would have taken: 1 hides one in the other.

        Beside the bound by the probe, whose storage may have been faster or slower than the run's.
        """
        alone_s = max(self.duration_s - self.stall_s, self.reading_s)
        return min(alone_s / self.duration_s, 1.0) if self.duration_s else 1.0

    def bound_s(self, streamed_bytes: int) -> float:
        """Least time of one pass: max(compute, streamed bytes / storage bandwidth)."""
        return max(self.compute_s, streamed_bytes / self.probe_bytes_per_s)
