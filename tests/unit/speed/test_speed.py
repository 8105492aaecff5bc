"""The speed laws: hand sums, monotony, the roofline, the reading of rows, and the errors on published rows."""

from importlib.resources import files

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.fits import fitting
from bench.fits.scales import class_scales
from harness.answer.nearest import model_of, shipped_rows
from harness.answer.resolve import resolve_model
from harness.cli.validate import validate as COMMAND
from harness.core.errors import BadDataError
from harness.core.prediction import Interval
from harness.core.scenario import Scenario
from harness.hardware.devices import load_device
from harness.hardware.traits import chip_key, traits_of
from harness.models.names import load_model
from harness.models.weights import weights_of
from harness.speed.coefficients import shipped
from harness.speed.decode import decode_seconds
from harness.speed.estimate import first_token, predict_speed
from harness.speed.fitted import work_of
from harness.speed.interval import scale_of
from harness.speed.prefill import Prompt, prefill_seconds, prompt_of
from harness.speed.published.row_work import active_named
from harness.speed.published.rows import api_named, predictable, quant_class, read_rows, runtime_named
from harness.speed.published.rows import test_named as named_test
from harness.speed.terms import features
from harness.speed.work import Machine, Work

VALUES = shipped().values


def machine(api="cuda", bandwidth=9.36e11, chip="RTX 3090"):
    return Machine(api, bandwidth, traits_of(chip, api, bandwidth))


def test_decode_by_hand():
    # a = 1e-4 s x 32 layers = 3.2 ms; e = 0.5: 4 GB / (0.5 x 400 GB/s) = 20 ms; c N / P = 1 x 8e9 / 1e12 = 8 ms;
    # (20^3 + 8^3)^(1/3) = 20.418 ms; k = 0.5: 0.1 GB / (0.5 x 0.5 x 400 GB/s) = 1 ms. The soft limits take
    # (1 + 0.5^8)^(1/8) - 1 = 0.05 % of e and k. A chip that is 10 % slower than all that: everything x 1.1
    traits = traits_of("nobody's", "cuda", 4e11)._replace(peak_flops_per_s=1e12)
    values = {"a/gpu": np.log(1e-4), "e/gpu": np.log(0.5), "c/gpu": 0.0, "k": np.log(0.5)}
    engine = Machine("cuda", 4e11, traits, chip="x", build_year=2025)
    work = Work(4e9, 8e9, 32, 1e8, "q4")
    terms = decode_seconds(work, engine, values)
    assert terms.overhead_s == pytest.approx(3.2e-3)
    assert terms.weights_s == pytest.approx(20e-3 * 1.00049, rel=1e-5)
    assert terms.weights_s + terms.dequantisation_s == pytest.approx(20.427e-3, rel=1e-4)
    assert terms.kv_s == pytest.approx(1e-3 * 1.00049**2, rel=1e-5)
    slower = decode_seconds(work, engine, values | {"s/chip gpu:x|cuda": np.log(1.1)})
    assert slower.total_s == pytest.approx(1.1 * terms.total_s)


def test_prefill_by_hand():
    # m = 0.5: 2 x 8e9 x 512 / (0.5 x 1e14) = 163.84 ms; h = 0.25: 1e12 / (0.25 x 0.5 x 1e14) = 80 ms; o = 1 ms for 32
    # layers; 4 GB of weights once at 400 GB/s = 10 ms. The soft limits (m at twice the fp16 peak) take next to nothing
    traits = traits_of("nobody's", "cuda", 4e11)._replace(matrix_flops_per_s=1e14)
    values = {"m/gpu": np.log(0.5), "h": np.log(0.25), "h/year": 0.0, "o/gpu": np.log(1e-3), "m/peak/gpu": 0.0}
    work = Work(4e9, 9e9, 32, 0, "q4", prompt_weight_count=7e9)
    engine = Machine("cuda", 4e11, traits, build_year=2025)
    seconds = prefill_seconds(work, engine, Prompt(512, 1e12), values)
    assert seconds == pytest.approx(1e-3 + 143.36e-3 + 80e-3 + 10e-3, rel=1e-3)
    # of experts a batch reads all 20 GB, though a token goes through 4
    experts = work._replace(prompt_bytes=20e9)
    assert prefill_seconds(experts, engine, Prompt(512, 1e12), values) - seconds == pytest.approx(40e-3)


