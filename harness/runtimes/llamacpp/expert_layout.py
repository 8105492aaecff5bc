"""Where each routed expert lies in a GGUF file, and what of a mixture of experts stays under a budget.

A stacked tensor ``ffn_{gate,up,gate_up,down}_exps`` holds one slice of equal size for each expert, one after the other.
An expert is its slices of all stacked tensors of its layer: they are wanted together, so they come and go together.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

from harness.catalog.gguf import read_gguf
from harness.domain.streaming import PAGE_BYTES, ExpertPlan
from harness.errors import RefusedError
from harness.runtimes.llamacpp.laid_memory import merged_pages
from harness.runtimes.llamacpp.stream_plan import Extent, FileLayout, layout_of

_STACKED: Final = re.compile(r"blk\.(\d+)\.ffn_(gate_up|up|gate|down)_exps\.weight")
_USE_ORDER: Final = ("gate_up", "up", "gate", "down")


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

    ``layers`` are the stacked tensors by the layer's number in the order of their use, ``rest`` all other tensors that
    a pass reads whole (``rest_bytes`` counts whole pages), ``base`` the layout of blocks.
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
        return [Extent(s.start, s.start + count * s.slice_bytes) for stacks in self.layers.values() for s in stacks]

    def footprint_bytes(self, layer: int) -> int:
        """Most memory that one expert of a layer takes: pages that hold any of it."""
        return sum(
            max(len(page_range(s.slice(e))) for e in range(self.expert_count)) * PAGE_BYTES for s in self.layers[layer]
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
    experts = header.shape().experts if any(_STACKED.fullmatch(t.name) for t in header.tensors) else None
    if experts is None:
        return None
    base = layout_of(path)
    stacks: dict[int, dict[str, Stack]] = {}
    rest: list[Extent] = []
    for tensor in header.tensors:
        extent = Extent(tensor.offset_bytes, tensor.offset_bytes + tensor.size_bytes)
        if match := _STACKED.fullmatch(tensor.name):
            if tensor.dims[-1] != experts.expert_count:
                raise RefusedError(
                    f"{path.name}: {tensor.name} stacks {tensor.dims[-1]} experts, the header says "
                    f"{experts.expert_count}: its experts cannot be streamed"
                )
            size = tensor.size_bytes // experts.expert_count
            kind = match[2]
            stacks.setdefault(int(match[1]), {})[kind] = Stack(tensor.name, extent.start, size, kind == "down")
        elif extent != base.mapped:
            rest.append(extent)
    if base.mapped is not None:  # pages that the token table shares with a neighbour must not be laid over empty
        rest += [Extent(base.mapped.start, base.mapped.start + 1), Extent(base.mapped.end - 1, base.mapped.end)]
    layers = {n: tuple(found[k] for k in _USE_ORDER if k in found) for n, found in sorted(stacks.items())}
    rest_bytes = sum(e.end - e.start for e in merged_pages(rest))
    return ExpertLayout(experts.expert_count, experts.used_count, layers, tuple(rest), rest_bytes, base)


def plan_experts(layout: ExpertLayout, room_bytes: int, batch_tokens: int) -> ExpertPlan:
    """All but routed experts stays; what is left of ``room_bytes`` (for all weights) holds experts.

    A node of the graph multiplies with all experts that the tokens of a pass want, so those of one layer must fit at
    once: min(n, k t) of n experts for t tokens that want k each. Where fewer fit, passes have fewer than
    ``batch_tokens``.

    Raises:
        RefusedError: All but the experts, and the experts of one token in one layer, need more.
    """
    n, k = layout.expert_count, layout.used_count
    cache = room_bytes - layout.rest_bytes
    largest = max(layout.footprint_bytes(layer) for layer in layout.layers)
    most = cache // largest
    if most < k:
        raise RefusedError(
            f"streaming experts needs {layout.rest_bytes + k * largest} bytes for weights ({layout.rest_bytes} that "
            f"every token reads, and {k} experts of a layer), and {max(room_bytes, 0)} are left of the budget"
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
        mapped_bytes=mapped.end - mapped.start if mapped else 0,
        available_bytes=room_bytes,
    )
