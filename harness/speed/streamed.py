"""A model larger than the memory there is: what stays, what is read from storage for a token, and how fast that is."""

import math
from collections import Counter
from typing import Final, NamedTuple

from harness.core.device import Device
from harness.core.model import Weights
from harness.core.prediction import Limit, Prediction, SpeedPrediction
from harness.core.scenario import Scenario
from harness.core.way import WayKind
from harness.speed.estimate import first_token
from harness.speed.interval import UNSETTLED_RATIO, interval
from harness.speed.storage import (
    BUSY_DISK_RATIO,
    cached_experts,
    expert_bytes,
    mmap_read_s,
    pass_s,
    streamed_bytes,
)

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


class Streamed(NamedTuple):
    """One way of reading weights from storage, what of them it keeps in memory, and the speed of the model by it.

    Attributes:
        pinned_count: Layers that stay in RAM, the bytes that stay counted as whole layers; None where no
            layers are streamed.
        hit_ratio: Share of wanted experts that a cache of them holds; None without one.
    """

    kind: WayKind
    speed: SpeedPrediction
    pinned_count: int | None = None
    hit_ratio: float | None = None


def streamed_ways(
    weights: Weights, device: Device, scenario: Scenario, now: Prediction, *, limited: bool = False
) -> list[Streamed]:
    """Ways of reading from storage what has no room in the memory that the verdict of ``now`` counted with.

    Fastest first. The speed of ``now`` is that with all weights in memory. ``limited``: a control group keeps
    the process to the budget. A batch of a prompt reads what has no room once, or all of a mapped file.
    """
    budget = now.verdict.available_bytes
    layers = layer_bytes(weights)
    total = sum(layers)
    # What is needed beside the layers, each of which the verdict's need counts once: cache, scratch, output
    # matrix, runtime. Of a token table that is no output matrix, a pass looks up a few rows; its pages can
    # go.
    held = now.verdict.needed_bytes - total
    if weights.has_output:
        held -= weights.table_bytes
    held = max(held, 0)
    storage = device.storage
    alone = storage.sequential_read_bytes_per_s.value
    disk = BUSY_DISK_RATIO * alone
    if storage.busy_read_bytes_per_s:
        disk = storage.busy_read_bytes_per_s.value
    mapped = disk
    if storage.mapped_read_bytes_per_s:
        mapped = storage.mapped_read_bytes_per_s.value
    compute_s = 1.0 / now.speed.decode_tokens_per_s.mid
    missing_s = max(held + total - budget, 0) / disk

    def at(seconds: float, read_s: float, spread: tuple[float, float]) -> SpeedPrediction:
        return _slowed(now.speed, 1.0 / seconds, read_s, spread, scenario)

    token_s = compute_s + mmap_read_s(total, budget - held, mapped, limited=limited)
    ways = [Streamed(WayKind.MAPPED, at(token_s, weights.tensor_bytes / disk, DENSE_SPREAD))]
    again = None
    if device.os in STREAMING_SYSTEMS:
        again = streamed_bytes(layers, held, budget)
    if again is not None:
        token_s = pass_s(again, max(alone, disk), disk, compute_s)
        pinned = round(len(layers) * (1 - again / total))
        ways.append(Streamed(WayKind.STREAMED, at(token_s, missing_s, DENSE_SPREAD), pinned))
    routed, _ = expert_bytes(weights)
    room = budget - held - (total - routed)  # what of the blocks is no expert stays in memory too
    if routed and room > 0:
        token_s, hit = cached_experts(weights, room, disk, compute_s)
        below, above = (math.hypot(one, DISK_SPREAD) for one in EXPERTS_SPREAD)
        experts = at(token_s, missing_s, (below, above))
        ways.append(Streamed(WayKind.EXPERT_CACHE, experts, hit_ratio=hit))
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
    sizes = Counter[int]()
    for tensor in weights.tensors:
        sizes[tensor.block] += tensor.size_bytes
    return [sizes[block] for block in sorted(sizes) if block >= 0]
