"""A model larger than the memory there is: what stays, what is read from storage for a token, and how fast that is."""

import math
from typing import Final, NamedTuple

from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.model import Weights
from harness.domain.prediction import Limit, Prediction, SpeedPrediction
from harness.domain.scenario import Scenario
from harness.domain.way import WayKind
from harness.predict.interval import UNSETTLED_RATIO, interval
from harness.predict.moe import cached_experts
from harness.predict.speed import first_token
from harness.predict.streaming import BUSY_DISK_RATIO, mmap_read_s, pass_s, streamed_bytes
from harness.predict.tensors import block_of
from harness.predict.weights import has_output, role_of

DENSE_SPREAD: Final = (0.24, 0.41)
"""How far ln(speed) may lie below and above where layers are streamed: published mapped models
(streaming.csv), without those whose memory nearly holds them."""
EXPERTS_SPREAD: Final = (0.79, 0.56)
"""The same where experts are: 5 % and 95 % quantiles of 88 published runs."""

DISK_SPREAD: Final = 0.45
"""What the data sheet of a device's storage adds to that (ln), as to loading; rows tell what theirs gave."""

STREAMING_SYSTEMS: Final = ("linux", "android")
"""Where it can be told which pages of a mapped file stay; experts are cached elsewhere too, by programs of
others."""
_SETTLES: Final = (
    "decode speed is not known well enough: one run of `edge-harness stream` on this device would settle it"
)


class StreamingOutlook(Frozen):
    """How a model larger than the memory there is would run: the split, and what other ways would give.

    Attributes:
        pinned_count: Layers that stay in RAM, the bytes that stay counted as whole layers.
        streamed_bytes: Read again in each pass.
        tokens_per_s: Of decoding; 0 where not even the parts on their way fit, or the system streams no
            layers.
        missing_bytes: Weights that have no room.
        disk_bytes_per_s: What the engine is served with while it computes.
        naive_tokens_per_s: The same file mapped, and left to the system.
        expert_cache_tokens_per_s: Keeping the most wanted experts instead of layers; None for a dense model.
        expert_hit_ratio: Share of wanted experts that such a cache holds.
    """

    pinned_count: int
    streamed_bytes: int
    tokens_per_s: float
    missing_bytes: int
    disk_bytes_per_s: float
    naive_tokens_per_s: float
    expert_cache_tokens_per_s: float | None = None
    expert_hit_ratio: float | None = None


class Streamed(NamedTuple):
    """One way of reading weights from storage, what of them it keeps in memory, and the speed of the model by it."""

    kind: WayKind
    speed: SpeedPrediction
    pinned_count: int | None = None
    hit_ratio: float | None = None


def plan_under_budget(
    weights: Weights, device: DeviceProfile, now: Prediction, *, limited: bool = False
) -> StreamingOutlook:
    """Split into pinned and streamed layers in the memory that the verdict of ``now`` counted with.

    The speed of ``now`` is that with all weights in memory. ``limited``: a control group keeps the process to
    the budget.
    """
    budget = now.verdict.available_bytes
    layers = layer_bytes(weights)
    total = sum(layers)
    # What is needed beside the layers, each of which the verdict's need counts once: cache, scratch, output
    # matrix, runtime. Of a token table that is no output matrix, a pass looks up a few rows; its pages can
    # go.
    held = max(0, now.verdict.needed_bytes - total - looked_up_bytes(weights))
    busy = device.storage.busy_read_bytes_per_s
    mapped = device.storage.mapped_read_bytes_per_s
    alone = device.storage.sequential_read_bytes_per_s.value
    if busy:
        disk = busy.value
    else:
        disk = BUSY_DISK_RATIO * alone
    compute_s = 1.0 / now.speed.decode_tokens_per_s.mid
    streamed = None
    if device.os in STREAMING_SYSTEMS:
        streamed = streamed_bytes(layers, held, budget)
    if streamed is None:
        again = total
    else:
        again = streamed
    naive_s = compute_s + mmap_read_s(total, budget - held, mapped.value if mapped else disk, limited=limited)
    cached_rate, hit = _expert_cache(weights, held, budget, disk, compute_s)
    return StreamingOutlook(
        pinned_count=round(len(layers) * (1 - again / total)),
        streamed_bytes=again,
        tokens_per_s=0.0 if streamed is None else 1 / pass_s(again, max(alone, disk), disk, compute_s),
        missing_bytes=max(held + total - budget, 0),
        disk_bytes_per_s=disk,
        naive_tokens_per_s=1.0 / naive_s,
        expert_cache_tokens_per_s=cached_rate,
        expert_hit_ratio=hit,
    )


