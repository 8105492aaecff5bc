"""A model split between a GPU's memory and the CPU's: what lies where."""

from typing import Final, NamedTuple

from msgspec.structs import replace

from harness.domain.device import DeviceProfile, MemoryPool
from harness.domain.model import Tensor, Weights
from harness.domain.placement import Placement
from harness.domain.prediction import MemoryPart, MemoryPrediction
from harness.domain.scenario import Scenario
from harness.predict.compute_buffer import HOST, Layout, scratch_bytes
from harness.predict.kv_cache import block_cache_bytes, cells_of
from harness.predict.memory import (
    cell_records,
    driver_share,
    later_parts,
    predict_memory,
    predicted,
    process_parts,
    total_bytes,
)
from harness.predict.tensors import block_of
from harness.predict.weights import has_output, role_of

SPREAD_RATIO: Final = 0.03
"""Half width of the 90 % interval of a split's memory."""


class Parts(NamedTuple):
    """The tensors by where they are computed, each group as a model of its own (:func:`parts_of`).

    ``experts`` lie with the CPU while the rest of their block is the GPU's.
    """

    gpu: Weights
    cpu: Weights
    experts: Weights
    first_gpu_block: int


def parts_of(weights: Weights, placement: Placement) -> Parts:
    """Where llama.cpp lays each tensor: blocks from ``first_gpu_block`` on, and the output, lie with the GPU.

    A token table that also is the output has a copy with the GPU; as a table it stays with the CPU.
    """
    shape = weights.shape
    start = placement.first_gpu_block(shape.layer_count)
    output_on_gpu, tied = start <= shape.layer_count, not has_output(weights)
    groups: dict[str, list[Tensor]] = {"gpu": [], "cpu": [], "experts": []}
    for tensor in weights.tensors:
        block = block_of(tensor.name)
        if block < 0:
            if role_of(tensor.name) != "embedding" or (tied and tensor.name == "token_embd.weight"):
                groups["gpu" if output_on_gpu else "cpu"].append(tensor)
        elif block < start:
            groups["cpu"].append(tensor)
        else:
            away = block < placement.cpu_moe and role_of(tensor.name) == "expert"
            groups["experts" if away else "gpu"].append(tensor)

    def model(name: str, blocks: int) -> Weights:
        return replace(weights, shape=replace(shape, layer_count=blocks), tensors=tuple(groups[name]))

    return Parts(
        model("gpu", max(shape.layer_count - start, 0)),
        model("cpu", min(start, shape.layer_count)),
        model("experts", 0),
        start,
    )


def card_of(block: int, first: int, layer_count: int, shares: tuple[float, ...]) -> int:
    """The card of a block: the first whose shares so far exceed (block - first) / layers on GPUs.

    Source: llama.cpp, src/llama-model.cpp (``upper_bound`` over the running sums).
    """
    total, passed, position = sum(shares), 0.0, (block - first) / max(layer_count + 1 - first, 1)
    for card, share in enumerate(shares):
        passed += share / total
        if position < passed:
            return card
    return len(shares) - 1


def with_cards(device: DeviceProfile, count: int) -> DeviceProfile:
    """The device with so many of its cards: their memory together, each as fast as before."""

    def several(pool: MemoryPool) -> MemoryPool:
        if pool.name != "vram":
            return pool
        total, usable = (replace(f, value=f.value * count) for f in (pool.total_bytes, pool.usable_bytes))
        return replace(pool, total_bytes=total, usable_bytes=usable)

    return device if count == 1 else replace(device, pools=tuple(several(pool) for pool in device.pools))


