"""Chips that no published row names: what their names tell, and how sure a prediction of them is."""

import math

import numpy as np
import pytest
from harness.predict.priors import prior_of
from hypothesis import given
from hypothesis import strategies as st

from harness.app.published import shipped_rows
from harness.predict.coefficients import Covariance, shipped
from harness.predict.decode import Machine, Work, decode_gradient, decode_seconds
from harness.predict.interval import expected_spread, interval
from harness.predict.prefill import Prompt, prefill_gradient, prefill_seconds
from harness.predict.traits import chip_key, traits_of
from harness.published import fitting
from harness.published.leaving_out import leave_out, splits_of
from harness.published.rows import predictable

VALUES = {key: c.value for key, c in shipped().decode.items()}
PREFILL = {key: c.value for key, c in shipped().prefill.items()}
WORK = Work(4.6e9, 7.5e9, 32, 1.7e7, "q4k")
PROMPT = Prompt(512, 100, 4 * 128 * 32 * 32 * 512 * 356)


@pytest.mark.parametrize(
    ("chip", "api", "family", "memory", "matrix_tflops"),
    [
        # dense fp16 of the vendors' data sheets
        ("NVIDIA GeForce RTX 3060 Ti", "cuda", "nvidia-ampere", "gddr", 65),
        ("RTX 4070 Super", "cuda", "nvidia-ada", "gddr", 142),
        ("RTX 6000 Ada 48GB", "cuda", "nvidia-ada", "gddr", 364),
        ("RTX PRO 6000 Blackwell", "cuda", "nvidia-blackwell", "gddr", 500),
        ("NVIDIA L4", "cuda", "nvidia-ada", "gddr", 121),
        ("NVIDIA A10", "cuda", "nvidia-ampere", "gddr", None),
        ("A40 48GB", "cuda", "nvidia-ampere", "gddr", 150),
        ("Tesla P40", "cuda", "nvidia-pascal", "gddr", 11.8),
        ("Tesla V100 16GB", "cuda", "nvidia-hbm", "hbm", 125),
        ("H200", "cuda", "nvidia-hbm-hopper", "hbm", 989),
        ("B200", "cuda", "nvidia-hbm-hopper", "hbm", 2250),
        ("Jetson AGX Orin", "cuda", "nvidia-unified", "lpddr", None),
        ("RX 6800 XT", "vulkan", "amd-rdna2", "gddr", 41),
        ("AMD Radeon RX 7800 XT", "rocm", "amd-rdna3", "gddr", 75),
        ("Radeon Pro W7900", "vulkan", "amd-rdna3", "gddr", 123),
        ("Instinct MI300X", "rocm", "amd-cdna", "hbm", 1307),
        ("MI50", "rocm", "amd-cdna", "hbm", 27),
        ("Radeon VII", "vulkan", "amd-cdna", "hbm", 27),
        ("Intel Arc B570", "sycl", "intel-arc", "gddr", None),
        ("Arc A750", "vulkan", "intel-arc", "gddr", None),
        ("Snapdragon 7+ Gen 3", "opencl", "qualcomm", "lpddr", None),
        ("Dimensity 9300", "vulkan", "mali", "lpddr", None),
        ("Exynos 2400", "vulkan", "mali", "lpddr", None),
        ("iPhone 15 Pro", "metal", "apple-phone", "lpddr", None),
        ("A17 Pro", "metal", "apple-phone", "lpddr", None),
        ("EPYC 9654", "cpu", "server-cpu", "ddr", None),
        ("Ampere Altra Max", "cpu", "server-cpu", "ddr", None),
        ("Orange Pi 5 Plus (RK3588)", "cpu", "arm-cpu", "ddr", None),
        ("Core Ultra 9 288V", "cpu", "x86-cpu", "ddr", None),
        ("Ryzen 9 7950X", "cpu", "x86-cpu", "ddr", None),
    ],
)
def test_a_new_name_finds_its_family(chip, api, family, memory, matrix_tflops):
    traits = traits_of(chip, api, 4e11)
    assert (traits.family, traits.memory) == (family, memory)
    if matrix_tflops is not None:
        assert traits.matrix_flops_per_s == pytest.approx(matrix_tflops * 1e12)


@pytest.mark.parametrize(
    ("chip", "generation", "tier", "cores"),
    [
        ("Apple M1 Pro 14c GPU", 1, "pro", 14),
        ("M3 Max (14-core CPU, 30-core GPU)", 3, "max", 30),
        ("Apple M4", 4, "base", 10),
        ("Mac Studio M3 Ultra 512GB", 3, "ultra", 80),
        ("Apple M2 Ultra 60c GPU", 2, "ultra", 60),
        ("Apple M5 Max", 5, "max", 40),
    ],
)
def test_apple_names(chip, generation, tier, cores):
    traits = traits_of(chip, "metal", 4e11)
    assert (traits.family, traits.tier, traits.core_count) == (f"apple-m{generation}", tier, cores)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("4080 16GB", "NVIDIA GeForce RTX 4080", True),
        ("DGX Spark GB10 128GB", "NVIDIA GB10", True),
        ("Apple M4 Max", "Apple M4 Max 12P+4E+40GPU", True),
        ("Intel 265K Custom PC (Nvidia RTX 3060)", "RTX 3060 12GB", True),
        ("Adreno 840", "Snapdragon 8 Elite Gen 5", True),
        ("BCM2712", "Pi 5 - 16GB", True),
        ("RTX 3060", "RTX 3060 Ti", False),
        ("RTX 4070 Ti", "RTX 4070 Ti Super", False),
        ("RTX 4070", "RTX 4070 Laptop", False),
        ("RX 7900 XT", "RX 7900 XTX", False),
        ("Apple M2 Max 30c GPU", "Apple M2 Max", False),
        ("Orange Pi 5", "Pi 5", False),
    ],
)
def test_names_of_one_chip_and_of_two(one, two, same):
    assert (chip_key(one) == chip_key(two)) is same


