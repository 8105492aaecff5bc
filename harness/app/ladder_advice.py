"""Which rung of a measured ladder each device should take."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from harness.app.fit import predict
from harness.app.matrix import matching
from harness.app.resolve import THIS_MACHINE, ResolvedModel, resolve_device
from harness.catalog.devices import device_names
from harness.catalog.gguf import read_gguf
from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.domain.prediction import Interval, Prediction
from harness.domain.scenario import Scenario
from harness.predict.weights import weights_of
from harness.records.ladder import Ladder, Rung, divergence

FAITHFUL_KL: Final = 0.1
"""Nats of divergence up to which a rung counts as faithful to the reference when one is recommended."""

_SAME_SPEED_RATIO: Final = 0.95


class RungAdvice(Frozen, frozen=True, kw_only=True):
    """What one device should take.

    Attributes:
        quant: The rung; empty when none fits.
        is_faithful: Whether that rung is within 0.1 nats of the reference.
    """

    device: str
    quant: str = ""
    is_faithful: bool = False
    kl_divergence: float | None = None
    decode_tokens_per_s: Interval | None = None
    peak_bytes: Interval | None = None


def devices_named(patterns: Sequence[str]) -> list[DeviceProfile]:
    """Devices by name, pattern or file; ``this`` is this machine.

    Raises:
        UnknownNameError: A pattern matches nothing.
        RefusedError: This machine was never probed.
        BadDataError: A file breaks the schema.
    """
    here = [name for name in patterns if name in THIS_MACHINE]
    asked = [name for name in patterns if name not in THIS_MACHINE]
    return [resolve_device(name) for name in (*here, *matching("device", asked, device_names()))]


def advise(
    source: Path, result: Ladder, devices: Sequence[DeviceProfile], scenario: Scenario
) -> tuple[RungAdvice, ...]:
    """What each device should take.

    Raises:
        BadDataError, RefusedError: As :func:`rung_predictions`.
    """
    found = []
    for device in devices:
        predictions = rung_predictions(source, result, device, scenario)
        rung = recommend(result, predictions)
        if rung is None:
            found.append(RungAdvice(device=device.name))
            continue
        told = predictions[rung.quant]
        found.append(
            RungAdvice(
                device=device.name,
                quant=rung.quant,
                is_faithful=divergence(rung) <= FAITHFUL_KL,
                kl_divergence=rung.quality.kl_divergence if rung.quality else None,
                decode_tokens_per_s=told.speed.decode_tokens_per_s,
                peak_bytes=told.memory.peak_bytes,
            )
        )
    return tuple(found)


def rung_predictions(source: Path, result: Ladder, device: DeviceProfile, scenario: Scenario) -> dict[str, Prediction]:
    """What the feasibility model says of each rung on a device: memory, speed and verdict by mixture.

    Raises:
        BadDataError: The source is no GGUF file.
        RefusedError: The device has no such api.
    """
    shape = read_gguf(source).weights().shape
    found = {}
    for rung in result.rungs:
        if rung.outcome == "ok":
            model = ResolvedModel(name=result.model, quant=rung.quant, weights=weights_of(shape, rung.quant))
            found[rung.quant] = predict(model, device, scenario)
    return found


def recommend(result: Ladder, predictions: Mapping[str, Prediction]) -> Rung | None:
    """The rung for a device: among those predicted to fit, the fastest faithful one; None when none fits.

    Faithful is a divergence of at most 0.1 nats from the reference; speed is the one predicted for the device, and of
    speeds within 5 % of the highest, which no prediction tells apart, the smallest divergence wins. So it does where no
    faithful rung fits.
    """
    fitting = [
        r for r in result.rungs if r.quality and r.quant in predictions and predictions[r.quant].verdict.word == "fits"
    ]
    if not fitting:
        return None
    faithful = [r for r in fitting if divergence(r) <= FAITHFUL_KL]
    if faithful:
        speeds = {r.quant: predictions[r.quant].speed.decode_tokens_per_s.mid for r in faithful}
        enough = _SAME_SPEED_RATIO * max(speeds.values())
        return min((r for r in faithful if speeds[r.quant] >= enough), key=divergence)
    return min(fitting, key=divergence)