def streamed_ways(
    plan: StreamingOutlook, speed: SpeedPrediction, scenario: Scenario, total_bytes: int
) -> list[Streamed]:
    """Ways of reading ``total_bytes`` of weights from storage, fastest first.

    ``speed`` is that with all in memory.

    A batch of a prompt reads what has no room once, or all of a mapped file.
    """
    missing_s = plan.missing_bytes / plan.disk_bytes_per_s

    def at(tokens_per_s: float, read_s: float, spread: tuple[float, float]) -> SpeedPrediction:
        return _slowed(speed, tokens_per_s, read_s, spread, scenario)

    mapped = at(plan.naive_tokens_per_s, total_bytes / plan.disk_bytes_per_s, DENSE_SPREAD)
    ways = [Streamed(WayKind.MAPPED, mapped)]
    if plan.tokens_per_s:
        layers = at(plan.tokens_per_s, missing_s, DENSE_SPREAD)
        ways.append(Streamed(WayKind.STREAMED, layers, pinned_count=plan.pinned_count))
    if plan.expert_cache_tokens_per_s:
        below, above = (math.hypot(one, DISK_SPREAD) for one in EXPERTS_SPREAD)
        experts = at(plan.expert_cache_tokens_per_s, missing_s, (below, above))
        ways.append(Streamed(WayKind.EXPERT_CACHE, experts, hit_ratio=plan.expert_hit_ratio))
    return sorted(ways, key=lambda way: -way.speed.decode_tokens_per_s.mid)


def _slowed(
    speed: SpeedPrediction,
    tokens_per_s: float,
    read_s: float,
    spread: tuple[float, float],
    scenario: Scenario,
) -> SpeedPrediction:
    """``speed`` at another rate of decoding, and with ``read_s`` more for each batch of a prompt."""
    tokens = scenario.batch_count * max(scenario.prompt_tokens, 1)
    batches = math.ceil(tokens / scenario.ubatch_tokens)
    decode = interval(tokens_per_s, *spread)
    prefill = interval(tokens / (tokens / speed.prefill_tokens_per_s.mid + batches * read_s), *spread)
    first = first_token(scenario, prefill)
    share = 1 - tokens_per_s / speed.decode_tokens_per_s.mid
    limits = {name: (1 - share) * part for name, part in speed.limits.items()} | {Limit.STORAGE: share}
    return speed.replace(
        decode_tokens_per_s=decode,
        prefill_tokens_per_s=prefill,
        ttft_warm_s=first,
        ttft_cold_s=first,  # what is loaded is what is read
        limits=limits,
        unsettled=(_SETTLES,) if decode.high > UNSETTLED_RATIO * decode.low else (),
    )


def layer_bytes(weights: Weights) -> list[int]:
    """Bytes of each transformer block's weights, by its number."""
    sizes: dict[int, int] = {}
    for tensor in weights.tensors:
        if (block := block_of(tensor.name)) >= 0:
            sizes[block] = sizes.get(block, 0) + tensor.size_bytes
    return [sizes[index] for index in sorted(sizes)]


def looked_up_bytes(weights: Weights) -> int:
    """Bytes of a token table that is only looked up; 0 where it is the output matrix too."""
    if not has_output(weights):
        return 0
    return sum(t.size_bytes for t in weights.tensors if t.name == "token_embd.weight")


def _expert_cache(
    weights: Weights, held: int, budget: int, disk_bytes_per_s: float, compute_s: float
) -> tuple[float | None, float | None]:
    """Decode speed with the most wanted experts in memory and the others read when the router asks for them."""
    if weights.shape.experts is None:
        return None, None
    # ``held`` leaves out every block: what of the blocks is no expert stays in memory too.
    rest = sum(
        t.size_bytes for t in weights.tensors if t.name.startswith("blk.") and role_of(t.name) != "expert"
    )
    room = budget - held - rest
    if room <= 0:
        return 0.0, 0.0
    seconds, hit = cached_experts(weights, room, disk_bytes_per_s, compute_s)
    return 1.0 / seconds, hit