def test_spread_by_hand():
    # S = [[0.04, 0.01], [0.01, 0.09]], g = (1, -2): 0.04 - 2 x 2 x 0.01 + 4 x 0.09 = 0.36; a term that is not in S has
    # its prior's width
    covariance = Covariance(keys=("a", "e"), lower=(0.04, 0.01, 0.09))
    assert covariance.spread({"a": 1, "e": -2}) == pytest.approx(0.6)
    width = prior_of("e/nobody")[1]
    assert covariance.spread({"a": 1, "e": -2, "e/nobody": 0.5}) == pytest.approx(math.sqrt(0.36 + width**2 / 4))
    # floor 6 %: hypot(0.06, 0.08) = 0.1; quantiles of -2 and 1.5 spreads
    assert expected_spread(0.08) == pytest.approx(0.1)
    span = interval(10, (-2, 1.5), spread=0.1)
    assert (span.low, span.high) == pytest.approx((10 * math.exp(-0.2), 10 * math.exp(0.15)))


def spread_of(chip, api, bandwidth):
    machine = Machine(api, bandwidth, traits_of(chip, api, bandwidth))
    return shipped().decode_covariance.spread(decode_gradient(WORK, machine, VALUES))


def test_less_is_known_of_a_stranger():
    known = spread_of("RTX 4080", "cuda", 7.17e11)
    assert known < spread_of("Tesla P40", "cuda", 3.47e11)
    assert known < spread_of("Instinct MI300X", "rocm", 5.3e12)
    assert known < spread_of("unheard of", "tpu", 7.17e11)


@given(
    st.sampled_from([("RTX 4080", "cuda"), ("Apple M4", "metal"), ("EPYC 9654", "cpu"), ("unheard of", "tpu")]),
    st.sampled_from(["q4k", "iq", "f16"]),
)
def test_gradients_are_derivatives(engine, quant):
    chip, api = engine
    machine = Machine(api, 3e11, traits_of(chip, api, 3e11))
    work = WORK._replace(quant_class=quant)
    for gradient, seconds, values in (
        (
            decode_gradient(work, machine, VALUES),
            lambda v: decode_seconds(work, machine, v).total_s,
            VALUES,
        ),
        (
            prefill_gradient(work, machine, PROMPT, PREFILL),
            lambda v: prefill_seconds(work, machine, PROMPT, v),
            PREFILL,
        ),
    ):
        base = math.log(seconds(values))
        for key, slope in gradient.items():
            moved = values | {key: values.get(key, 0.0) + 1e-6}
            assert (math.log(seconds(moved)) - base) / 1e-6 == pytest.approx(slope, abs=1e-4)


def test_one_row_at_a_time_says_what_the_fit_says():
    rows = [r for r in predictable(shipped_rows()) if r.phase == "decode"][:80]
    problem = fitting.decode_problem(rows)
    theta = fitting.fit(problem, steps=5)
    _, jacobian = fitting.model(problem, theta)
    matrix, shipped_like = fitting.covariance(problem, theta), fitting.as_covariance(problem, theta)
    values = dict(zip(problem.keys, theta, strict=True))
    for index in (0, 40, 79):
        expected = math.sqrt(jacobian[index] @ matrix @ jacobian[index])
        gradient = decode_gradient(rows[index].work, rows[index].machine, values)
        assert shipped_like.spread(gradient) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_a_fit_forgets_what_it_left_out(phase):
    # from the prior or from a fit that had seen the chips left out: one minimum, else their rows would leak
    rows = [r for r in predictable(shipped_rows()) if r.phase == phase]
    problem = fitting.problem_of(rows, phase)
    keep = np.array([r.machine.api != "metal" for r in rows])
    cold = fitting.model(problem, fitting.fit(problem, keep))[0]
    warm = fitting.model(problem, fitting.fit(problem, keep, start=fitting.fit(problem), tolerance=1e-6, steps=300))[0]
    assert np.abs(cold - warm).max() < 0.01


def test_splits_are_the_same_each_time():
    chips = [f"c{i}" for i in range(11)]
    splits = splits_of(chips, 0.5, 3)
    assert splits == splits_of(reversed(chips), 0.5, 3)
    assert [len(s) for s in splits] == [6, 6, 6]
    assert len({frozenset(s) for s in splits}) > 1


def test_leaving_chips_out_predicts_them_alone():
    rows = [r for r in predictable(shipped_rows()) if r.phase == "decode" and r.machine.api == "metal"]
    result = leave_out(rows, 0.5, 2)
    for number, chips in enumerate(splits_of((r.chip for r in rows), 0.5, 2)):
        assert {j.row.chip for j in result if j.split == number} == chips
    errors = [abs(math.log(j.predicted_tokens_per_s / j.row.tokens_per_s)) for j in result]
    assert 0 < np.median(errors) < 0.3
    assert all(j.low_tokens_per_s < j.predicted_tokens_per_s < j.high_tokens_per_s for j in result)
