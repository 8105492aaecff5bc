"""What a long answer costs: speed once the device is warm, joules of a token, tokens of a battery charge.

Power of a decode, and what is left of its speed once the device is warm: a handful of pooled terms.

Power of steady decode at v tokens/s:   P = F + v (e_b B + e_o O)
    F    watts that flow whatever is computed: screen and radio of a whole phone, clocks of a busy card or server
    B, O bytes read and operations (2 for each active weight) of a token;  e_b, e_o  joules of one of each
Each e falls by a share a year, with the processes chips are made in; unpacking K-quants and below costs e_o
more.

Heat, first order: C dT/dt = P - (T - T_ambient) / R. A device that must stay below T_limit can give off
P_limit = (T_limit - T_ambient) / R for ever; with more than that it gets there after t = -tau ln(1 - P_limit
/ P), tau = R C, and a governor then holds P at P_limit. So the share of burst speed that is left is
    x = ((P_limit - F) / (P_burst - F))^(1/a),   share = (1 + x^-4)^(-1/4)
where power grows with clock^a (1 at a fixed voltage, 3 where voltage follows the clock), and the last is a
minimum of 1 and x without a corner: governors step clocks before the limit is reached. What a phone's surface
gives off bounds P_limit: h A (T_skin - T_ambient) = 10 W/m2K x 0.024 m2 x 20 K, about 5 W (natural convection
and radiation, Incropera ch. 9; skin limit 45 C, IEC 62368-1).

Terms are kept as natural logarithms, fitted on published rows around priors from the literature.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

from harness.core.base import Frozen
from harness.core.device import Device
from harness.core.prediction import Interval
from harness.core.tables import shipped_text
from harness.speed.interval import interval, widened
from harness.speed.work import Work

FILE: Final = "data/heat_coefficients.json"
_SHARPNESS: Final = 4.0
_TABLET_RATIO: Final = 2.0
"""Surface of a tablet over that of a phone, less what its middle does not spread."""
_YEAR: Final = 2023.0
_SMALL: Final = frozenset({"phone", "tablet", "laptop", "board"})
"""Kinds whose processors lower their clocks while they wait."""
DRAM_RATIO: Final = 0.6
"""Of a byte's energy, what the memory chips take: a processor's own counters do not see it."""
PLAIN: Final = frozenset({"f16", "q8", "q4"})
"""Classes of types whose weights are numbers or plain blocks: one scale and a shift."""


class TokenLoad(Frozen):
    """What one token costs on one engine, and what the device around it allows.

    Attributes:
        engine: ``cpu gpu npu``, or ``card`` for a graphics card with memory of its own.
        kind: Kind of device, as in :class:`Device`.
        whole: Energy of the whole machine (battery, wall) rather than of the chip or card alone.
        byte_count: Bytes read for a token.
        operation_count: Operations of a token.
        plain: Weights need no unpacking beyond a shift.
        year: When the chip was made.
        limit_watts: Power it can hold, from its maker or a measurement; None where unknown.
    """

    engine: str
    kind: str
    whole: bool
    byte_count: float
    operation_count: float
    plain: bool = True
    year: float = _YEAR
    limit_watts: float | None = None

    @property
    def handheld(self) -> bool:
        """Cooled by its own surface alone."""
        return self.kind in {"phone", "tablet"}

    @property
    def held_at_once(self) -> bool:
        """Cooled for its maker's power, which it never exceeds: its burst is its sustained speed."""
        return self.engine == "card" or not (self.handheld or self.kind in {"laptop", "board"})


@lru_cache(maxsize=1)
def heat_terms() -> dict[str, float]:
    """The shipped terms: ln of each, by key."""
    terms: dict[str, float] = msgspec.json.decode(shipped_text(FILE, "harness.speed"))["terms"]
    return terms


def load_of(device: Device, api: str, work: Work, *, whole: bool) -> TokenLoad:
    """The load that decoding ``work`` by ``api`` puts on ``device``."""
    engine = device.engine_for(api)
    kind = engine.kind if engine is not None else "cpu"
    limit = None
    is_card = device.has_own_memory(api)
    has_card = device.own_pool is not None
    if device.power.sustained_watts and is_card == has_card:  # beside a card, the power is the card's
        limit = device.power.sustained_watts.value
    return TokenLoad(
        engine="card" if is_card else kind,
        kind=device.kind,
        whole=whole,
        byte_count=work.weight_bytes + work.kv_bytes,
        operation_count=2 * work.weight_count,
        plain=work.quant_class in PLAIN,
        year=device.year,
        limit_watts=limit,
    )


