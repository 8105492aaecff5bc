"""A model and other systems in one app: their memory adds up, and they share one memory bus.

Memory: what a workload holds (``Cost.resident_bytes``, the largest of its operations: they share one state) is added
to the model's parts in RAM, on every device: an app has one limit. Interpreter and engine are counted once, with the
model. Where the model's matrices lie on a card, the workload still lies in RAM.

Speed: while an operation runs back to back it draws w = M / t bytes/s, M the bytes that it moves past any cache, t its
latency. Two that want the bus share it in proportion to what they want, so a model that decodes at s alone gets
s W / (W + sum of w), W the bandwidth that all cores draw together. That is the worst case of a question to the
workload at every moment; a workload that rests costs nothing but its memory. It assumes that a core is free for the
workload: what it takes of a core that the model also wants is not counted.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from harness.domain.device import DeviceProfile
from harness.domain.prediction import Interval, MemoryPart, MemoryPrediction, SpeedPrediction
from harness.domain.workload import Cost
from harness.predict.memory import with_parts
from harness.predict.workload_cost import LanguageSeconds, predict_operation, rates_of
from harness.units import format_bytes, format_rate

_SPREAD_RATIO = 0.15
"""Half width of the interval of a workload's bytes: allocators and Python objects round up."""


class Companion(NamedTuple):
    """A system that lives beside the model; ``name`` as shown: ``memory_store large``."""

    name: str
    costs: tuple[Cost, ...]

    @property
    def anonymous_bytes(self) -> int:
        """Bytes that it holds."""
        return max((c.resident_bytes for c in self.costs), default=0)

    @property
    def file_bytes(self) -> int:
        """Bytes that it maps from files."""
        return max((c.file_bytes for c in self.costs), default=0)


def with_companions(memory: MemoryPrediction, companions: Iterable[Companion]) -> MemoryPrediction:
    """Memory of the model and of what lives beside it, a part each."""
    parts = tuple(
        MemoryPart(
            name=c.name,
            anonymous_bytes=c.anonymous_bytes,
            file_bytes=c.file_bytes,
            reason="beside the model: " + ", ".join(cost.operation for cost in c.costs),
        )
        for c in companions
    )
    return with_parts(memory, parts, _SPREAD_RATIO)


def drawn_bytes_per_s(companion: Companion, device: DeviceProfile) -> tuple[float, str]:
    """What its hungriest operation draws from memory when it runs back to back, and which that is.

    A working set that a last-level cache holds draws nothing.
    """
    best, name = 0.0, ""
    nothing: LanguageSeconds = lambda _cost: 0.0  # noqa: E731  the model's own passes are counted with the model
    for cost in companion.costs:
        rates = rates_of(device, cost.dtype)
        if 0 < cost.working_set_bytes <= rates.units.read_rates[-2][0]:
            continue
        seconds = predict_operation(cost, rates, nothing).latency_s.mid
        if seconds > 0 and cost.moved_bytes / seconds > best:
            best, name = cost.moved_bytes / seconds, cost.operation
    return min(best, rates_of(device).read_bytes_per_s), name


def shared_speed(
    speed: SpeedPrediction, device: DeviceProfile, companions: Sequence[Companion], pool: str
) -> tuple[SpeedPrediction, tuple[str, ...]]:
    """Speed while all of them work at once, and the sentences that say what was assumed.

    Weights in another ``pool`` than ``ram`` do not share the host's bus.
    """
    draws = [(c.name, *drawn_bytes_per_s(c, device)) for c in companions]
    drawn = sum(draw for _, draw, _ in draws)
    if not drawn or pool != "ram":
        return speed, ("what lives beside the model does not draw on the memory that its weights are read from",)
    total = rates_of(device).read_bytes_per_s
    ratio, decode = total / (total + drawn), speed.decode_tokens_per_s
    scaled = replace(
        speed,
        decode_tokens_per_s=Interval(mid=decode.mid * ratio, low=decode.low * ratio, high=decode.high * ratio),
        roofline_tokens_per_s=speed.roofline_tokens_per_s * ratio,
    )
    told = ", ".join(f"{name} draws {format_rate(draw)} ({operation})" for name, draw, operation in draws if draw)
    line = (
        f"while all run at once: {scaled.decode_tokens_per_s.mid:.3g} tokens/s of "
        f"{decode.mid:.3g}; {told}, back to back, of {format_rate(total)} shared in proportion"
    )
    return scaled, (line,)


def summary(companions: Iterable[Companion]) -> str:
    """``memory_store large 187 MiB, ...``."""
    return ", ".join(f"{c.name} {format_bytes(c.anonymous_bytes + c.file_bytes)}" for c in companions)
