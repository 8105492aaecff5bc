"""Which split of a model between a GPU's memory and the CPU's is best: the one that moves least to the CPU.

What a program that fits a model by itself makes of a card: a shorter context, then layers or experts with the CPU.

1. All on the cards at the context wanted: if the target stays free, nothing changes. 2. Else, where no
context is asked for, the line between its least context and the model's own is read at the target. 3. Else,
and still too much, experts of a mixture, then layers go to the CPU.

A context that is asked for skips 2, a number of layers stops after it.

Source: llama.cpp, common/fit.cpp (``common_params_fit_impl``); Ollama, server/routes.go.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from harness.core.base import Frozen
from harness.core.device import Device
from harness.core.model import ModelShape, Weights
from harness.core.placement import Placement
from harness.core.prediction import MemoryPart, PartKind
from harness.core.program import ollama_batch, ollama_context, program_named
from harness.core.scenario import Scenario
from harness.core.units import MIB, format_bytes
from harness.memory.kv_cache import block_cache_bytes, cells_of
from harness.memory.peak import SPREAD_RATIO, memory_of, total_bytes
from harness.memory.placed import cards_of, fullest_card, held_by_card, parts_of, rooms_of


def best_split(
    weights: Weights, device: Device, scenario: Scenario, beside_bytes: int = 0
) -> Placement | None:
    """The first placement that leaves room on both sides, from all on the cards to all with the CPU, or None.

    What moves to the CPU is slower there, so the least that must move is best. Memory on a card falls from
    step to step but for its scratch, which may grow by a matrix: so the search ends with a look at the next
    few steps. The room left on a card is that of the interval of its memory; ``beside_bytes`` of one card hold
    something else. Several cards share by their memory, and where that is too much, so that all are as full.

    Raises:
        ValueError: The KV type's blocks do not divide a row of keys.
    """
    kept = scenario.placement.kv_on_gpu
    listed = [step.replace(kv_on_gpu=kept) for step in steps(weights.shape, device.card_shares)]
    if device.card_count > 1:
        level = _levels(weights, device, scenario, next((s for s in listed if s.cpu_moe), listed[0]))
        listed = [listed[0], *listed]
    else:
        level = None

    def at(place: int) -> Placement:
        return listed[place] if level is None or not place else level(listed[place])

    def has_room(parts: Iterable[MemoryPart]) -> bool:
        return fullest_card(parts, device, beside_bytes) * (1 + SPREAD_RATIO) <= 1

    def is_light_enough(placement: Placement) -> bool:
        return has_room(memory_of(weights, scenario, device, placement).parts)

    first = 0
    if not is_light_enough(at(0)):
        first = bisect_left(range(len(listed)), True, 1, key=lambda place: is_light_enough(at(place)))
    for placement in map(at, range(len(listed))[first : first + _LOOK_AHEAD]):
        parts = memory_of(weights, scenario, device, placement).parts
        in_ram = total_bytes(part for part in parts if not part.is_beside_ram)
        if has_room(parts) and in_ram <= device.ram.usable_bytes.value:
            return placement
    return None


_LOOK_AHEAD: Final = 4
_FILLED_RATIO: Final = 0.99 / (1 + SPREAD_RATIO)
"""Of what an app may use of a card; the scratch of a card grows a little with its layers."""


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


def quick_first(weights: Weights, device: Device, scenario: Scenario) -> Iterator[Placement]:
    """All layers over unlike cards, the quicker ones filled first: one card so, then two, and so on."""
    rates = [(card.own_pool or card.ram).bandwidth_bytes_per_s.value for card in device.cards]
    order = sorted(range(len(rates)), key=lambda card: -rates[card])
    whole = Placement(tensor_split=device.card_shares, kv_on_gpu=scenario.placement.kv_on_gpu)
    for count in range(1, len(order) if len(set(rates)) > 1 else 0):
        placement = _levels(weights, device, scenario, whole, frozenset(order[:count]))(whole)
        parts = memory_of(weights, scenario, device, placement).parts
        is_alone = sum(share > 0 for share in placement.tensor_split) < 2
        if not is_alone and fullest_card(parts, device) * (1 + SPREAD_RATIO) <= 1:
            yield placement


def _levels(
    weights: Weights,
    device: Device,
    scenario: Scenario,
    first: Placement,
    filled: frozenset[int] = frozenset(),
) -> Callable[[Placement], Placement]:
    """Gives a placement the blocks of each card, the output as one, that make all cards as full.

    Experts leave from the first block on, so from the first card, which then takes more blocks.

    What is on a card beside its blocks is taken from ``first``, the least that moves: copies of experts for a
    prompt lie with the blocks they belong to. Cards that are ``filled`` take all that has room, with a margin.
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

    def left(step: Placement) -> list[int]:
        start = step.first_gpu_block(blocks)
        return [
            size - (experts[block] if block < step.cpu_moe else 0)
            for block, size in enumerate(held)
            if block >= start
        ]

    beside = held_by_card(memory_of(weights, scenario, device, first).parts)
    for card, size in zip(cards_of(blocks, first), left(first), strict=True):
        beside[card] -= size

    def split(sizes: list[int], full: float) -> tuple[list[float], bool]:
        """Blocks in order, each card but the last at most so full; and whether the last is, too."""
        counts = [0.0] * len(rooms)
        card = 0
        taken = beside[0]
        for size in sizes:
            while taken + size > most(card, full) and card + 1 < len(rooms):
                card += 1
                taken = beside[card]
            counts[card] += 1
            taken += size
        return counts, taken <= most(card, full)

    def most(card: int, full: float) -> float:
        return rooms[card] * (_FILLED_RATIO if card in filled else full)

    def level(step: Placement) -> Placement:
        sizes = left(step)
        low = 0.0
        high = 2 * (sum(sizes) + sum(beside.values())) / min(rooms)
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (low, middle) if split(sizes, middle)[1] else (middle, high)
        return step.replace(tensor_split=tuple(split(sizes, high)[0]))

    return level