def token_joules(load: TokenLoad, terms: Mapping[str, float]) -> float:
    """e_b B + e_o O: joules that a token adds to what flows anyway."""
    byte = math.exp(terms["byte/card" if load.engine == "card" else "byte"])
    operation = math.exp(terms[f"operation/{load.engine}"] + (0.0 if load.plain else terms["dequantise"]))
    if load.engine != "card" and not load.whole:
        byte *= 1 - DRAM_RATIO
    age = math.exp(-math.exp(terms["year"]) * (load.year - _YEAR))
    return age * (byte * load.byte_count + operation * load.operation_count)


def idle_watts(load: TokenLoad, terms: Mapping[str, float]) -> float:
    """F: watts that flow whatever is computed, of what the load counts."""
    busy = 0.0
    if load.engine == "card" or (load.engine == "cpu" and load.kind not in _SMALL):
        busy = math.exp(terms["busy"]) * (load.limit_watts or 0.0)
    if not load.whole:
        return busy
    if load.handheld:
        return math.exp(terms["idle/phone"])
    return busy + math.exp(terms.get(f"idle/{load.kind}", terms["idle/desktop"]))


def limit_watts(load: TokenLoad, terms: Mapping[str, float]) -> float | None:
    """P_limit: what a warm device can hold; None where nothing is known of it."""
    if load.limit_watts is not None:
        return load.limit_watts
    if load.handheld:
        return math.exp(terms["limit/phone"]) * (_TABLET_RATIO if load.kind == "tablet" else 1.0)
    return None


def watts(load: TokenLoad, tokens_per_s: float, terms: Mapping[str, float], *, warm: bool = True) -> float:
    """P at a steady speed: bounded by the card's own limit, and once warm by what the device gives off."""
    free = idle_watts(load, terms) + token_joules(load, terms) * tokens_per_s
    limit = limit_watts(load, terms)
    bounded = (
        load.engine == "card" or (not load.whole and (warm or load.held_at_once)) or (warm and load.handheld)
    )
    if limit is None or not bounded:
        return free
    if load.engine == "card" and load.whole:
        limit += math.exp(terms["idle/desktop"])
    return min(free, limit)


def share_kept(load: TokenLoad, burst_tokens_per_s: float, terms: Mapping[str, float]) -> float | None:
    """Share of burst speed left once warm.

    None where the device's limit is not known, or depends on its owner.

    Whether a board has a heat sink or a fan is its owner's choice.
    """
    limit = limit_watts(load, terms)
    if limit is None or (load.kind == "board" and load.engine != "card"):
        return None
    if load.held_at_once:
        return 1.0
    room = limit - (idle_watts(load, terms) if load.handheld else 0.0)
    ratio = max(room, 0.1 * limit) / (token_joules(load, terms) * burst_tokens_per_s)
    x = ratio ** math.exp(-terms["governor"])
    return float((1 + x**-_SHARPNESS) ** (-1 / _SHARPNESS))


def knee_seconds(load: TokenLoad, burst_tokens_per_s: float, terms: Mapping[str, float]) -> float | None:
    """T = -tau ln(1 - P_limit / P): when a cold device reaches its limit.

    It is None where the device never reaches the limit, or where a term is unknown.
    """
    limit = limit_watts(load, terms)
    power = watts(load, burst_tokens_per_s, terms, warm=False)
    if limit is None or load.held_at_once or power <= limit:
        return None
    return -math.exp(terms["tau"]) * math.log(1 - limit / power)


DEFAULT_MINUTES: Final = 10.0
ENERGY_WIDTH: Final = 1.645 * 0.44
"""Half of the 90 % interval of ln joules a token: what devices of one class differ by, which no term explains, and what
is not known of the terms."""
SHARE_WIDTH: Final = 1.645 * 0.17
"""The same of ln share."""
_RATIO_WIDTH: Final = 1.645 * 0.2
"""The same between models on one device: what a ratio measured with one model says of another."""


class Sustained(Frozen):
    """Decode speed after some minutes of load from cold.

    Attributes:
        share: Of burst speed.
        knee_s: When the device reaches what it can give off; None where it never does.
        evidence: What the figures rest on.
    """

    minutes: float
    share: Interval
    tokens_per_s: Interval
    knee_s: float | None
    evidence: str


