"""Energy of a token and tokens of a battery charge."""

from harness.domain.base import Frozen
from harness.domain.device import DeviceProfile
from harness.predict.speed import sustained_tokens_per_s


class Energy(Frozen, frozen=True, kw_only=True):
    """What a long answer costs.

    Attributes:
        sustained_tokens_per_s: Speed after ten minutes.
        joules_per_token: Power of the device over that speed.
        tokens_per_charge: Tokens of a full battery; None without one, or where it is unknown.
    """

    sustained_tokens_per_s: float
    joules_per_token: float
    tokens_per_charge: float | None


def predict_energy(burst_tokens_per_s: float, device: DeviceProfile, api: str) -> Energy | None:
    """Energy at sustained speed and sustained power; None where the device's power is unknown.

    joules/token = watts / (tokens/s);  tokens/charge = battery joules / (joules/token). All of the device's power is
    counted, screen and all, as the battery does.
    """
    watts = device.power.sustained_watts
    speed = sustained_tokens_per_s(burst_tokens_per_s, device, api)
    if watts is None or speed <= 0:
        return None
    joules = watts.value / speed
    battery = device.power.battery_joules
    return Energy(
        sustained_tokens_per_s=speed,
        joules_per_token=joules,
        tokens_per_charge=battery.value / joules if battery is not None else None,
    )
