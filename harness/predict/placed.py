"""A model split between a GPU's memory and the CPU's: what lies where, how fast it is, and which split is best."""

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

from msgspec.structs import replace

from harness.domain.base import Frozen
from harness.domain.device import Calibration, DeviceProfile, MemoryPool
from harness.domain.model import ModelShape, Tensor, Weights
from harness.domain.placement import Placement
from harness.domain.prediction import Interval, MemoryPart, MemoryPrediction, SpeedPrediction
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.predict.calibrated import prefill_seconds as calibrated_prefill_s
from harness.predict.calibrated import sequences_parts
from harness.predict.compute_buffer import HOST, Layout, scratch_bytes
from harness.predict.decode import Work
from harness.predict.kv_cache import block_cache_bytes
from harness.predict.learned import believed
from harness.predict.memory import context_bytes, process_parts, total_bytes
from harness.predict.placement import (
    OFFLOAD_TOKENS,
    SHIPPED,
    Cards,
    Split,
    decode_split_s,
    link_bytes_per_s,
    prefill_split_s,
)
from harness.predict.prefill import prompt_of
from harness.predict.speed import first_token, machine_of, predict_speed, work_of
from harness.predict.tensors import block_of
from harness.predict.weights import has_output, role_of

RESIDUALS: Final = {"decode": (-0.23, 0.39), "prefill": (-0.38, 0.70)}
"""5 % and 95 % quantiles of ln(measured / predicted) on published splits, each GPU left out (``validate --rows``)."""
_SPREAD_RATIO: Final = 0.03


class Parts(NamedTuple):
    """The tensors by where they are computed, each group as a model of its own (:func:`parts_of`).

    ``experts`` lie with the CPU while the rest of their block is the GPU's.
    """

    gpu: Weights
    cpu: Weights
    experts: Weights
    first_gpu_block: int


class Choice(Frozen, frozen=True, kw_only=True):
    """One placement, its ``flags`` as options of llama.cpp, and what it gives.

    ``vram_bytes`` are those on the fullest card; it ``fits`` where card and host have the room; ``request_s`` takes
    prompt and new tokens of the scenario.
    """

    placement: Placement
    flags: str
    vram_bytes: int
    ram_bytes: int
    fits: bool
    decode_tokens_per_s: Interval
    prefill_tokens_per_s: Interval
    request_s: float


class Choices(Frozen, frozen=True, kw_only=True):
    """The fastest placement that fits, the next, and the whole curve from all on the GPU to all with the CPU.

    A step of the curve has ``moved`` ``experts`` or ``layers``.
    """

    best: Choice | None
    next_best: Choice | None
    curve: tuple[Choice, ...]
    moved: str


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
    asked = scenario.context_tokens, scenario.kv_type, scenario.ubatch_tokens, scenario.batch_count
    cache = block_cache_bytes(shape, *asked)
    scratch = scratch_bytes(shape, scenario, _layout(parts, scenario, api, shares))
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
            ("driver", context_bytes(api, device), f"{api} context"),
        ):
            listed.append(MemoryPart(name=f"{part}{name}", anonymous_bytes=size, reason=reason, pool=vram))
    table = sum(t.size_bytes for t in weights.tensors if role_of(t.name) == "embedding")
    tensors = {t.name: t.size_bytes for part in (parts.cpu, parts.experts) for t in part.tensors}
    on_cpu = sum(size for name, size in tensors.items() if "token_embd" not in name) + table
    kv = sum(cache) - sum(p.anonymous_bytes for p in listed if p.name.startswith("kv cache"))
    host = scratch[HOST] + 4 * shape.vocab_count * scenario.batch_count
    listed += [
        MemoryPart(
            name="weights with the CPU",
            anonymous_bytes=0 if scenario.mmap else on_cpu,
            file_bytes=on_cpu if scenario.mmap else 0,
            reason=f"{start} blocks, the experts of {max(placement.cpu_moe - start, 0)} more, the token table",
        ),
        MemoryPart(name="kv cache with the CPU", anonymous_bytes=kv, reason="of the CPU's blocks"),
        MemoryPart(name="host buffer", anonymous_bytes=host, reason="inputs of a batch, logits"),
        *(p for p in process_parts(shape, api, device) if p.name != "driver"),
    ]
    total = total_bytes(listed)
    spread = _SPREAD_RATIO * total
    return MemoryPrediction(
        parts=tuple(listed), peak_bytes=Interval(mid=total, low=total - spread, high=total + spread)
    )


def _layout(parts: Parts, scenario: Scenario, api: str, shares: tuple[float, ...]) -> Layout:
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
    )


