"""Energy by hand."""

import pytest
from msgspec.structs import replace

from harness.catalog.devices import load_device
from harness.domain.device import Figure, Power
from harness.predict.energy import predict_energy


def test_energy_by_hand():
    def figure(value):
        return Figure(value=value, source="by hand", confidence="assumed")

    device = load_device("macbook-pro-m4-max")
    device = replace(device, power=Power(battery_joules=figure(360_000), sustained_watts=figure(40)))
    energy = predict_energy(80.0, device, "metal")
    # 40 W / 80 tokens/s = 0.5 J; 360 kJ / 0.5 J = 720,000 tokens; the share kept under heat scales both
    kept = energy.sustained_tokens_per_s / 80
    assert 0 < kept <= 1
    assert energy.joules_per_token == pytest.approx(0.5 / kept)
    assert energy.tokens_per_charge == pytest.approx(720_000 * kept)
    assert predict_energy(80.0, replace(device, power=Power()), "metal") is None
