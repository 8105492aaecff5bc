"""Several sequences together: the law's two ends and bounds, and published batches that it was not fitted on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.app.fit import predict
from harness.app.resolve import resolve_model
from harness.app.validate import other_checks
from harness.catalog.devices import load_device
from harness.domain.placement import Placement
from harness.domain.scenario import Scenario
from harness.errors import RefusedError
from harness.predict.batch import batch_step_s
from harness.predict.coefficients import shipped
from harness.predict.decode import decode_seconds
from harness.predict.speed import machine_of, predict_speed, work_of
from harness.predict.sweep import decode_speeds

VALUES = shipped().values
MODEL = resolve_model("llama-3.1-8b", "Q4_K_M")
DEVICES = ["rtx-4090-desktop", "macbook-air-m3", "raspberry-pi-5-16gb"]


def work_on(name, depth=512):
    device, scenario = load_device(name), Scenario(depth_tokens=depth)
    return work_of(MODEL.weights, scenario, depth), machine_of(device, scenario)


@pytest.mark.parametrize("name", DEVICES)
def test_one_sequence_is_the_law_of_decode(name):
    work, machine = work_on(name)
    assert batch_step_s(work, machine, 1, VALUES) == decode_seconds(work, machine, VALUES).total_s


@pytest.mark.parametrize("name", DEVICES)
@given(count=st.integers(1, 255))
def test_a_step_grows_and_a_token_gets_cheaper(name, count):
    work, machine = work_on(name)
    fewer, more = (batch_step_s(work, machine, n, VALUES) for n in (count, count + 1))
    assert more > fewer
    assert more / (count + 1) < fewer / count


def test_a_great_batch_computes_at_the_peak_and_no_faster():
    work, machine = work_on("rtx-4090-desktop")
    step = batch_step_s(work, machine, 4096, VALUES)
    # 2 FLOP for each weight and token, and int8 twice as fast as the fp16 matrix peak of the data sheet
    assert step > 2 * work.weight_count * 4095 / (2 * machine.traits.matrix_flops_per_s)


def test_fit_and_sweep_say_the_same_of_a_batch():
    device, scenario = load_device("rtx-4090-desktop"), Scenario(batch_count=8)
    speed = predict_speed(MODEL.weights, device, scenario).decode_tokens_per_s
    one = predict_speed(MODEL.weights, device, Scenario()).decode_tokens_per_s
    assert 2 * one.mid < speed.mid < 8 * one.mid
    assert speed.high / speed.low > one.high / one.low
    work = work_of(MODEL.weights, scenario, 64)
    assert decode_speeds([device], [[MODEL.weights]], [[work]], scenario)[0, 0, 0] == pytest.approx(speed.mid)


def test_a_batch_on_a_split_placement_is_refused():
    device = load_device("rtx-4090-desktop")
    with pytest.raises(RefusedError, match="several sequences"):
        predict(MODEL, device, Scenario(batch_count=8, placement=Placement(gpu_layers=10)))


def test_published_batches():
    checks = {check.name: check for check in other_checks()}
    for name in ("several sequences together", "several sequences, where one was measured"):
        assert checks[name].rows_count >= 160
        assert checks[name].median_ratio <= 0.20
