"""A speed that was measured beside the one that was predicted: what may explain the difference, and what to try."""

from contextlib import suppress

from harness.app.fit import predict, speeds_by_depth
from harness.app.resolve import ResolvedModel
from harness.app.ways import Way
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile, MemoryPool
from harness.domain.placement import Placement
from harness.errors import HarnessError
from harness.predict.energy import Sustained
from harness.predict.weights import weights_of

_NEAR_RATIO = 1.3
"""Between a measured speed and that of a cause which may explain it."""


class SpeedCause(Frozen):
    """One thing that may be otherwise than asked, the decode speed that it would give, and what to try."""

    cause: str
    tokens_per_s: float
    advice: str


def causes(
    measured: float, way: Way, model: ResolvedModel, device: DeviceProfile, late: Sustained | None
) -> list[SpeedCause]:
    """What is predicted to be about as slow as what was measured, the nearest first; at most three."""
    scenario, decode = way.scenario, way.prediction.speed.decode_tokens_per_s
    halved = device.replace(pools=tuple(map(_halved, device.pools)), calibrations=())
    blocks = model.weights.shape.layer_count
    read_log = "look for `offloaded` in the program's log"
    others = [
        ("all layers are run by the CPU", f"install the build for your GPU, and {read_log}",
         model, device, scenario.replace(api="cpu", placement=Placement())),
        ("half of the layers are run by the CPU", f"-ngl 99, a shorter context, and {read_log}",
         model, device, scenario.replace(placement=Placement(gpu_layers=blocks // 2))),
        ("memory is at half its speed", "fill both channels, switch on its profile (XMP, EXPO), leave power saving",
         model, halved, scenario),
        ("one thread computes", "-t with the number of fast cores",
         model, device, scenario.replace(thread_count=1)),
    ]  # fmt: skip
    for quant in ("Q8_0", "F16"):
        with suppress(HarnessError):  # no table of tensors for this architecture
            bigger = model._replace(quant=quant, weights=weights_of(model.weights.shape, quant))
            cause = f"the file is {quant}, not {model.quant}"
            others.append((cause, "read its type in the program's log", bigger, device, scenario))
    listed = [
        (f"{depth:,} tokens are in the cache", speed.mid, "start a new conversation")
        for depth, speed in speeds_by_depth(model, device, scenario)
    ]
    if late is not None:
        warm = f"the device is warm, as after {late.minutes:g} minutes"
        listed.append((warm, late.tokens_per_s.mid, "let it cool, or raise its power limit"))
    for cause, advice, other, machine, asked in others:
        with suppress(HarnessError):  # the device has no such engine
            now = predict(other, machine, asked)
            listed.append((cause, now.speed.decode_tokens_per_s.mid, advice))
    found = [SpeedCause(cause=cause, tokens_per_s=speed, advice=advice) for cause, speed, advice in listed]

    def distance(one: SpeedCause) -> float:
        return max(one.tokens_per_s / measured, measured / one.tokens_per_s)

    near = [one for one in found if distance(one) < _NEAR_RATIO and one.tokens_per_s < 0.9 * decode.mid]
    return sorted(near, key=distance)[:3]


def _halved(pool: MemoryPool) -> MemoryPool:
    bandwidth = pool.bandwidth_bytes_per_s
    return pool.replace(bandwidth_bytes_per_s=bandwidth.replace(value=bandwidth.value / 2))