def test_a_prompt_reads_all_experts_once_a_micro_batch():
    # 20 GB at 400 GB/s = 50 ms and 1 ms of launches: four times for 2,048 tokens by 512, once by 2,048
    traits = traits_of("nobody's", "cuda", 4e11)._replace(matrix_flops_per_s=1e14)
    work = Work(4e9, 9e9, 32, 0, "q4", prompt_weight_count=7e9, prompt_bytes=20e9)
    engine, prompt = Machine("cuda", 4e11, traits, build_year=2025), Prompt(2048, 0.0)
    few, once = (
        prefill_seconds(work, engine, prompt._replace(batch_tokens=n), {"o/gpu": np.log(1e-3)}) for n in (512, 2048)
    )
    assert few - once == pytest.approx(3 * 51e-3)


@pytest.mark.parametrize(
    ("api", "chip", "type_name", "year", "fast"),
    [
        # dates of llama.cpp's pull requests 9921, 12332, 18096, 18888; on Adreno 18871 and 20919
        ("cpu", "Snapdragon X Elite", "Q4_0", 2024.5, False),
        ("cpu", "Snapdragon X Elite", "Q4_0", 2025.0, True),
        ("cpu", "Raspberry Pi 5", "Q8_0", 2025.5, False),
        ("cpu", "Apple M4", "Q6_K", 2026.2, True),
        ("cpu", "Ryzen 9 7950X", "Q4_K_M", 2025.0, False),
        ("cpu", "Ryzen 9 7950X", "Q4_K_M", 2025.5, True),
        ("cpu", "Ryzen 9 7950X", "Q6_K", 2026.5, False),
        ("opencl", "Adreno 830", "Q8_0", 2025.9, False),
        ("opencl", "Adreno 830", "Q8_0", 2026.3, True),
        ("opencl", "Adreno 830", "Q2_K", 2026.6, False),
    ],
)
def test_a_kernel_exists_from_a_build_on(api, chip, type_name, year, fast):
    work = Work(4e9, 9e9, 32, 0, quant_class(type_name), type_name=type_name)
    engine = machine(api, 1e11, chip)._replace(build_year=year)
    assert (f"m/kernel/{api}" in dict(features("prefill", work, engine)["mfu"])) is fast


@pytest.mark.parametrize(
    ("tokens", "cards", "share"),
    [
        (512, 4, 1.0),  # one batch goes through the cards one after another
        (1024, 2, 0.75),  # the second batch follows while the first is on the second card: 1 + 1 / 2 of two
        (4096, 4, (1 + 7 / 4) / 8),
        (8192, 8, (1 + 15 / 4) / 16),  # no more than four batches at once
    ],
)
def test_batches_of_a_prompt_follow_each_other_through_the_cards(tokens, cards, share):
    prompt, work = Prompt(tokens, 1e12), Work(4e9, 9e9, 32, 0, "q4")
    one, several = (prefill_seconds(work, machine(), prompt._replace(card_count=n), VALUES) for n in (1, cards))
    assert several / one == pytest.approx(share)


def test_four_cards_against_one_as_published():
    # github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference: A100 PCIe 80GB and four of them, Llama-3-8B F16, tokens/s
    published = [
        (512, 7741.34, 8088.79),
        (1024, 7504.24, 11670.74),
        (4096, 6137.54, 16025.11),
        (8192, 4849.11, 14269.17),
    ]
    test = ("A100 PCIe 80GB", "Llama-3-8B", "F16", "prefill")
    same = [r for r in shipped_rows() if (r.raw["chip"], r.raw["model"], r.raw["quant"], r.phase) == test]
    for tokens, one, four in published:
        found = {r.prompt.card_count: r for r in same if r.prompt.tokens == tokens}
        rows = found[1], found[4]
        assert [r.measured for r in rows] == [one, four]
        seconds = [np.exp(r.predicted(VALUES)[0]) for r in rows]
        assert seconds[0] / seconds[1] == pytest.approx(four / one, rel=0.2)


