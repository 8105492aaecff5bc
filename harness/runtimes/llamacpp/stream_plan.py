"""What of a model stays in memory and what is read again in each pass, when its weights exceed what they may take.

Of a mixture of experts a stacked tensor ``ffn_{gate,up,gate_up,down}_exps`` holds one slice of equal size for
each expert, one after the other. An expert is its slices of all stacked tensors of its layer: they are wanted
together, so they come and go together.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from harness.core.errors import RefusedError
from harness.core.huge_pages import HUGE_PAGE_BYTES
from harness.core.model import Tensor
from harness.core.streaming import PAGE_BYTES, ExpertPlan, StreamPlan
from harness.core.units import format_bytes
from harness.models.gguf import read_gguf
from harness.speed.storage import least_split, slot_of

_STACKED: Final = re.compile(r"blk\.(\d+)\.ffn_(gate_up|up|gate|down)_exps\.weight")
ROOM_FOR_BLOCKS: Final = "what every token reads whole, and two blocks"
_USE_ORDER: Final = ("gate_up", "up", "gate", "down")


class NoRoomError(RefusedError):
    """Weights that cannot be streamed in the room there is; ``least_bytes`` of them must be in memory at once."""

    def __init__(self, least_bytes: int, why: str) -> None:
        super().__init__(f"{format_bytes(least_bytes)} of weights must be in memory at once ({why})")
        self.least_bytes = least_bytes


class Extent(NamedTuple):
    """Bytes ``start`` to ``end`` of a file."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """How many they are."""
        return self.end - self.start


def whole_pages(extent: Extent, unit_bytes: int = PAGE_BYTES, base: int = 0) -> Extent:
    """The pages that hold nothing but this extent.

    The file's start is mapped at ``base``: pages are aligned in memory, not in the file.
    """
    start = -(-(extent.start + base) // unit_bytes) * unit_bytes - base
    return Extent(start, max(start, (extent.end + base) // unit_bytes * unit_bytes - base))


def merged_pages(pieces: Sequence[Extent]) -> list[Extent]:
    """Page-aligned cover of the pieces, overlaps merged; empty pieces left out."""
    merged: list[Extent] = []
    for pages in sorted((page_range(piece) for piece in pieces if piece.size > 0), key=lambda r: r.start):
        start = pages.start * PAGE_BYTES
        end = pages.stop * PAGE_BYTES
        if merged and start <= merged[-1].end:
            start, last = merged.pop()
            end = max(end, last)
        merged.append(Extent(start, end))
    return merged


def plan_split(
    blocks: Sequence[Extent],
    always_bytes: int,
    available_bytes: int,
    *,
    mapped_bytes: int = 0,
    base: int = 0,
) -> StreamPlan:
    """Least streaming that fits.

    What must stay and the blocks exceed what is available to all weights;
    :func:`harness.speed.storage.least_split` says which part of each block takes the excess off.
    ``always_bytes`` are other weights that each pass reads whole (output matrix); the file's start is mapped
    at the address ``base``.

    Raises:
        NoRoomError: Even streaming all blocks needs more.
    """
    total_bytes = always_bytes + sum(block.size for block in blocks)
    whole = StreamPlan(
        slot_bytes=0,
        slot_count=0,
        pinned_bytes=total_bytes,
        streamed_bytes=0,
        mapped_bytes=mapped_bytes,
        available_bytes=available_bytes,
    )
    if total_bytes <= available_bytes:
        return whole
    for unit_bytes in (HUGE_PAGE_BYTES, PAGE_BYTES):
        room = [whole_pages(block, unit_bytes, base).size for block in blocks]
        split = least_split(room, total_bytes - available_bytes, unit_bytes)
        if split is not None:
            numbers: list[int] = []
            for block, count in enumerate(split.counts):
                numbers += [block] * count
            return whole.replace(
                slot_bytes=split.slot_bytes,
                slot_count=split.slot_count,
                pinned_bytes=total_bytes - split.streamed_bytes,
                streamed_bytes=split.streamed_bytes,
                blocks=tuple(numbers),
                unit_bytes=unit_bytes,
            )
    slot_bytes = slot_of(room, unit_bytes)
    room = [size // slot_bytes * slot_bytes for size in room]
    raise NoRoomError(total_bytes - sum(room) + 2 * max(room, default=0), ROOM_FOR_BLOCKS)


class FileLayout(NamedTuple):
    """Where the weights lie in a GGUF file: its blocks in order, and other tensors that a pass reads whole.

    ``mapped`` is the token table when it is only looked up, None when it is the output matrix too.
    """

    blocks: tuple[Extent, ...]
    others: tuple[Extent, ...]
    mapped: Extent | None


def _extent_of(tensor: Tensor) -> Extent:
    return Extent(tensor.offset_bytes, tensor.offset_bytes + tensor.size_bytes)


def layout_of(path: Path) -> FileLayout:
    """Read where each block's tensors lie.

    Raises:
        BadDataError: The file is no GGUF file.
        RefusedError: The tensors of a block are scattered over the file.
    """
    blocks: dict[int, list[Extent]] = {}
    others: dict[str, Extent] = {}
    for tensor in read_gguf(path).tensors:
        extent = _extent_of(tensor)
        head, number, *_ = (*tensor.name.split("."), "")
        if head == "blk":
            blocks.setdefault(int(number), []).append(extent)
        else:
            others[tensor.name] = extent
    spans = []
    for _, extents in sorted(blocks.items()):
        spans.append(Extent(min(extents).start, max(extent.end for extent in extents)))
    if any(before.end > after.start for before, after in pairwise(sorted([*spans, *others.values()]))):
        raise RefusedError(
            f"{path.name}: the tensors of a block are scattered over the file: it cannot be streamed"
        )
    # Where there is no output matrix the token table is that too.
    mapped = others.pop("token_embd.weight", None) if "output.weight" in others else None
    return FileLayout(tuple(spans), tuple(others.values()), mapped)


class Stack(NamedTuple):
    """Stacked tensor from byte ``start`` of the file on; a ``late`` one (``ffn_down``) is read from later."""

    name: str
    start: int
    slice_bytes: int
    late: bool

    def slice(self, expert: int) -> Extent:
        """Where that expert's slice lies."""
        start = self.start + expert * self.slice_bytes
        return Extent(start, start + self.slice_bytes)


