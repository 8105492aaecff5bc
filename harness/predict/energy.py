"""What a long answer costs: speed once the device is warm, joules of a token, tokens of a battery charge."""

import math
from typing import Final

from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.prediction import Interval
from harness.predict.decode import Work
from harness.predict.heat import TokenLoad, heat_terms, knee_seconds, limit_watts, load_of, share_kept, watts
from harness.predict.interval import interval, widened

DEFAULT_MINUTES: Final = 10.0
_RATIO_SPREAD: Final = 0.2
"""Spread of ln share between models on one device: what a ratio measured with one model says of another."""


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
    device: DeviceProfile, api: str, work: Work, burst: Interval, minutes: float = DEFAULT_MINUTES
) -> Sustained | None:
    """Speed after ``minutes`` of decode; None where nobody knows what the device can give off.

    ``burst`` is the predicted or measured speed of the first seconds, which holds until the knee, tokens/s.
    """
    load = load_of(device, api, work, whole=True)
    terms = heat_terms()
    if not load.handheld:
        load = load.replace(whole=False)
    middle = share_kept(load, burst.mid, terms.terms)
    if middle is None or burst.mid <= 0:
        return None
    evidence = _evidence(load, device)
    knee = knee_seconds(load, burst.mid, terms.terms)
    if load.held_at_once:
        share = Interval(1.0, 0.93, 1.0)
    elif knee is not None and minutes * 60 < knee:
        share = Interval(1.0, middle, 1.0)
    else:
        share = terms.interval(lambda t: share_kept(load, burst.mid, t), terms.share_floor)
        engine = device.engine_for(api)
        ratio = None
        if engine is not None:
            ratio = engine.sustained_ratio
        if ratio is not None and ratio.confidence in {"measured", "secondary"}:
            share = _pooled(share, ratio.value)
            evidence = "a share measured on such a device with another model, and the heat of this one"
        share = share.through(lambda kept: min(kept, 1.0))

    def at(speed: float) -> float:
        return speed * share.mid * (share_kept(load, speed, terms.terms) or middle) / middle

    low, high = sorted((at(burst.low), at(burst.high)))
    speed = share.through(lambda kept: burst.mid * kept)
    speed = widened(speed, max(math.log(speed.mid / low), 0.0), max(math.log(high / speed.mid), 0.0))
    speed = speed.replace(high=min(speed.high, burst.high))
    return Sustained(minutes=minutes, share=share, tokens_per_s=speed, knee_s=knee, evidence=evidence)


def predict_energy(
    device: DeviceProfile, api: str, work: Work, burst: Interval, minutes: float = DEFAULT_MINUTES
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
        own = terms.interval(lambda t: watts(load, speed.mid, t, warm=warm) / speed.mid, terms.energy_floor)
        ends = sorted(watts(load, v, terms.terms, warm=warm) / v for v in (speed.low, speed.high) if v > 0)
        return widened(own, max(math.log(own.mid / ends[0]), 0.0), max(math.log(ends[-1] / own.mid), 0.0))

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


def _evidence(load: TokenLoad, device: DeviceProfile) -> str:
    if load.limit_watts is not None and (figure := device.power.sustained_watts) is not None:
        return f"power of this device: {figure.value:g} W ({figure.known_by})"
    if limit_watts(load, heat_terms().terms) is not None:
        return "what the surface of such a device gives off, pooled over devices of its kind"
    return "terms pooled over published devices"


def _pooled(share: Interval, ratio: float) -> Interval:
    """Two estimates of one share, each weighed by the inverse of its variance in ln."""
    own = math.log(share.high / share.low) / (2 * 1.645)
    weight = own**-2 / (own**-2 + _RATIO_SPREAD**-2)
    middle = math.exp(weight * math.log(share.mid) + (1 - weight) * math.log(ratio))
    width = 1.645 * (own**-2 + _RATIO_SPREAD**-2) ** -0.5
    return interval(middle, width)