class Energy(Frozen):
    """Joules of a token.

    Attributes:
        scope: What is counted.
        joules_per_token: While the device is cold.
        sustained_joules_per_token: Once it is warm; None where that speed is not known.
        tokens_per_charge: Of a full battery, at the warm rate where known; None without a battery.
        evidence: What the figures rest on.
    """

    scope: str
    joules_per_token: Interval
    sustained_joules_per_token: Interval | None
    tokens_per_charge: Interval | None
    evidence: str


def sustained(
    device: Device, api: str, work: Work, burst: Interval, minutes: float = DEFAULT_MINUTES
) -> Sustained | None:
    """Speed after ``minutes`` of decode; None where nobody knows what the device can give off.

    ``burst`` is the predicted or measured speed of the first seconds, which holds until the knee, tokens/s.
    """
    load = load_of(device, api, work, whole=True)
    terms = heat_terms()
    if not load.handheld:
        load = load.replace(whole=False)
    middle = share_kept(load, burst.mid, terms)
    if middle is None or burst.mid <= 0:
        return None
    evidence = _evidence(load, device)
    knee = knee_seconds(load, burst.mid, terms)
    engine = device.engine_for(api)
    ratio = engine.sustained_ratio if engine is not None else None
    if load.held_at_once:
        share = Interval(1.0, 0.93, 1.0)
    elif knee is not None and minutes * 60 < knee:
        share = Interval(1.0, middle, 1.0)
    elif ratio is not None and ratio.confidence in {"measured", "secondary"}:
        share = interval(ratio.value, _RATIO_WIDTH)
        evidence = "a share measured on such a device with another model"
    else:
        share = interval(middle, SHARE_WIDTH)
    share = share.through(lambda kept: min(kept, 1.0))

    def at(speed: float) -> float:
        return speed * share.mid * (share_kept(load, speed, terms) or middle) / middle

    speed = share.through(lambda kept: burst.mid * kept)
    speed = widened(speed, math.log(speed.mid / at(burst.low)), math.log(at(burst.high) / speed.mid))
    speed = speed.replace(high=min(speed.high, burst.high))
    return Sustained(minutes=minutes, share=share, tokens_per_s=speed, knee_s=knee, evidence=evidence)


def predict_energy(
    device: Device, api: str, work: Work, burst: Interval, minutes: float = DEFAULT_MINUTES
) -> Energy | None:
    """Energy of a token by what it moves and computes; None for a graphics card whose power nobody stated.

    joules/token = P / (tokens/s);  tokens/charge = battery joules / (joules/token). A device with a battery counts
    whole, screen and all, as the battery does; any other counts its processor or card alone.
    ``burst`` is the speed of the first seconds, tokens/s; after ``minutes`` the device counts as warm.
    """
    battery = device.power.battery_joules
    load = load_of(device, api, work, whole=battery is not None)
    terms = heat_terms()
    if burst.mid <= 0 or (load.engine == "card" and load.limit_watts is None):
        return None

    def joules(speed: Interval, *, warm: bool) -> Interval:
        each = speed.through(lambda rate: watts(load, rate, terms, warm=warm) / rate)
        own = interval(each.mid, ENERGY_WIDTH)
        return widened(own, math.log(each.mid / each.low), math.log(each.high / each.mid))

    cold = joules(burst, warm=False)
    late = sustained(device, api, work, burst, minutes)
    warm = None
    if late is not None:
        warm = joules(late.tokens_per_s, warm=True)
    charge = None
    if battery is not None:
        full = battery.value
        charge = (warm or cold).through(lambda each: full / each)
    scope = "processor, without its memory chips"
    if load.engine == "card":
        scope = "card alone"
    return Energy(
        scope="whole device" if load.whole else scope,
        joules_per_token=cold,
        sustained_joules_per_token=warm,
        tokens_per_charge=charge,
        evidence=f"bytes and operations of a token, {_evidence(load, device)}",
    )


def _evidence(load: TokenLoad, device: Device) -> str:
    if load.limit_watts is not None and (figure := device.power.sustained_watts) is not None:
        return f"power of this device: {figure.value:g} W ({figure.known_by})"
    if limit_watts(load, heat_terms()) is not None:
        return "what the surface of such a device gives off, pooled over devices of its kind"
    return "terms pooled over published devices"