LEAST_CONTEXT_TOKENS: Final = 4096
_STEP_TOKENS: Final = 256
_OF_CPU: Final = {PartKind.CPU_WEIGHTS, PartKind.CPU_KV_CACHE}
_OF_GPU: Final = {PartKind.WEIGHTS, PartKind.KV_CACHE, PartKind.COMPUTE, PartKind.DRIVER}


class ProgramFit(Frozen):
    """What a user of a program gets.

    Attributes:
        scenario: With the context and the placement that the program takes.
        fits: Whether its target stays free.
        why: The same in words.
    """

    scenario: Scenario
    fits: bool
    why: str


def program_fit(
    weights: Weights,
    scenario: Scenario,
    device: Device,
    *,
    context_asked: bool,
    layers_asked: bool = False,
) -> ProgramFit | None:
    """What the scenario's program makes of the device; None for one that takes what it is told.

    Raises:
        UnknownNameError: No such program.
        ValueError: The KV type's blocks do not divide a row of keys.
    """
    program = program_named(scenario.program)
    if not program.fit:
        return None
    api = device.api(scenario.api)
    pool = device.pool(device.pool_for(api))
    trained = weights.shape.context_max_tokens or LEAST_CONTEXT_TOKENS
    if not context_asked:
        wanted = program.context_tokens
        if wanted < 0:
            wanted = ollama_context((api != "cpu") * device.card_count * pool.total_bytes.value)
        context_asked = wanted > 0
        scenario = scenario.replace(context_tokens=min(wanted or trained, trained))
    if program.ubatch_tokens < 0:
        scenario = scenario.replace(ubatch_tokens=ollama_batch(scenario.context_tokens))
    usable = pool.usable_bytes.value
    room = usable - program.fit_target_mib * MIB
    shares_ram = not pool.is_own and api != "cpu"

    def held(one: Scenario) -> int:
        size = 0
        for part in memory_of(weights, one, device).parts:
            # A GPU's limit does not bind what the CPU holds of the same memory.
            is_counted = part.kind in _OF_GPU or not (shares_ram or part.kind in _OF_CPU)
            size += part.size_bytes * (part.pool == pool.name and is_counted)
        return size

    def answer(one: Scenario, words: str) -> ProgramFit:
        why = f"{program.written} fits the model by itself: {words}"
        return ProgramFit(scenario=one, fits=held(one) <= usable, why=why)

    context = scenario.context_tokens
    most = held(scenario)
    over_cards = most > room and device.card_count > 1 and not layers_asked
    if over_cards and (spread := best_split(weights, device, scenario)) is not None:
        words = f"you get {context:,} tokens of context over {device.card_count} cards"
        return answer(scenario.replace(placement=spread), words).replace(fits=True)
    if most <= room:
        return answer(scenario, f"you get all {context:,} tokens of context and all layers on the card")
    if not context_asked and trained > LEAST_CONTEXT_TOKENS:
        scenario = scenario.replace(context_tokens=LEAST_CONTEXT_TOKENS)
        least = held(scenario)
        if least <= room:
            share = (room - least) / (most - least)
            tokens = int(LEAST_CONTEXT_TOKENS + share * (context - LEAST_CONTEXT_TOKENS))
            shorter = scenario.replace(context_tokens=tokens // _STEP_TOKENS * _STEP_TOKENS)
            got = f"you get {shorter.context_tokens:,} of {trained:,} tokens of context"
            return answer(shorter, f"{got}, all layers on the card")
    engine = device.engine_for(api)
    if layers_asked or engine is None or engine.kind != "gpu":
        return answer(scenario, f"it leaves less than {format_bytes(program.fit_target_mib * MIB)} free")
    blocks = weights.shape.layer_count
    got = f"you get {scenario.context_tokens:,} tokens of context"

    def placed(moved: int, *, experts: bool) -> Scenario:
        placement = scenario.placement.replace(gpu_layers=blocks + 1 - moved)
        if experts:
            placement = scenario.placement.replace(cpu_moe=moved)
        return scenario.replace(placement=placement)

    def least_moved(*, experts: bool) -> int:
        return bisect_left(range(blocks + 1), True, key=lambda n: held(placed(n, experts=experts)) <= room)

    has_room = weights.shape.experts is not None and held(placed(blocks, experts=True)) <= room
    moved = least_moved(experts=has_room)
    on_card = f"{blocks + 1 - moved} of {blocks + 1} layers on the card"
    words = f"experts of {moved} of {blocks} layers with the CPU" if has_room else on_card
    return answer(placed(moved, experts=has_room), f"{got}, {words}")
