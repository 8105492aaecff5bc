"""Which split of a model between a GPU's memory and the CPU's is best: the one that moves least to the CPU."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from harness.domain.device import DeviceProfile
from harness.domain.model import ModelShape, Weights
from harness.domain.placement import Placement
from harness.domain.prediction import MemoryPart
from harness.domain.scenario import Scenario
from harness.predict.kv_cache import block_cache_bytes, cells_of
from harness.predict.memory import SPREAD_RATIO, memory_of, total_bytes
from harness.predict.placed import cards_of, fullest_card, held_by_card, parts_of, rooms_of


def best_split(
    weights: Weights, device: DeviceProfile, scenario: Scenario, beside_bytes: int = 0
) -> Placement | None:
    """The first placement, from all on the cards to all with the CPU, that leaves room on both sides.

    None for none.

    What moves to the CPU is slower there, so the least that must move is best. Memory on a card falls from
    step to step but for its scratch, which may grow by a matrix: so the search ends with a look at the next
    few steps. The room left on a card is that of the interval of its memory; ``beside_bytes`` of one hold
    something else. Several cards share by their memory.

    Raises:
        ValueError: The KV type's blocks do not divide a row of keys.
    """
    listed = _levelled_steps(weights, device, scenario)

    def has_room(parts: Iterable[MemoryPart]) -> bool:
        return fullest_card(parts, device, beside_bytes) * (1 + SPREAD_RATIO) <= 1

    def is_light_enough(placement: Placement) -> bool:
        return has_room(memory_of(weights, scenario, device, placement).parts)

    first = 0
    if not is_light_enough(listed[0]):
        first = bisect_left(listed, True, 1, key=is_light_enough)
    for placement in listed[first : first + _LOOK_AHEAD]:
        parts = memory_of(weights, scenario, device, placement).parts
        in_ram = total_bytes(part for part in parts if part.pool == "ram")
        if has_room(parts) and in_ram <= device.pool("ram").usable_bytes.value:
            return placement
    return None


_LOOK_AHEAD: Final = 4


def steps(shape: ModelShape, shares: tuple[float, ...]) -> Iterator[Placement]:
    """From all on the GPU to all with the CPU: experts first where there are any, then whole blocks."""
    blocks = shape.layer_count
    if shape.experts is not None:
        moe = blocks
    else:
        moe = 0
    for count in range(moe + 1):
        if count == 0 or shape.is_moe_layer(count - 1):
            yield Placement(cpu_moe=count, tensor_split=shares)
    for layers in range(blocks, -1, -1):
        yield Placement(gpu_layers=layers, cpu_moe=moe, tensor_split=shares)


def _levelled_steps(weights: Weights, device: DeviceProfile, scenario: Scenario) -> list[Placement]:
    """The same for a device: experts leave from the first block on, so from the first card, which takes more blocks."""
    listed = [
        step.replace(kv_on_gpu=scenario.placement.kv_on_gpu)
        for step in steps(weights.shape, device.card_shares)
    ]
    moved = [step for step in listed if step.cpu_moe and step.gpu_layers == "all"]
    if not moved or device.card_count < 2:
        return listed
    level = _levels(weights, device, scenario, moved[0])
    levelled = {step: step.replace(tensor_split=level(step.cpu_moe)) for step in moved}
    return [levelled.get(step, step) for step in listed]


def _levels(
    weights: Weights, device: DeviceProfile, scenario: Scenario, first: Placement
) -> Callable[[int], tuple[float, ...]]:
    """Tells the blocks of each card, the output as one, that make all as full where so many blocks' experts are away.

    What is on a card beside its blocks is taken from ``first``, the least that moves: copies of experts for a
    prompt lie with the blocks they belong to.
    """
    blocks = weights.shape.layer_count
    rooms = rooms_of(device, device.card_count)
    held = [*(block_cache_bytes(weights.shape, cells_of(scenario)) if first.kv_on_gpu else [0] * blocks), 0]
    experts = [0] * (blocks + 1)
    for tensor in parts_of(weights, Placement()).gpu.tensors:
        block = min(tensor.block, blocks)  # -1, what is in no block, lies behind the last too
        held[block] += tensor.size_bytes
        if tensor.role == "expert":
            experts[block] += tensor.size_bytes

    def left(cpu_moe: int) -> list[int]:
        return [size - (experts[block] if block < cpu_moe else 0) for block, size in enumerate(held)]

    beside = held_by_card(memory_of(weights, scenario, device, first).parts)
    for card, size in zip(cards_of(blocks, first), left(first.cpu_moe), strict=True):
        beside[card] -= size

    def split(sizes: list[int], full: float) -> tuple[list[float], bool]:
        """Blocks in order, each card but the last at most so full; and whether the last is, too."""
        counts = [0.0] * len(rooms)
        card = 0
        taken = beside[0]
        for size in sizes:
            while taken + size > full * rooms[card] and card + 1 < len(rooms):
                card += 1
                taken = beside[card]
            counts[card] += 1
            taken += size
        return counts, taken <= full * rooms[card]

    def level(cpu_moe: int) -> tuple[float, ...]:
        sizes = left(cpu_moe)
        low = 0.0
        high = 2 * (sum(sizes) + sum(beside.values())) / min(rooms)
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (low, middle) if split(sizes, middle)[1] else (middle, high)
        return tuple(split(sizes, high)[0])

    return level