def test_attention_of_a_prompt_by_hand():
    # Llama 3.1 8B, 32 layers, 32 heads of 128, 4 FLOP an entry: 512 tokens after 1000 see 1256 in the mean
    llama = load_model("llama-3.1-8b").shape
    assert prompt_of(llama, 512, 1000).attention_flops == 4 * 128 * 32 * 32 * 512 * 1256
    # gpt-oss-20b: 12 of 24 layers see 128 tokens at most; 64 heads of 64
    oss = load_model("gpt-oss-20b").shape
    assert prompt_of(oss, 2048, 0).attention_flops == 4 * 64 * 64 * 2048 * (12 * 1024 + 12 * 128)


def test_what_experts_read_is_counted_by_tensor():
    # gpt-oss-20b: 4 of 32 experts in MXFP4 (17 bytes for 32 weights), everything else in Q8_0, table not read.
    # Experts 24 x 32 x 3 x 2880 x 2880 = 19.11e9 weights x 17/32 x 4/32 = 1.269 GB; attention 24 x (2 x 2880 x 4096 +
    # 2 x 2880 x 512) = 0.637e9 and output 201088 x 2880 = 0.579e9, x 34/32 = 1.292 GB; in F32 the experts' biases
    # 24 x 32 x 3 x 2880 x 4 = 0.027 GB and the router 24 x 32 x 2880 x 4 = 0.009 GB
    known = model_of("gpt-oss-20b", 20.91, "MXFP4")
    assert known.read.size_bytes == pytest.approx(1.269e9 + 1.292e9 + 0.036e9, rel=0.002)
    assert known.read.weight_count - known.read.prompt_weight_count == 201088 * 2880


def test_active_parameters_by_name():
    assert active_named("Qwen3.5-35B-A3B") == 3
    assert active_named("LFM2-8B-A1.5B Instruct") == 1.5
    assert active_named("Llama-3-8B") == 0


apis = st.sampled_from(["cuda", "metal", "cpu", "vulkan", "rocm", "opencl", "npu", "never heard of"])
sizes = st.floats(1e8, 1e12)


@given(apis, sizes, sizes, st.floats(1e10, 4e12), st.sampled_from(["f16", "q8", "q4k", "q2k", "iq"]))
def test_more_bytes_are_never_faster(api, one, two, bandwidth, quant):
    low, high = sorted((one, two))
    engine = machine(api, bandwidth, "unheard of")
    times = [decode_seconds(Work(b, 8e9, 32, 0, quant), engine, VALUES).total_s for b in (low, high)]
    assert times[0] <= times[1] * (1 + 1e-12)  # but for rounding


@given(apis, sizes, st.floats(1e10, 4e12), st.floats(0, 1e10))
def test_no_prediction_passes_the_roofline(api, size, bandwidth, kv):
    seconds = decode_seconds(Work(size, 2 * size, 32, kv, "q4k"), machine(api, bandwidth, "x"), VALUES).total_s
    assert seconds >= (size + kv) / bandwidth * (1 - 1e-9)


@given(apis, st.floats(1e10, 2e12), st.floats(1.0, 2.0), sizes)
def test_more_bandwidth_is_never_slower(api, bandwidth, factor, size):
    times = [
        decode_seconds(Work(size, size, 32, 1e8, "q4"), machine(api, b, "unheard of"), VALUES).total_s
        for b in (bandwidth, bandwidth * factor)
    ]
    assert times[1] <= times[0] * (1 + 1e-9)


@given(st.floats(1, 8192), st.floats(0, 30000))
def test_a_prompt_never_beats_the_peak(tokens, depth):
    engine = machine()
    prompt = prompt_of(load_model("llama-3.1-8b").shape, tokens, depth)
    seconds = prefill_seconds(Work(5e9, 8e9, 32, 0, "q4k"), engine, prompt, VALUES)
    # int8 runs at twice the rate of fp16 on matrix units
    assert seconds >= 2 * 8e9 * tokens / (2 * engine.traits.matrix_flops_per_s)


