"""Several sequences together: the law's two ends and bounds, and published batches that it was not fitted on."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.rows.others import batch_rows
from harness.answer.case import Case
from harness.answer.nearest import model_of
from harness.answer.resolve import resolve_model
from harness.answer.ways import predict
from harness.core.device import Calibration, TypeCost
from harness.core.placement import Placement
from harness.core.scenario import Scenario
from harness.hardware.devices import load_device
from harness.speed.coefficients import shipped
from harness.speed.decode import decode_seconds
from harness.speed.estimate import pass_seconds, predict_speed
from harness.speed.fitted import few_tokens, machine_of, work_of
from harness.speed.passes import Pass
from harness.speed.published.errors_of_rows import judge_shipped, report

VALUES = shipped().values
MODEL = resolve_model("llama-3.1-8b", "Q4_K_M")
DEVICES = ["rtx-4090-desktop", "macbook-air-m3", "raspberry-pi-5-16gb"]


def work_on(name, depth=512):
    device, scenario = load_device(name), Scenario(depth_tokens=depth)
    return work_of(MODEL.weights, scenario, depth), machine_of(device, scenario)


def batch_step_s(work, machine, count):
    return few_tokens(work, machine, Pass(1, sequences=count), VALUES).total_s


@pytest.mark.parametrize("name", DEVICES)
def test_one_sequence_is_the_law_of_decode(name):
    work, machine = work_on(name)
    assert batch_step_s(work, machine, 1) == pytest.approx(decode_seconds(work, machine, VALUES).total_s, rel=1e-12)


@pytest.mark.parametrize("name", DEVICES)
@given(count=st.integers(1, 255))
def test_a_step_grows_and_a_token_gets_cheaper(name, count):
    work, machine = work_on(name)
    fewer, more = (batch_step_s(work, machine, n) for n in (count, count + 1))
    assert more > fewer
    # on a slow CPU computing limits from a few sequences on, where the first one's, which is free, was a large part
    assert more / (count + 1) < fewer / count * 1.05


def test_a_great_batch_computes_at_the_peak_and_no_faster():
    work, machine = work_on("rtx-4090-desktop")
    step = batch_step_s(work, machine, 4096)
    # 2 FLOP for each weight and token, and int8 twice as fast as the fp16 matrix peak of the data sheet
    assert step > 2 * work.weight_count * 4095 / (2 * machine.traits.matrix_flops_per_s)


def test_a_batch_gains_less_than_its_size_and_is_less_sure():
    device, scenario = load_device("rtx-4090-desktop"), Scenario(batch_count=8)
    speed = predict_speed(MODEL.weights, device, scenario).decode_tokens_per_s
    one = predict_speed(MODEL.weights, device, Scenario()).decode_tokens_per_s
    assert 2 * one.mid < speed.mid < 8 * one.mid
    assert speed.high / speed.low > one.high / one.low


def test_a_batch_on_a_split_placement_gains_less_than_its_size():
    device, split = load_device("rtx-4090-desktop"), Scenario(placement=Placement(gpu_layers=10))
    one, many = (predict(Case.of(MODEL, device, msgspec.structs.replace(split, batch_count=n))).speed for n in (1, 8))
    assert one.decode_tokens_per_s.mid < many.decode_tokens_per_s.mid < 8 * one.decode_tokens_per_s.mid
    width = [s.decode_tokens_per_s.high / s.decode_tokens_per_s.low for s in (one, many)]
    assert width[1] > width[0]


def test_users_and_verified_drafts_are_one_pass():
    """The step of n users at no depth is the verification of n tokens; only the caches differ deeper in."""
    device = load_device("rtx-4090-desktop")
    users, drafts = (pass_seconds(MODEL.weights, device, Scenario(), p) for p in (Pass(1, 0, 4), Pass(4, 0, 1)))
    assert users == pytest.approx(drafts, rel=0.01)
    deep = [pass_seconds(MODEL.weights, device, Scenario(), p) for p in (Pass(1, 8000, 4), Pass(4, 8000, 1))]
    cache_s = 8000 * 131_072 / 1008e9  # 32 layers x 2 x 8 heads x 128 x 2 bytes a token, at the specification
    assert deep[0] - deep[1] > 3 * cache_s


@pytest.mark.parametrize("name", ["rtx-4090-desktop", "rtx-3060-desktop", "macbook-pro-m3-max", "ryzen-9-7950x"])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "qwen3-30b-a3b", "smollm2-135m"])
def test_more_tokens_in_a_pass_never_take_less_time(name: str, model: str) -> None:
    """Up to 64 tokens, over the change from kernels for few tokens to those of prompts, but for rounding."""
    weights, device = resolve_model(model, "Q4_K_M").weights, load_device(name)
    times = [pass_seconds(weights, device, Scenario(), Pass(n)) for n in (1, 2, 4, 8, 12, 16, 17, 24, 31, 32, 48, 64)]
    assert all(later > 0.999 * earlier for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize("kv_type", ["F16", "Q8_0"])
@pytest.mark.parametrize("together", [1, 2, 8])
def test_a_batch_over_two_timed_engines_is_the_sum_of_its_parts(together: int, kv_type: str):
    """Two engines that cost the same: a split takes what the whole model takes, and a crossing for each change."""
    costs = Calibration(
        api="cpu",
        engine_version="made up",
        thread_count=2,
        types=(TypeCost(type_name="Q4_K", batch_seconds_per_byte=((1, 1e-10), (8, 4e-10))),),
        token_overhead_s=1e-3,
        layer_overhead_s=1e-4,
        token_layer_s=1e-5,
        kv_read_bytes_per_s=1e9,
        attention_flops_per_s=1e11,
    )
    base = Scenario(batch_count=together, depth_tokens=100, new_tokens=20, prompt_tokens=16, kv_type=kv_type)
    alone = msgspec.structs.replace(load_device("raspberry-pi-5"), calibrations=(costs,))
    whole = pass_seconds(MODEL.weights, alone, base, Pass(1, 110, together, kv_type=kv_type))

    def token_s(crossing_s: float, link: float) -> float:
        gpu = msgspec.structs.replace(costs, api="cuda", crossing_s=crossing_s, link_bytes_per_s=link)
        device = msgspec.structs.replace(load_device("rtx-4090-desktop"), calibrations=(costs, gpu))
        asked = msgspec.structs.replace(base, api="cuda", placement=Placement(gpu_layers=10))
        return together / predict(Case.of(MODEL, device, asked)).speed.decode_tokens_per_s.mid

    assert token_s(0.0, 1e30) == pytest.approx(whole)
    # one change of engines: 5 us, and 8 bytes of each activation of each sequence over the link
    crossed = 5e-6 + together * 8 * MODEL.weights.shape.hidden_dim / 1e10
    assert token_s(5e-6, 1e10) == pytest.approx(whole + crossed)


def test_a_long_prompt_of_a_split_copies_weights():
    """Two engines that cost the same: the products of the whole model, and copies of the CPU's part."""
    costs = Calibration(
        api="cpu",
        engine_version="made up",
        thread_count=2,
        types=(TypeCost(type_name="Q4_K", batch_seconds_per_byte=((1, 1e-10), (64, 4e-10))),),
        token_overhead_s=0.0,
        layer_overhead_s=0.0,
        kv_read_bytes_per_s=1e30,
        attention_flops_per_s=1e30,
    )

    def prompt_s(link: float) -> float:
        gpu = msgspec.structs.replace(costs, api="cuda", link_bytes_per_s=link)
        device = msgspec.structs.replace(load_device("rtx-4090-desktop"), calibrations=(costs, gpu))
        asked = Scenario(prompt_tokens=64, api="cuda", placement=Placement(gpu_layers=10))
        return 64 / predict(Case.of(MODEL, device, asked)).speed.prefill_tokens_per_s.mid

    away = [t for t in MODEL.weights.tensors if "blk." in t.name and int(t.name.split(".")[1]) < 33 - 10]
    whole, size = prompt_s(1e30), sum(t.size_bytes for t in away)
    assert prompt_s(1e9) - whole == pytest.approx(size / 1e9, rel=1e-3)


def test_published_batches():
    rows = batch_rows(None, model_of)
    found = report(rows, judge_shipped(rows, shipped())).groups
    for name, most in (("several sequences", 0.26), ("experts, several sequences", 0.29)):
        assert found[name].rows_count >= 36
        assert found[name].median_ratio <= most
        assert found[name].median_ratio < found[name].best_constant[1]
