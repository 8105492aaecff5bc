"""Energy and heat: by hand from round terms, and published devices predicted without their own rows."""

import math

import pytest
from msgspec.structs import replace

from bench.fits import heat
from bench.rows import heat as heat_rows
from harness.answer.nearest import model_of
from harness.core.device import Power, Sourced
from harness.core.errors import BadDataError
from harness.core.prediction import Interval
from harness.core.tables import shipped_table
from harness.hardware.devices import device_names, load_device
from harness.speed.energy import (
    TokenLoad,
    heat_terms,
    knee_seconds,
    predict_energy,
    share_kept,
    sustained,
    token_joules,
    watts,
)
from harness.speed.published.errors_of_rows import score
from harness.speed.work import Work

PRIORS = shipped_table("heat_priors.toml", "bench.fits")
TERMS = {key: math.log(value) for key, value in dict.fromkeys(PRIORS, 1.0).items()} | {
    "byte": math.log(50e-12),
    "operation/gpu": math.log(25e-12),
    "dequantise": math.log(2),
    "year": -math.inf,
    "idle/phone": math.log(1.0),
    "limit/phone": math.log(5.0),
    "governor": math.log(2.0),
    "tau": math.log(100.0),
}
# 1 GB x 50 pJ = 0.05 J; 2e9 operations x 25 pJ = 0.05 J
PHONE = TokenLoad(engine="gpu", kind="phone", whole=True, byte_count=1e9, operation_count=2e9)
WORK = Work(1.8e9, 3.2e9, 28, 5e7, "q4k")
HEADER = ("device", "chip", "device_class", "backend", "model", "quant", "run_id", "t_s", "tokens_per_s")
BURST = Interval(mid=20.0, low=16.0, high=25.0)


def test_power_and_share_by_hand():
    assert token_joules(PHONE, TERMS) == pytest.approx(0.1)
    assert token_joules(replace(PHONE, plain=False), TERMS) == pytest.approx(0.15)
    # the processor's own counters see 40 % of a byte: 0.02 + 0.05
    assert token_joules(replace(PHONE, whole=False), TERMS) == pytest.approx(0.07)
    assert watts(PHONE, 10, TERMS) == pytest.approx(1 + 1.0)
    assert watts(PHONE, 100, TERMS, warm=False) == pytest.approx(11)
    assert watts(PHONE, 100, TERMS) == pytest.approx(5)
    # 160 tokens/s ask for 16 W where 4 are left: sqrt(1/4) = 0.5, rounded off by (1 + 0.5^-4)^(-1/4)
    assert share_kept(PHONE, 160, TERMS) == pytest.approx(17**-0.25)
    assert share_kept(PHONE, 1, TERMS) == pytest.approx(1, abs=1e-3)
    # P = 17 W: the limit of 5 W is reached after -100 ln(1 - 5/17)
    assert knee_seconds(PHONE, 160, TERMS) == pytest.approx(-100 * math.log(12 / 17))
    assert knee_seconds(PHONE, 10, TERMS) is None


def test_what_is_not_known_is_said():
    laptop = load_device("macbook-pro-m3-max")
    assert laptop.power.sustained_watts is None
    assert sustained(laptop, "metal", WORK, BURST) is None
    energy = predict_energy(laptop, "metal", WORK, BURST)
    assert energy is not None and energy.sustained_joules_per_token is None and energy.scope == "whole device"
    card = replace(load_device("rtx-3090-desktop"), power=Power())
    assert predict_energy(card, "cuda", WORK, BURST) is None
    assert sustained(card, "cuda", WORK, BURST) is None


def test_a_phone_slows_down_and_more_heat_given_off_slows_it_less():
    phone = load_device("galaxy-s24")
    late = sustained(phone, "vulkan", WORK, BURST)
    assert late is not None and late.knee_s is not None
    assert late.tokens_per_s.low < late.tokens_per_s.mid < BURST.mid
    early = sustained(phone, "vulkan", WORK, BURST, minutes=late.knee_s / 120)
    assert early is not None and early.tokens_per_s.mid == pytest.approx(BURST.mid)
    cooled = replace(phone, power=Power(sustained_watts=Sourced(value=12, source="by hand", confidence="assumed")))
    better = sustained(cooled, "vulkan", WORK, BURST)
    assert better is not None and better.share.mid > late.share.mid
    energy = predict_energy(phone, "vulkan", WORK, BURST)
    assert energy is not None and energy.tokens_per_charge is not None and energy.sustained_joules_per_token is not None
    # slower clocks take less energy for the same token
    assert energy.sustained_joules_per_token.mid < energy.joules_per_token.mid
    battery = phone.power.battery_joules
    assert battery is not None
    assert energy.tokens_per_charge.mid == pytest.approx(battery.value / energy.sustained_joules_per_token.mid)


@pytest.mark.parametrize("name", device_names())
def test_every_device_answers_or_says_that_it_does_not_know(name: str):
    device = load_device(name)
    for api in {api for engine in device.engines for api in engine.apis}:
        late, energy = sustained(device, api, WORK, BURST), predict_energy(device, api, WORK, BURST)
        if late is not None:
            assert 0 < late.share.low <= late.share.mid <= late.share.high <= 1
            assert late.tokens_per_s.high <= BURST.high
        if energy is not None:
            assert 0 < energy.joules_per_token.low < energy.joules_per_token.mid < energy.joules_per_token.high < 100


def test_the_shipped_terms_are_the_fit_of_the_shipped_rows():
    assert heat.fit(heat.shipped()) == pytest.approx(heat_terms(), abs=2e-3)


def test_devices_are_predicted_without_their_own_rows():
    judged = heat.left_out()
    energy = score([j for j in judged if j.row.group == "energy of a token"])
    share = score([j for j in judged if j.row.group == "share of speed that is left"])
    assert energy.votes_count >= 15 and energy.median_ratio <= 0.30
    assert 0.80 <= energy.coverage_ratio <= 0.97
    assert share.median_ratio <= 0.20


def test_rows_that_only_noise_makes_pull_no_term_far():
    """Few rows: the priors hold."""
    row = heat_rows.HeatRow("energy", "x", PHONE, 10.0, 0.9)
    fitted = heat.fit([row])
    for key, prior in PRIORS.items():
        assert abs(fitted[key] - math.log(prior["start"])) < 3 * prior["width"]


def test_a_file_without_its_columns_is_named(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("device,chip\na,b\n")
    with pytest.raises(BadDataError, match="no column"):
        heat_rows.heat_rows("energy", model_of, path)


def test_a_cell_that_is_no_number_refuses_its_run(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(",".join(HEADER) + "\na,b,phone,cpu,1B,Q4_0,r,x,1\n")
    ((row, measured),) = heat_rows.heat_rows("thermal", model_of, path)
    assert measured is None
    assert row.reason.startswith("no number: ")
