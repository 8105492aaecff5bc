"""Does it fit, and what binds."""

import re
from collections.abc import Iterable
from typing import Final

from harness.core.device import RAM, Device, Pool, PoolName
from harness.core.errors import RefusedError
from harness.core.prediction import (
    Limit,
    MemoryPart,
    MemoryPrediction,
    PartKind,
    SpeedPrediction,
    Verdict,
    VerdictWord,
)
from harness.core.units import format_bytes, format_rate

STREAMED_WINDOW_RATIO: Final = 1 / 16
"""Least share of the weights that a streaming engine keeps at hand (two of 32 layers)."""
_KILLING_SYSTEMS: Final = ("ios", "ipados")
"""Where an app that holds more than it may is ended: nothing is swapped, what is wired for a GPU counts as
held."""
SEVERITY: Final[dict[VerdictWord, int]] = {
    "fits": 0,
    "fits with streaming": 1,
    "too slow": 2,
    "does not fit": 3,
}


def needed_bytes_of(parts: Iterable[MemoryPart], pool: PoolName) -> tuple[int, int]:
    """Bytes that must be held and file bytes that are read for every token, of one pool.

    The mapped originals of repacked weights are never read again: the system may take those pages at no cost,
    so they are not counted.
    """
    mine = [part for part in parts if part.pool == pool]
    cold = sum(part.anonymous_bytes for part in mine if part.kind is PartKind.REPACKED)
    return sum(part.anonymous_bytes for part in mine), max(sum(part.file_bytes for part in mine) - cold, 0)


def weight_bytes_of(parts: Iterable[MemoryPart], pool: PoolName) -> int:
    """Weights of a pool, each counted once."""
    own = [part for part in parts if part.pool == pool and not part.drafts]
    repacked = sum(part.anonymous_bytes for part in own if part.kind is PartKind.REPACKED)
    weights = [part for part in own if part.kind in {PartKind.WEIGHTS, PartKind.TABLE}]
    held = sum(part.anonymous_bytes for part in weights)
    return held + max(sum(part.file_bytes for part in weights), repacked)


def check_entitlement(entitled: bool, device: Device) -> None:
    """Refuse to ask for the higher limit where the system offers none (RefusedError)."""
    if entitled and not any(pool.entitled_bytes for pool in device.pools):
        raise RefusedError(f"--entitled changes nothing: {device.name}: one limit for all apps")


def judge(
    memory: MemoryPrediction,
    speed: SpeedPrediction | None,
    device: Device,
    *,
    entitled: bool = False,
    api: str = "",
) -> Verdict:
    """Verdict for one model on one device.

    Fits: what must be held and what is read for every token stay within what one app may use. Fits with
    streaming: all but the weights does, with a window of them. Otherwise it does not fit. A known speed names
    what binds a model that fits; an app is ``entitled`` that has asked for the higher limit, where the system
    offers one: on a Mac it binds what is wired for the GPU, and not the CPU's.
    """
    entitled = entitled or (api == "cpu" and device.os == "macos")
    pools = sorted({part.pool for part in memory.parts}, key=lambda name: name == RAM)
    verdicts = [_judge_pool(memory, speed, device, device.pool(name), entitled=entitled) for name in pools]
    worst = max(verdicts, key=lambda v: SEVERITY[v.word])
    engine = device.engine_for(device.api(api))
    total_bytes = device.ram.total_bytes.value
    is_shared = engine is not None and engine.kind == "gpu" and engine.pool == RAM
    words = _LIMITS.get(device.os, "")
    if device.os == "linux" and not re.search("amd|ryzen|radeon", f"{device.vendor} {device.chip}".lower()):
        words = ""
    if not words or not is_shared or not _LIMIT_RATIO * total_bytes < worst.needed_bytes <= total_bytes:
        return worst
    return worst.replace(reasons=(*worst.reasons[:-1], words, worst.reasons[-1]))  # the last is the cause