class ExpertLayout(NamedTuple):
    """Where the weights of a mixture of experts lie.

    ``layers`` are the stacked tensors by the layer's number in the order of their use, ``rest`` all other
    tensors that a pass reads whole (``rest_bytes`` counts whole pages), ``base`` the layout of blocks.
    """

    expert_count: int
    used_count: int
    layers: dict[int, tuple[Stack, ...]]
    rest: tuple[Extent, ...]
    rest_bytes: int
    base: FileLayout

    @property
    def expert_bytes(self) -> int:
        """Bytes of all routed experts."""
        return self.expert_count * sum(s.slice_bytes for stacks in self.layers.values() for s in stacks)

    @property
    def stacked(self) -> list[Extent]:
        """Extents of whole stacked tensors."""
        count = self.expert_count
        return [
            Extent(s.start, s.start + count * s.slice_bytes)
            for stacks in self.layers.values()
            for s in stacks
        ]

    def footprint_bytes(self, layer: int) -> int:
        """Most memory that one expert of a layer takes: pages that hold any of it."""
        return sum(
            max(len(page_range(s.slice(e))) for e in range(self.expert_count)) * PAGE_BYTES
            for s in self.layers[layer]
        )


def page_range(extent: Extent) -> range:
    """Numbers of the pages that hold any of it."""
    return range(extent.start // PAGE_BYTES, -(-extent.end // PAGE_BYTES))


def expert_layout_of(path: Path) -> ExpertLayout | None:
    """Read where the experts lie; None for a model without routed experts.

    Raises:
        BadDataError: The file is no GGUF file.
        RefusedError: Its layers differ in their number of experts, or a block is scattered over the file.
    """
    header = read_gguf(path)
    is_mixture = any(_STACKED.fullmatch(tensor.name) for tensor in header.tensors)
    experts = header.shape().experts if is_mixture else None
    if experts is None:
        return None
    base = layout_of(path)
    stacks: dict[int, dict[str, Stack]] = {}
    rest: list[Extent] = []
    for tensor in header.tensors:
        extent = _extent_of(tensor)
        match = _STACKED.fullmatch(tensor.name)
        if match:
            if tensor.dims[-1] != experts.expert_count:
                raise RefusedError(
                    f"{path.name}: {tensor.name} stacks {tensor.dims[-1]} experts, the header says "
                    f"{experts.expert_count}: its experts cannot be streamed"
                )
            size = tensor.size_bytes // experts.expert_count
            stack = Stack(tensor.name, extent.start, size, match[2] == "down")
            stacks.setdefault(int(match[1]), {})[match[2]] = stack
        elif extent != base.mapped:
            rest.append(extent)
        else:  # pages that the token table shares with a neighbour must not be laid over empty
            rest += [Extent(extent.start, extent.start + 1), Extent(extent.end - 1, extent.end)]
    layers = {n: tuple(stack[k] for k in _USE_ORDER if k in stack) for n, stack in sorted(stacks.items())}
    rest_bytes = sum(extent.size for extent in merged_pages(rest))
    return ExpertLayout(experts.expert_count, experts.used_count, layers, tuple(rest), rest_bytes, base)


def plan_experts(layout: ExpertLayout, room_bytes: int, batch_tokens: int) -> ExpertPlan:
    """All but routed experts stays; what is left of ``room_bytes`` (for all weights) holds experts.

    A node of the graph multiplies with all experts that the tokens of a pass want, so those of one layer must
    fit at once: min(n, k t) of n experts for t tokens that want k each. Where fewer fit, passes have fewer
    than ``batch_tokens``.

    Raises:
        NoRoomError: All but the experts, and the experts of one token in one layer, need more.
    """
    n = layout.expert_count
    k = layout.used_count
    cache = room_bytes - layout.rest_bytes
    largest = max(layout.footprint_bytes(layer) for layer in layout.layers)
    most = cache // largest
    if most < k:
        raise NoRoomError(
            layout.rest_bytes + k * largest,
            f"{format_bytes(layout.rest_bytes)} that every token reads, and {k} experts of a layer",
        )
    mapped = layout.base.mapped
    return ExpertPlan(
        pinned_bytes=layout.rest_bytes,
        expert_bytes=layout.expert_bytes,
        cache_bytes=min(cache, n * sum(layout.footprint_bytes(layer) for layer in layout.layers)),
        layer_count=len(layout.layers),
        expert_count=n,
        used_count=k,
        batch_tokens=batch_tokens if most >= n else min(batch_tokens, max(most // k, 1)),
        mapped_bytes=mapped.size if mapped else 0,
        available_bytes=room_bytes,
    )
