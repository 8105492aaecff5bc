"""A model split between a GPU's memory and the CPU's: what lies where."""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from harness.core.device import Device, Pool
from harness.core.model import EMBEDDING_TABLE, LETTERS, Tensor, Weights
from harness.core.placement import Placement
from harness.core.prediction import MemoryPart
from harness.memory.compute_buffer import HOST, Layout

_WITH_EVENTS: Final = {"cuda", "rocm", "vulkan"}


class TensorsBySide(NamedTuple):
    """The tensors by where they are computed, each group as a model of its own (:func:`parts_of`).

    ``experts`` lie with the CPU while the rest of their block is the GPU's.
    """

    gpu: Weights
    cpu: Weights
    experts: Weights
    first_gpu_block: int


@lru_cache(maxsize=64)
def parts_of(weights: Weights, placement: Placement) -> TensorsBySide:
    """Where llama.cpp lays each tensor: blocks from ``first_gpu_block`` on, and the output, lie with the GPU.

    A token table that also is the output has a copy with the GPU; as a table it stays with the CPU.
    """
    shape = weights.shape
    start = placement.first_gpu_block(shape.layer_count)
    output_on_gpu = start <= shape.layer_count
    tied = not weights.has_output
    groups: dict[str, list[Tensor]] = {"gpu": [], "cpu": [], "experts": []}
    for tensor in weights.tensors:
        block = tensor.block
        if block < 0:
            if tensor.role != "embedding" or (tied and tensor.name == EMBEDDING_TABLE):
                groups["gpu" if output_on_gpu else "cpu"].append(tensor)
        elif min(block, shape.layer_count) < start:  # blocks that draft lie with the output
            groups["cpu"].append(tensor)
        else:
            away = block < placement.cpu_moe and tensor.role == "expert"
            groups["experts" if away else "gpu"].append(tensor)

    def model(name: str, blocks: range, drafting: int) -> Weights:
        own = shape.replace(
            layer_count=len(blocks),
            mtp_layer_count=drafting,
            layer_pattern="".join(LETTERS[shape.layer_kind(block)] for block in blocks),
        )
        return weights.replace(shape=own, tensors=tuple(groups[name]))

    drafting = shape.mtp_layer_count
    return TensorsBySide(
        model("gpu", range(min(start, shape.layer_count), shape.layer_count), drafting * output_on_gpu),
        model("cpu", range(min(start, shape.layer_count)), drafting * (not output_on_gpu)),
        model("experts", range(0), drafting * (placement.cpu_moe > shape.layer_count)),
        start,
    )


def card_of(block: int, first: int, layer_count: int, shares: tuple[float, ...]) -> int:
    """The card of a block: the first whose shares so far exceed (block - first) / layers on GPUs.

    Source: llama.cpp, src/llama-model.cpp (``upper_bound`` over the running sums).
    """
    total = sum(shares)
    passed = 0.0
    position = (block - first) / max(layer_count + 1 - first, 1)
    for card, share in enumerate(shares):
        passed += share
        if position < passed / total:  # in this order counts of blocks are met exactly
            return card
    return len(shares) - 1


def with_cards(device: Device, count: int) -> Device:
    """The device with so many of its cards: their memory together, each as fast as before."""

    def several(pool: Pool) -> Pool:
        if not pool.is_own:
            return pool
        total, usable = (f.replace(value=f.value * count) for f in (pool.total_bytes, pool.usable_bytes))
        return pool.replace(total_bytes=total, usable_bytes=usable)

    return device.replace(pools=tuple(map(several, device.pools)))


def cards_of(block_count: int, placement: Placement) -> list[int]:
    """The card of each block, and behind them that of what comes after all blocks; ``HOST`` for the CPU's."""
    start = placement.first_gpu_block(block_count)
    shares = placement.tensor_split or (1.0,)
    blocks = range(block_count + 1)
    return [card_of(block, start, block_count, shares) if block >= start else HOST for block in blocks]


def layout_of(parts: TensorsBySide, placement: Placement, api: str) -> Layout:
    """On which card each block lies, and the largest matrix of each kind that lies with the CPU.

    Batches overlap where an api has events and layers are split over several cards, with nothing at the CPU.

    Source: llama.cpp, src/llama-context.cpp (``pipeline_parallel``).
    """
    largest: dict[str, int] = {}
    for tensor in (*parts.cpu.tensors, *parts.experts.tensors):
        if tensor.block < 0:
            kind = "output"
        else:
            kind = tensor.name.split(".")[-2]
        largest[kind] = max(largest.get(kind, 0), tensor.size_bytes if len(tensor.dims) > 1 else 0)
    *blocks, output = cards_of(parts.gpu.shape.layer_count + parts.cpu.shape.layer_count, placement)
    sides = tuple(
        (card, HOST if block < placement.cpu_moe else card, card if placement.kv_on_gpu else HOST)
        for block, card in enumerate(blocks)
    )
    cards = {side for block in sides for side in block} | {output}
    by_layer = placement.split_mode == "layer" and api in _WITH_EVENTS
    return Layout(
        sides,
        output,
        tuple(sorted(largest.items())),
        api=api,
        is_pipelined=len(cards) > 1 and HOST not in cards and by_layer,
    )


def fullest_card(parts: Iterable[MemoryPart], device: Device, more_bytes: float = 0) -> float:
    """How full the fullest card is: bytes on it and ``more_bytes``, over what an app may use of it.

    A part that is not split lies on the first card.
    """
    held = held_by_card(parts)
    if not held:
        return 0
    rooms = rooms_of(device, len(device.card_shares) or len(held))
    return max((held[card] + more_bytes) / room for card, room in enumerate(rooms))


def held_by_card(parts: Iterable[MemoryPart]) -> Counter[int]:
    """Bytes on each card, by its number."""
    held = Counter[int]()
    for part in parts:
        if part.is_beside_ram:
            held[part.card or 0] += part.anonymous_bytes
    return held


def rooms_of(device: Device, count: int) -> list[float]:
    """What an app may use of each card, in bytes.

    What others use is no less on a small one, but at most half of it.
    """
    if len(device.cards) == count:
        return [(card.own_pool or card.ram).usable_bytes.value for card in device.cards]
    pool = device.own_pool or device.ram
    shares = device.card_shares or (1.0,) * count
    mean = pool.total_bytes.value
    usable = pool.usable_bytes.value
    sizes = [mean * len(shares) * share / sum(shares) for share in shares]
    return [max(size - mean + usable, min(size / 2, usable)) for size in sizes]
