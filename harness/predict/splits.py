"""Which split of a model between a GPU's memory and the CPU's is best."""

from collections.abc import Iterator

from msgspec.structs import replace

from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import ModelShape, Weights
from harness.domain.placement import Placement
from harness.domain.prediction import Interval, MemoryPrediction
from harness.domain.scenario import Scenario
from harness.predict.placed import placed_memory
from harness.predict.speed import predict_speed


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


def choose(weights: Weights, device: DeviceProfile, scenario: Scenario, card_count: int = 1) -> Choices:
    """Every step of the split, and the best: the fastest for the scenario's prompt and new tokens that fits.

    Raises:
        ValueError: The KV type's blocks do not divide a row of keys.
    """
    shares = scenario.placement.tensor_split or (1.0,) * card_count
    curve = []
    for step in steps(weights.shape, shares):
        asked = replace(scenario, placement=replace(step, kv_on_gpu=scenario.placement.kv_on_gpu))
        curve.append(_choice(weights, device, asked, shares))
    fitting = sorted((c for c in curve if c.fits), key=lambda c: c.request_s)
    return Choices(
        best=fitting[0] if fitting else None,
        next_best=fitting[1] if len(fitting) > 1 else None,
        curve=tuple(curve),
        moved="experts" if weights.shape.experts is not None else "layers",
    )


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


def room_of(memory: MemoryPrediction, device: DeviceProfile, api: str) -> tuple[int, int, bool]:
    """Bytes on the fullest card and in RAM, and whether both have the room."""
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
    return fullest, ram, fits


def _choice(weights: Weights, device: DeviceProfile, scenario: Scenario, shares: tuple[float, ...]) -> Choice:
    api = device.api(scenario.api)
    fullest, ram, fits = room_of(placed_memory(weights, scenario, device, api, shares), device, api)
    speed = predict_speed(weights, device, scenario)
    decode, prefill = speed.decode_tokens_per_s, speed.prefill_tokens_per_s
    prompts = scenario.batch_count * max(scenario.prompt_tokens, 1)
    return Choice(
        placement=scenario.placement,
        flags=scenario.placement.flags(weights.shape.layer_count),
        vram_bytes=fullest,
        ram_bytes=ram,
        fits=fits,
        decode_tokens_per_s=decode,
        prefill_tokens_per_s=prefill,
        request_s=prompts / prefill.mid + scenario.batch_count * scenario.new_tokens / decode.mid,
    )