def test_work_of_a_dense_model_by_hand():
    # Llama 3.1 8B in F16: 8,030,261,248 weights; the token table of 128256 x 4096 is not read, at 2 bytes a weight
    # (norms are F32: 65 x 4096 x 2 bytes more)
    weights = weights_of(load_model("llama-3.1-8b").shape, "F16")
    work = work_of(weights, Scenario(), 1000)
    assert work.weight_count == pytest.approx(8_030_261_248 - 128_256 * 4096, rel=1e-6)
    assert work.weight_bytes == pytest.approx(2 * work.weight_count + 65 * 4096 * 2, rel=1e-6)
    assert work.kv_bytes == 1000 * 32 * 2 * 1024 * 2


def test_work_of_experts_is_their_active_share():
    card = load_model("qwen3-30b-a3b")
    work = work_of(weights_of(card.shape, "Q4_K_M"), Scenario(), 0)
    # 3.3e9 active weights as published, of them 0.31e9 in the token table, which is not read
    assert work.weight_count == pytest.approx(3.0e9, rel=0.05)


def test_the_first_token_comes_with_the_end_of_the_prompt():
    # 512 tokens at 10,000 tokens/s; no decoding pass is needed for it
    read = Interval(mid=10_000.0, low=8_000.0, high=12_800.0)
    assert first_token(Scenario(prompt_tokens=512), read) == Interval(mid=0.0512, low=0.04, high=0.064)
    # of two sequences both prompts are read at the rate of all
    assert first_token(Scenario(prompt_tokens=512, batch_count=2), read).mid == 0.1024

    speed = predict_speed(weights_of(load_model("llama-3.2-1b").shape, "Q4_K_M"), load_device("rtx-4090-desktop"),
                          Scenario(), shipped())  # fmt: skip
    assert speed.ttft_warm_s.mid * speed.prefill_tokens_per_s.mid == pytest.approx(512)


def test_speed_of_a_phone_holds_together():
    weights = weights_of(load_model("llama-3.2-1b").shape, "Q4_K_M")
    device = load_device("iphone-16-pro")
    speed = predict_speed(weights, device, Scenario(), shipped())
    decode = speed.decode_tokens_per_s
    assert decode.low < decode.mid < decode.high <= speed.roofline_tokens_per_s
    assert sum(speed.limits.values()) == pytest.approx(1)
    assert speed.ttft_cold_s.mid > speed.ttft_warm_s.mid
    deeper = predict_speed(weights, device, Scenario(depth_tokens=8000), shipped())
    assert deeper.decode_tokens_per_s.mid < decode.mid


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("M2 Ultra 76-Core GPU 192GB", "Apple M2 Ultra 76c GPU"),
        ("Apple M2 Ultra", "Mac M2 Ultra 76c"),
        ("A100 PCIe 80GB", "A100 80GB"),
    ],
)
def test_one_chip_has_one_key(one, two):
    assert chip_key(one) == chip_key(two)


@pytest.mark.parametrize(
    ("text", "runtime"),
    [
        ("ik_llama.cpp llama-bench", "ik"),
        ("ik_llama.cpp sweep-bench", "ik"),
        ("llama.cpp (mainline kernel inside ik_llama.cpp llama-bench)", "llama.cpp"),
        ("llama.cpp llama-bench", "llama.cpp"),
        ("LiteRT-LM 0.16.0", "litert-lm"),
    ],
)
def test_runtimes_by_their_kernels_not_by_the_tool_that_timed_them(text, runtime):
    assert runtime_named(text) == runtime


def test_names_of_tests_quants_and_backends():
    assert named_test("tg128 @ d2048", "") == ("decode", 128, 2048, True)
    assert named_test("tg32 @d4096", "0") == ("decode", 32, 4096, True)
    assert named_test("pp512", "") == ("prefill", 512, 0, True)
    assert named_test("tg256 after pp4096", "") == ("decode", 256, 4096, True)
    assert named_test("tg @ctx 16k", "") == ("decode", 128, 16384, True)
    assert not named_test("perplexity", "")[3]
    assert [quant_class(q) for q in ("Q4_K_M", "IQ2_XXS", "I2_S", "MXFP4", "BF16", "Q8_0", "Q3_K_L")] == [
        "q4k", "iq", "ternary", "q4", "f16", "q8", "q3k",
    ]  # fmt: skip
    assert [api_named(b) for b in ("CUDA", "gpu-opencl", "", "tpu")] == ["cuda", "opencl", "other", "other"]