_LIMIT_RATIO: Final = 0.5
"""Share of the RAM that a system lets a GPU without memory of its own have."""
_LIMITS: Final = {
    "windows": "Windows lets a GPU that shares the RAM have half of it; the driver's settings raise that where it has some",
    "linux": (
        "Linux lets an AMD GPU that shares the RAM have half of it (GTT): raise ttm.pages_limit "
        "or set more aside in the BIOS"
    ),
}
"""What raises it, by system. Sources: Intel, article 000101789 (57 % from Core Ultra 200 on, up to 87 % by its
driver); rocm.docs.amd.com and mvysny.github.io (GTT)."""


def with_target(
    verdict: Verdict, speed: SpeedPrediction, target_tokens_per_s: float, depth_tokens: int
) -> Verdict:
    """The verdict where a decode speed is wanted: one that is missed is a no, with the speed as its binding limit."""
    decode = speed.decode_tokens_per_s
    if verdict.word == "does not fit" or decode.mid >= target_tokens_per_s:
        return verdict
    reason = f"{decode.mid:.3g} tokens/s predicted at depth {depth_tokens}, {target_tokens_per_s:.3g} wanted"
    return verdict.replace(
        word="too slow", binding_limit=Limit.DECODE_SPEED, reasons=(reason, *verdict.reasons)
    )


def _judge_pool(
    memory: MemoryPrediction,
    speed: SpeedPrediction | None,
    device: Device,
    pool: Pool,
    *,
    entitled: bool,
) -> Verdict:
    held, mapped = needed_bytes_of(memory.parts, pool.name)
    needed = held + mapped
    limit = pool.usable_bytes
    if entitled and pool.entitled_bytes:
        limit = pool.entitled_bytes
    available = int(limit.value)
    place = pool.called
    verdict = Verdict(
        word="fits",
        binding_limit=largest_limit(speed) if speed else Limit.NONE,
        needed_bytes=needed,
        available_bytes=available,
        reasons=(f"{format_bytes(available - needed)} to spare of {place}",),
    )
    if needed <= available:
        return verdict
    reasons = [f"{format_bytes(needed)} needed, {format_bytes(available)} of {place} available"]
    if not entitled and pool.entitled_bytes and needed <= pool.entitled_bytes.value:
        entitlement = format_bytes(pool.entitled_bytes.value)
        reasons.append(f"it would fit in the {entitlement} an app gets with the higher-limit entitlement")
    elif needed <= pool.total_bytes.value:
        reasons.append(f"{format_bytes(pool.total_bytes.value)} are installed; the rest is the system's")
    weights = weight_bytes_of(memory.parts, pool.name)
    rest = needed - weights
    word: VerdictWord = "does not fit"
    if held > available and device.os in _KILLING_SYSTEMS:
        reasons.append(
            f"{format_bytes(held)} must be held, and the system ends an app that holds more than it may"
        )
    elif not pool.is_own and rest + STREAMED_WINDOW_RATIO * weights <= available:
        word = "fits with streaming"
        missing = format_bytes(needed - available)
        whole = format_bytes(weights)
        rate = format_rate(device.storage.sequential_read_bytes_per_s.value)
        source = f"come from storage, at {rate}, when a token needs them (of a mapped file all {whole})"
        reasons.append(f"{missing} of weights have no room and {source}")
        if held > available and not any(p.file_bytes for p in memory.parts if p.kind is PartKind.WEIGHTS):
            reasons.append("an engine that streams layers is needed; this api holds all weights at once")
    elif pool.is_own and device.os == "windows":
        reasons.append(
            "the driver moves what is over to memory of the host: each token reads it over the link, slowly"
        )
    elif pool.is_own:
        reasons.append("the driver refuses to allocate it: the run ends before its first token")
    else:
        window = format_bytes(STREAMED_WINDOW_RATIO * weights)
        reasons.append(
            f"beside {format_bytes(rest)} of other things there is no room for a {window} window of weights"
        )
    binding = Limit.CARD_MEMORY if pool.is_own else Limit.APP_MEMORY
    return verdict.replace(word=word, binding_limit=binding, reasons=tuple(reasons))


def largest_limit(speed: SpeedPrediction) -> Limit:
    """What takes most of the time of a token."""
    return max(speed.limits, key=lambda name: speed.limits[name], default=Limit.WEIGHTS)