def placed_memory(
    weights: Weights, scenario: Scenario, device: DeviceProfile, api: str, shares: tuple[float, ...] = (1.0,)
) -> MemoryPrediction:
    """Memory of a split run, part by part with its pool; cards after the first are named with their number.

    Raises:
        ValueError: The KV type's blocks do not divide a row of keys.
    """
    placement, shape = scenario.placement, weights.shape
    parts = parts_of(weights, placement)
    start, vram = parts.first_gpu_block, device.pool_for(api)
    cache = block_cache_bytes(shape, cells_of(scenario))
    scratch = scratch_bytes(shape, scenario, layout_of(parts, scenario, api, shares))
    listed: list[MemoryPart] = []
    for card in range(len(shares)):
        name = f", card {card}" if len(shares) > 1 else ""
        mine = {b for b in range(start, shape.layer_count) if card_of(b, start, shape.layer_count, shares) == card}
        last = card_of(shape.layer_count, start, shape.layer_count, shares) == card
        held = sum(t.size_bytes for t in parts.gpu.tensors if (b := block_of(t.name)) in mine or (last and b < 0))
        kv = sum(cache[b] for b in mine) if placement.kv_on_gpu else 0
        for part, size, reason in (
            ("weights", held, f"{len(mine)} blocks"),
            ("kv cache", kv, "of its blocks"),
            ("compute buffer", scratch.get(card, 0), "for good"),
            ("driver", int(driver_share(api, device).mid), f"{api} context"),
        ):
            listed.append(MemoryPart(name=f"{part}{name}", anonymous_bytes=size, reason=reason, pool=vram))
    table = sum(t.size_bytes for t in weights.tensors if role_of(t.name) == "embedding")
    tensors = {t.name: t.size_bytes for part in (parts.cpu, parts.experts) for t in part.tensors}
    on_cpu = sum(size for name, size in tensors.items() if "token_embd" not in name) + table
    kv = sum(cache) - sum(p.anonymous_bytes for p in listed if p.name.startswith("kv cache"))
    host = scratch[HOST] + 4 * shape.vocab_count * cells_of(scenario).sequences
    listed += [
        MemoryPart(
            name="weights with the CPU",
            anonymous_bytes=0 if scenario.mmap else on_cpu,
            file_bytes=on_cpu if scenario.mmap else 0,
            reason=f"{start} blocks, the experts of {max(placement.cpu_moe - start, 0)} more, the token table",
        ),
        MemoryPart(name="kv cache with the CPU", anonymous_bytes=kv, reason="of the CPU's blocks"),
        MemoryPart(name="host buffer", anonymous_bytes=host, reason="inputs of a batch, logits"),
        *cell_records(shape, scenario, vram),
        *(p for p in process_parts(shape, api, device) if p.name != "driver"),
    ]
    total = total_bytes(listed)
    later = later_parts(shape, scenario)
    return predicted(tuple(listed), total, SPREAD_RATIO * total, driver_share(api, device), later)


def memory_of(
    weights: Weights,
    scenario: Scenario,
    device: DeviceProfile,
    program: str | None = None,
    placement: Placement | None = None,
) -> MemoryPrediction:
    """Memory of a run, whole on one engine or split: at load, and what its program adds over many turns.

    ``program`` and ``placement`` stand in for the scenario's.

    Raises:
        UnknownNameError: No such program.
        ValueError: The KV type's blocks do not divide a row of keys.
    """
    asked = {"program": program, "placement": placement}
    scenario = replace(scenario, **{key: value for key, value in asked.items() if value is not None})
    api = device.api(scenario.api)
    engine, placement = device.engine_for(api), scenario.placement
    if engine is None or engine.kind != "gpu" or placement.whole(routed=weights.shape.experts is not None):
        return predict_memory(weights, scenario, api=api, device=device)
    return placed_memory(weights, scenario, device, api, placement.tensor_split or (1.0,))


def layout_of(parts: Parts, scenario: Scenario, api: str, shares: tuple[float, ...]) -> Layout:
    """On which card each block lies, and the largest matrix of each kind that lies with the CPU."""
    placement, start = scenario.placement, parts.first_gpu_block
    blocks = parts.gpu.shape.layer_count + parts.cpu.shape.layer_count
    largest: dict[str, int] = {}
    for tensor in (*parts.cpu.tensors, *parts.experts.tensors):
        kind = "output" if block_of(tensor.name) < 0 else tensor.name.split(".")[-2]
        largest[kind] = max(largest.get(kind, 0), tensor.size_bytes if len(tensor.dims) > 1 else 0)

    def card(block: int, least: int, *, with_gpu: bool = True) -> int:
        return card_of(block, start, blocks, shares) if block >= least and with_gpu else HOST

    return Layout(
        tuple(
            (card(b, start), card(b, max(start, placement.cpu_moe)), card(b, start, with_gpu=placement.kv_on_gpu))
            for b in range(blocks)
        ),
        card(blocks, start),
        tuple(sorted(largest.items())),
        reorders=api == "vulkan",
        has_gpu=api != "cpu",
    )