HEADER = "chip,backend,test,tokens_per_s,memory_bandwidth_gb_s,model,quant,params_b,model_bytes,extra"


def test_rows_may_lack_anything(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text(
        HEADER
        + "\nRTX 3090,cuda,tg128,100,936,Llama-3.1-8B,Q4_K_M,8.03,,kept"
        + "\nQuantum 1,tpu,tg128,5,,Llama-3.1-8B,Q9,8.03,1e9,"
        + "\n,,,,,,,,,"
        + "\nshort\n"
    )
    rows = read_rows(file, model_of)
    assert [bool(row.work) for row in rows] == [True, False, False, False]
    assert rows[0].raw["derived"] == "model card"
    # 4,920,734,272 bytes is the published Q4_K_M file of Llama 3.1 8B
    assert model_of("Llama-3.1-8B", 8.03, "Q4_K_M").file_bytes == pytest.approx(4_920_734_272, rel=0.005)
    result = CliRunner().invoke(COMMAND, ["--rows", str(file), "--json"], standalone_mode=False)
    assert result.exception is None
    assert '"rows_count": 4' in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,b\n1,2\n", "no column"), ("\x00\xff", "column")],
)
def test_bad_files_are_named(tmp_path, text, message):
    file = tmp_path / "rows.csv"
    file.write_text(text)
    with pytest.raises(BadDataError, match=message):
        read_rows(file, model_of)


def test_jacobian_is_the_derivative():
    rows = [r for r in predictable(shipped_rows()) if r.machine.api == "cuda"][:80]
    problem = fitting.problem_of(rows)
    theta = fitting.fit(problem, steps=2).theta
    base, jacobian = fitting.model(problem, theta)
    dense = jacobian.toarray()
    for index in range(0, len(theta), 7):
        moved = theta.copy()
        moved[index] += 1e-6
        assert (fitting.model(problem, moved)[0] - base) / 1e-6 == pytest.approx(dense[:, index], abs=1e-4)


def test_scales_of_a_known_sample():
    # 99 sources with values 1..99: the 0.9 x (99 + 1) = 90th value. The last nine, against 15 votes of all, have a
    # factor above 1, the others one below, and three votes have none
    classes = [("decode/dense", "decode/NVIDIA")] * 90 + [("decode/dense", "decode/AMD")] * 9
    names, weights = [str(i) for i in range(1, 100)], np.ones(99)
    found = class_scales(classes, names, np.arange(1.0, 100.0), weights)
    assert found["decode"] == pytest.approx(90)
    assert found["decode/NVIDIA"] < 1 < found["decode/AMD"] <= 99 / 90
    few = class_scales([("decode/dense", "decode/AMD")] * 3, ["a", "b", "c"], np.ones(3), np.ones(3))
    assert few == {"decode": 1.0}


def test_a_table_of_many_votes_tells_little_more_than_one_source():
    # 90 votes of one source and 90 of one each tell as much as 180^2 / (90^2 + 90) = 3.96 equal ones, for whom the rank
    # lies beyond the largest error: 0.9 + 0.4 / 3.96 > 1. As 180 sources it is 0.9022, the 162.9th
    kind, errors, alone = [("decode/dense",)] * 180, np.arange(1.0, 181.0), [str(i) for i in range(180)]
    assert class_scales(kind, ["table"] * 90 + alone[90:], errors, np.ones(180))["decode"] == pytest.approx(180)
    assert class_scales(kind, alone, errors, np.ones(180))["decode"] == pytest.approx(162.9, abs=0.01)