def split_of(weights: Weights, scenario: Scenario, depth_tokens: float) -> Split:
    """What one token needs of each side."""
    placement, shape = scenario.placement, weights.shape
    parts = parts_of(weights, placement)
    nothing = Work(0.0, 0.0, 0.0, 0.0, "q4")
    gpu, cpu, experts = (
        work_of(part, scenario, depth_tokens) if part.tensors or part.shape.layer_count else nothing
        for part in parts[:3]
    )
    if not placement.kv_on_gpu:
        cpu, gpu = cpu._replace(kv_bytes=cpu.kv_bytes + gpu.kv_bytes), gpu._replace(kv_bytes=0.0)
    start, blocks = parts.first_gpu_block, shape.layer_count
    crossings = len({block_of(t.name) for t in parts.experts.tensors}) + (1 if 0 < start < blocks else 0)
    if not placement.kv_on_gpu:
        crossings = max(crossings, blocks - start)
    e = shape.experts
    moved = [sum(t.size_bytes for t in part.tensors if role_of(t.name) != "embedding") for part in parts[1:3]]
    routed = sum(t.size_bytes for part in parts[1:3] for t in part.tensors if role_of(t.name) == "expert")
    return Split(
        gpu=gpu._replace(moe=e is not None),
        cpu=cpu,
        experts=experts,
        crossing_count=crossings,
        hidden_dim=shape.hidden_dim,
        copied_bytes=sum(moved) - routed,
        copied_expert_bytes=routed,
        expert_ratio=e.used_count / e.expert_count if e is not None else 1.0,
    )


def cards_of(device: DeviceProfile, scenario: Scenario) -> Cards:
    """The GPUs that the scenario's api drives: as many as its placement splits over, all of the profile's kind."""
    machine = machine_of(device, scenario)
    shares = scenario.placement.tensor_split or (1.0,)
    api = device.api(scenario.api)
    costs = device.calibration(api)
    link = costs.link_bytes_per_s if costs is not None else 0.0
    return Cards(
        machines=(machine,) * len(shares),
        shares=tuple(share / sum(shares) for share in shares),
        link_bytes_per_s=link or link_bytes_per_s(machine, device.chip),
        by_rows=scenario.placement.split_mode == "row",
        shared_memory=device.pool_for(api) == "ram",
    )


def placed_seconds(weights: Weights, device: DeviceProfile, scenario: Scenario) -> tuple[float, float]:
    """Seconds of one decoded token of each sequence at the mean depth, and of all their prompts.

    Raises:
        RefusedError: Several sequences, and both engines were not timed here: no published row tells them over a split.
    """
    costs = device.calibration(device.api(scenario.api)), device.calibration("cpu")
    if costs[0] is not None and costs[1] is not None:
        return _measured_seconds(weights, scenario, costs[0], costs[1], shared=device.pool_for(costs[0].api) == "ram")
    if scenario.batch_count > 1:
        raise RefusedError(
            "the speed of several sequences is not known where the weights lie in several memories unless both engines "
            "were timed: `edge-harness check` does it on a machine"
        )
    depth = scenario.depth_tokens + scenario.new_tokens / 2
    split, cards = split_of(weights, scenario, depth), cards_of(device, scenario)
    host = machine_of(device, replace(scenario, api="cpu"))
    prompt = prompt_of(weights.shape, max(scenario.prompt_tokens, 1), scenario.depth_tokens)
    values = believed(device).values
    token_s = decode_split_s(split, cards, host, values, SHIPPED)
    return token_s, prefill_split_s(split, cards, host, prompt, scenario.ubatch_tokens, values, SHIPPED)


def _measured_seconds(
    weights: Weights, scenario: Scenario, gpu: Calibration, cpu: Calibration, *, shared: bool
) -> tuple[float, float]:
    """The same from measured costs: each part by its engine's, one fixed time of a pass, crossings, activations.

    Several sequences are one batch: weights are read once for all of them, and the activations of each cross the link.
    A long prompt crosses nothing: the GPU computes all of it, waiting for each weight that is copied to it.
    """
    parts = parts_of(weights, scenario.placement)
    depth = scenario.depth_tokens + scenario.new_tokens // 2
    split = split_of(weights, scenario, depth)
    link = gpu.link_bytes_per_s or math.inf

    def crossing_s(tokens: int) -> float:
        return split.crossing_count * (gpu.crossing_s + tokens * 8 * split.hidden_dim / link)

    together = scenario.batch_count
    tokens = max(scenario.prompt_tokens, 1)
    batch = min(together * tokens, scenario.ubatch_tokens)
    batches = math.ceil(together * tokens / batch)
    copies = batch >= OFFLOAD_TOKENS and not shared
    token_s, prompt_s = crossing_s(together), 0.0 if copies else batches * crossing_s(batch)
    for part, costs in ((parts.gpu, gpu), (parts.cpu, cpu), (parts.experts, cpu)):
        if part.tensors:
            timed = sequences_parts(part, costs, sequence_count=together, depth_tokens=depth, kv_type=scenario.kv_type)
            token_s += timed.total_s - (0.0 if costs is gpu else costs.token_overhead_s)
            waiting = gpu.copied_product_ratio if copies and costs is cpu else 0.0
            prompt_s += (1 + waiting) * calibrated_prefill_s(
                part,
                gpu if copies else costs,
                prompt_tokens=tokens,
                depth_tokens=scenario.depth_tokens,
                ubatch_tokens=batch,
                kv_type=scenario.kv_type,
                sequence_count=together,
            )
    if copies:
        touched = 1 - (1 - split.expert_ratio) ** batch if split.expert_ratio < 1 else 1.0
        prompt_s += batches * (split.copied_bytes + touched * split.copied_expert_bytes) / link
    return token_s, prompt_s


