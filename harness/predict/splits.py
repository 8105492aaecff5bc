"""Which split of a model between a GPU's memory and the CPU's is best: the one that moves least to the CPU."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

from harness.domain.device import DeviceProfile
from harness.domain.model import ModelShape, Weights
from harness.domain.placement import Placement
from harness.domain.prediction import MemoryPart
from harness.domain.scenario import Scenario
from harness.predict.memory import SPREAD_RATIO, driver_share, memory_of, weight_parts


def best_split(
    weights: Weights, device: DeviceProfile, scenario: Scenario, shares: tuple[float, ...] = (), beside_bytes: int = 0
) -> Placement | None:
    """The first placement, from all on the cards to all with the CPU, that leaves room on both sides; None for none.

    What moves to the CPU is slower there, so the least that must move is best. Memory on a card falls from step to step
    but for its scratch, which may grow by a matrix: so the search ends with a look at the next few steps. It begins
    where weights alone have room, since scratch takes a graph to count. The room left on a card is that of
    the interval of its memory; ``beside_bytes`` of one hold something else. Of several cards the pool is the mean, and
    ``shares`` are in proportion to their memory.

    Raises:
        ValueError: The KV type's blocks do not divide a row of keys.
    """
    listed = [step.replace(kv_on_gpu=scenario.placement.kv_on_gpu) for step in steps(weights.shape, shares)]
    mean = sum(shares) / len(shares) if shares else 1.0
    api = device.api(scenario.api)

    def has_room(card_bytes: float) -> bool:
        return (card_bytes + beside_bytes) * (1 + SPREAD_RATIO) <= device.pool("vram").usable_bytes.value

    def is_light_enough(placement: Placement) -> bool:
        return has_room(fullest_card(memory_of(weights, scenario, device, placement).parts, shares) * mean)

    def may_be_light_enough(placement: Placement) -> bool:
        alone = weight_parts(weights, scenario.replace(placement=placement), api, device)
        return has_room(fullest_card(alone, shares) * mean + driver_share(api, device).mid)

    low = bisect_left(listed, True, key=may_be_light_enough)
    width = 1
    while low + width <= len(listed) and not is_light_enough(listed[low + width - 1]):
        low, width = low + width, 2 * width
    first = bisect_left(listed, True, low, min(low + width - 1, len(listed)), key=is_light_enough)
    for placement in listed[first : first + _LOOK_AHEAD]:
        parts = memory_of(weights, scenario, device, placement).parts
        if has_room(fullest_card(parts, shares) * mean) and ram_bytes(parts) <= device.pool("ram").usable_bytes.value:
            return placement
    return None


_LOOK_AHEAD: Final = 4


def steps(shape: ModelShape, shares: tuple[float, ...]) -> Iterator[Placement]:
    """From all on the GPU to all with the CPU: experts first where there are any, then whole blocks."""
    split = shares if len(shares) > 1 else ()
    blocks = shape.layer_count
    if shape.experts is not None:
        for count in range(blocks + 1):
            if count == 0 or shape.is_moe_layer(count - 1):
                yield Placement(cpu_moe=count, tensor_split=split)
    else:
        yield Placement(tensor_split=split)
    moe = blocks if shape.experts is not None else 0
    for layers in range(blocks, -1, -1):
        yield Placement(gpu_layers=layers, cpu_moe=moe, tensor_split=split)


def fullest_card(parts: Iterable[MemoryPart], shares: tuple[float, ...] = ()) -> float:
    """Bytes on the card that has most, over its share where cards have several."""
    by_card: dict[str, float] = {}
    for part in parts:
        if part.pool == "vram":
            card = part.name.partition(", card ")[2]
            by_card[card] = by_card.get(card, 0) + part.anonymous_bytes / (shares[int(card)] if card and shares else 1)
    return max(by_card.values(), default=0)


def ram_bytes(parts: Iterable[MemoryPart]) -> int:
    """Bytes in RAM, held or mapped."""
    return sum(part.anonymous_bytes + part.file_bytes for part in parts if part.pool == "ram")