@pytest.mark.parametrize(("tables_count", "scale"), [(5, 1.0), (100, 0.1)])
def test_a_class_of_few_tables_borrows_from_the_phase(tables_count, scale):
    # 100 votes err by 1 and 100 of another class by 0.1; the phase's 90 % quantile is 1. Beside five tables stand five
    # sources of the phase, 100 votes: 150 of 200 at 0.1, and the rank 0.9 + 0.4 / 10 is past them. Beside a hundred
    # stand 5 votes: 102.5 of 105, and the rank 0.904 is among them
    kind = [("decode/dense", "decode/NVIDIA")] * 100 + [("decode/dense", "decode/AMD")] * 100
    sources = [str(i) for i in range(100)] + [f"table {i % tables_count}" for i in range(100)]
    found = class_scales(kind, sources, np.repeat([1.0, 0.1], 100), np.ones(200))
    assert (found["decode"], found["decode/AMD"]) == pytest.approx((1.0, scale))


def test_scale_of_a_row_is_a_product():
    machine = Machine("cuda", 4e11, traits_of("RTX 3060", "cuda", 4e11))
    work = Work(1e9, 1e9, 16, 0, "q4k")
    scales = {"decode": 2.0, "decode/NVIDIA": 1.5, "decode/experts": 1.2, "prefill/NVIDIA": 9.0, "decode/new chip": 1.1}
    assert scale_of(scales, "decode", work._replace(moe=True), machine, known=True) == pytest.approx(3.6)
    assert scale_of(scales, "decode", work, machine, known=True) == pytest.approx(3.0)
    assert scale_of(scales, "decode", work, machine, known=False) == pytest.approx(3.3)
    scales |= {"decode/llama.cpp": 0.9, "decode/another runtime": 1.4, "prefill/another runtime": 7.0}
    assert scale_of(scales, "decode", work, machine, known=True) == pytest.approx(2.7)
    other = machine._replace(runtime="mlx")
    assert scale_of(scales, "decode", work, other, known=True) == pytest.approx(4.2)
    assert scale_of({"prefill": 1.0} | scales, "prefill", work, other, known=True) == pytest.approx(9.0)


@settings(max_examples=20)
@given(st.sampled_from(["Llama 3.2 1B Instruct", "gemma3-4b", "Qwen 3 8B", "Meta Llama 3.1 8B Instruct", "LLaMA-7B"]))
def test_published_names_find_cards(name):
    found = model_of(name, 0, "Q4_K_M")
    assert found is not None and found.sized  # a guess has no size


def test_what_is_not_known_well_enough_says_so():
    speed = predict_speed(weights_of(load_model("llama-3.2-1b").shape, "IQ2_XXS"), load_device("mate-40-pro"),
                         Scenario(api="cpu"), shipped())  # fmt: skip
    assert any(text.startswith("prefill speed is not known well enough") for text in speed.unsettled)
    known = predict_speed(weights_of(load_model("llama-3.1-8b").shape, "Q4_K_M"), load_device("rtx-4090-desktop"),
                         Scenario(), shipped())  # fmt: skip
    assert not any(text.startswith("decode") for text in known.unsettled)


def test_shipped_files_stay_small():
    total = sum(len(f.read_bytes()) for f in (files("harness.speed") / "data").iterdir() if f.name.endswith("csv"))
    assert total < 1_000_000


@pytest.mark.parametrize(
    ("watts", "decode", "prompt"),
    [(200, 68.3 / 72.6, 5941 / 9893), (100, 12.1 / 72.6, 1390 / 9893)],  # noonghunna/club-3090: one card at 350 W
)
def test_a_limit_of_power_slows_a_card_as_published(watts, decode, prompt):
    weights = resolve_model("llama-3.1-8b", "Q4_K_M").weights
    free = predict_speed(weights, load_device("rtx 3090"), Scenario())
    held = predict_speed(weights, load_device(f"rtx 3090, {watts}W"), Scenario())
    for name, share in (("decode_tokens_per_s", decode), ("prefill_tokens_per_s", prompt)):
        before = getattr(free, name).mid
        after = getattr(held, name)
        assert after.low / before <= share <= after.high / before


def test_more_power_is_never_slower():
    weights = resolve_model("llama-3.1-8b", "Q4_K_M").weights
    speeds = [
        predict_speed(weights, load_device(f"rtx 4090, {watts}W"), Scenario())
        for watts in (90, 150, 225, 300, 400, 450)
    ]
    for name in ("decode_tokens_per_s", "prefill_tokens_per_s"):
        mids = [getattr(one, name).mid for one in speeds]
        assert mids == sorted(mids)
