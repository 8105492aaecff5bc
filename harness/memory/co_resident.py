"""A model and what lives beside it in one app: their memory adds up, and they share one memory bus.

Memory: what a companion holds is added to the model's parts in RAM, on every device: an app has one limit.
Interpreter and engine are counted once, with the model. Where the model's matrices lie on a card, the
companion still lies in RAM.

Speed: two that want the bus share it in proportion to what they want, so a model that decodes at s alone gets
s W / (W + sum of w), W the bandwidth that all cores draw together and w what each companion draws while it
runs back to back. That is the worst case of a question to it at every moment; one that rests costs nothing
but its memory. It assumes that a core is free for it: what it takes of a core that the model also wants is
not counted.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from harness.core.device import RAM, Device
from harness.core.prediction import MemoryPart, MemoryPrediction, PartKind, SpeedPrediction
from harness.core.scenario import Scenario
from harness.core.units import format_rate
from harness.memory.peak import with_parts

_SPREAD_RATIO = 0.15
"""Half width of the interval of a companion's bytes: allocators and Python objects round up."""
SPEC_SHARE: Final = 0.54
"""Share of the theoretical bandwidth that CPU cores draw where nobody measured it: the median of published
decode speeds on x86 servers; Apple's CPU cores get 0.34 of their chip's, x86 clients 0.69."""


class Companion(NamedTuple):
    """What lives beside a model in an app.

    Attributes:
        name: As shown: ``memory large``.
        anonymous_bytes: Memory that it holds.
        file_bytes: Bytes that it maps from files.
        reason: What they are for.
        drawn_bytes_per_s: What it draws from a device's memory while it runs back to back.
        steps: Seconds of each kind of its steps beside a model that runs by a scenario on a device; None for a
            step that no law covers.
    """

    name: str
    anonymous_bytes: int
    file_bytes: int = 0
    reason: str = ""
    drawn_bytes_per_s: Callable[[Device], float] = lambda _device: 0.0
    steps: Callable[[Device, Scenario], dict[str, float | None]] = lambda _device, _scenario: {}


def with_companions(memory: MemoryPrediction, companions: Iterable[Companion]) -> MemoryPrediction:
    """Memory of the model and of what lives beside it, a part each."""
    parts = tuple(
        MemoryPart(
            PartKind.COMPANION,
            c.anonymous_bytes,
            name=c.name,
            file_bytes=c.file_bytes,
            reason=f"beside the model: {c.reason or c.name}",
        )
        for c in companions
    )
    return with_parts(memory, parts, _SPREAD_RATIO)


def read_bytes_per_s(device: Device) -> float:
    """Bytes/s that all CPU cores of a device draw together."""
    pool = device.ram
    measured = pool.measured_read_bytes_per_s
    if measured:
        return measured.value
    return SPEC_SHARE * pool.bandwidth_bytes_per_s.value


def shared_speed(
    speed: SpeedPrediction, device: Device, companions: Sequence[Companion], pool: str
) -> tuple[SpeedPrediction, tuple[str, ...]]:
    """Speed while all of them work at once, and the sentences that say what was assumed.

    Weights in another ``pool`` than ``ram`` do not share the host's bus.
    """
    total = read_bytes_per_s(device)
    draws = [(c.name, min(c.drawn_bytes_per_s(device), total)) for c in companions]
    drawn = sum(draw for _, draw in draws)
    if not drawn or pool != RAM:
        return speed, (
            "what lives beside the model does not draw on the memory that its weights are read from",
        )
    ratio = total / (total + drawn)
    decode = speed.decode_tokens_per_s
    scaled = speed.replace(
        decode_tokens_per_s=decode.through(lambda speed: speed * ratio),
        roofline_tokens_per_s=speed.roofline_tokens_per_s * ratio,
    )
    named = ", ".join(f"{name} draws {format_rate(draw)}" for name, draw in draws if draw)
    line = (
        f"while all run at once: {scaled.decode_tokens_per_s.mid:.3g} tokens/s of "
        f"{decode.mid:.3g}; {named}, back to back, of {format_rate(total)} shared in proportion"
    )
    return scaled, (line,)