def placed_speed(weights: Weights, device: DeviceProfile, scenario: Scenario) -> SpeedPrediction:
    """Speed of a split run. Loading, and the ceiling of a token, are those of the whole model on the GPU."""
    whole = predict_speed(weights, device, replace(scenario, placement=Placement()))
    token_s, prompt_s = placed_seconds(weights, device, scenario)
    decode, prefill = _rate(scenario, "decode", token_s), _rate(scenario, "prefill", prompt_s)
    first = first_token(scenario.prompt_tokens, decode, prefill, scenario.batch_count)
    cold = whole.ttft_cold_s
    moved = first.mid - whole.ttft_warm_s.mid
    return replace(
        whole,
        decode_tokens_per_s=decode,
        prefill_tokens_per_s=prefill,
        ttft_warm_s=first,
        ttft_cold_s=Interval(mid=cold.mid + moved, low=max(cold.low + moved, first.low), high=cold.high + moved),
    )


def _rate(scenario: Scenario, phase: str, seconds: float) -> Interval:
    """Tokens/s of all sequences together, from the seconds of a token of each or of all their prompts."""
    tokens = scenario.batch_count * (max(scenario.prompt_tokens, 1) if phase == "prefill" else 1)
    mid, (low, high) = tokens / seconds, RESIDUALS[phase]
    return Interval(mid=mid, low=mid * math.exp(low), high=mid * math.exp(high))


def _steps(shape: ModelShape, shares: tuple[float, ...]) -> Iterator[Placement]:
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


def choose(weights: Weights, device: DeviceProfile, scenario: Scenario, card_count: int = 1) -> Choices:
    """Every step of the split, and the best: the fastest for the scenario's prompt and new tokens that fits.

    Raises:
        ValueError: The KV type's blocks do not divide a row of keys.
    """
    api = device.api(scenario.api)
    shares = scenario.placement.tensor_split or (1.0,) * card_count
    curve = []
    for placement in _steps(weights.shape, shares):
        asked = replace(scenario, placement=replace(placement, kv_on_gpu=scenario.placement.kv_on_gpu))
        curve.append(_choice(weights, device, asked, api, shares))
    fitting = sorted((c for c in curve if c.fits), key=lambda c: c.request_s)
    return Choices(
        best=fitting[0] if fitting else None,
        next_best=fitting[1] if len(fitting) > 1 else None,
        curve=tuple(curve),
        moved="experts" if weights.shape.experts is not None else "layers",
    )


def _choice(weights: Weights, device: DeviceProfile, scenario: Scenario, api: str, shares: tuple[float, ...]) -> Choice:
    memory = placed_memory(weights, scenario, device, api, shares)
    by_card: dict[str, int] = {}
    ram = 0
    for part in memory.parts:
        if part.pool == "vram":
            card = part.name.partition(", ")[2]
            by_card[card] = by_card.get(card, 0) + part.anonymous_bytes
        else:
            ram += part.anonymous_bytes + part.file_bytes
    fullest = max(by_card.values(), default=0)
    fits = ram <= device.pool("ram").usable_bytes.value and (
        device.pool_for(api) == "ram" or fullest <= device.pool("vram").usable_bytes.value
    )
    token_s, prompt_s = placed_seconds(weights, device, scenario)
    return Choice(
        placement=scenario.placement,
        flags=scenario.placement.flags(weights.shape.layer_count),
        vram_bytes=fullest,
        ram_bytes=ram,
        fits=fits,
        decode_tokens_per_s=_rate(scenario, "decode", token_s),
        prefill_tokens_per_s=_rate(scenario, "prefill", prompt_s),
        request_s=prompt_s + scenario.new_tokens * token_s,
    )
