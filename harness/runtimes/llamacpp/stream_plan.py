"""What of a model stays in memory and what is read again in each pass, when its weights exceed what they may take."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from harness.catalog.gguf import read_gguf
from harness.domain.streaming import PAGE_BYTES, StreamPlan
from harness.errors import RefusedError
from harness.huge_pages import HUGE_PAGE_BYTES
from harness.predict.streaming import SLOT_COUNT, evenly_spread, least_split


class Extent(NamedTuple):
    """Bytes ``start`` to ``end`` of a file."""

    start: int
    end: int


def whole_pages(extent: Extent, unit_bytes: int = PAGE_BYTES, base: int = 0) -> Extent:
    """The pages that hold nothing but this extent.

    The file's start is mapped at ``base``: pages are aligned in memory, not in the file.
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

    What must stay and the blocks exceed what is available to all weights; :func:`harness.predict.streaming.least_split`
    says which part of which blocks takes the excess off. ``always_bytes`` are other weights that each pass reads whole
    (output matrix); the file's start is mapped at the address ``base``. There are 2 slots at least, and no more than
    blocks.

    Raises:
        RefusedError: Even streaming all blocks needs more.
    """
    total_bytes = always_bytes + sum(b.end - b.start for b in blocks)
    excess_bytes = total_bytes - available_bytes
    whole = StreamPlan(
        slot_bytes=0,
        slot_count=0,
        pinned_bytes=total_bytes,
        streamed_bytes=0,
        mapped_bytes=mapped_bytes,
        available_bytes=available_bytes,
    )
    if excess_bytes <= 0:
        return whole
    for unit_bytes in (HUGE_PAGE_BYTES, PAGE_BYTES):
        pages = [whole_pages(b, unit_bytes, base) for b in blocks]
        room = [p.end - p.start for p in pages]
        split = least_split(room, excess_bytes, unit_bytes, slots)
        if split is not None:
            return replace(
                whole,
                slot_bytes=split.part_bytes,
                slot_count=split.slot_count,
                pinned_bytes=total_bytes - split.streamed_bytes,
                streamed_bytes=split.streamed_bytes,
                blocks=evenly_spread(split.block_count, len(blocks)),
                unit_bytes=unit_bytes,
            )
    least_bytes = total_bytes - max(len(blocks) - 2, 0) * min(room, default=0)
    raise RefusedError(
        f"streaming needs {least_bytes} bytes for weights, and {max(available_bytes, 0)} are left of the budget"
    )


class FileLayout(NamedTuple):
    """Where the weights lie in a GGUF file: its blocks in order, and other tensors that a pass reads whole.

    ``mapped`` is the token table when it is only looked up, None when it is the output matrix too.
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
