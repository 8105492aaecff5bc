"""Rows that a law is not of are refused with the reason; what two sources of one test differ by is counted by test."""

import math
from collections import Counter

import pytest

from bench.fits.blind import blind_constants
from bench.rows import others as other_rows
from bench.rows.others import outside, speculation_rows
from harness.answer.nearest import model_of
from harness.core.model import Recurrent
from harness.hardware.traits import traits_of
from harness.speed.decode import decode_seconds
from harness.speed.published.cells import Cells
from harness.speed.published.rows import row_of
from harness.speed.terms import prior_of
from harness.speed.work import CURRENT_YEAR, Machine, Work

SPEED = {
    "chip": "RTX 3060", "backend": "cuda", "runtime": "llama.cpp", "memory_bandwidth_gb_s": "360",
    "model": "Llama-3-8B", "params_b": "8.03", "quant": "Q4_K_M", "model_bytes": "4.92e9", "test": "tg128",
    "tokens_per_s": "50", "source": "here", "trust": "A",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"notes": "RTX 3060 row spills to CPU"}, "in several memories"),
        ({"notes": "does not fit VRAM: partial offload"}, "in several memories"),
        ({"notes": "two cards, default layer split"}, "in several memories"),
        ({"backend": "cpu+cuda"}, "in several memories"),
        ({"notes": "both NUMA nodes; card in slot two"}, ""),
    ],
)
def test_the_law_of_one_memory_refuses_what_lies_in_several(change, reason):
    row = row_of(Cells({**SPEED, **change}, "file", 2), model_of)
    assert row.reason == reason
    assert (row.work is None) == bool(reason)


@pytest.mark.parametrize(
    ("model", "params_b", "quant", "model_bytes", "read_gb"),
    [
        # experts 24 x 32 x 3 x 2880 x 2880; all else is 0.64e9 of attention and two tables of 0.58e9: in 2 bytes
        # 3.59 GB of the file. Read: 2.43 GB of that, and 4 / 32 of the other 10.19 GB (4.26 bits, as MXFP4 has)
        ("gpt-oss-20b", "20.91", "BF16 (MXFP4 experts)", "13776107602", 3.70),
        # the published mixture: 1.22e9 x 8.5 / 8 bytes, and 4 / 32 of 19.1e9 x 4.25 / 8
        ("gpt-oss-20b", "20.91", "MXFP4", "12101070356", 2.57),
        # 32.21e9 of the weights in routed experts; of the others 0.51e9 are the token table. In Q6_K these take
        # 2.01 GB; read are 1.94e9 x 6.5625 / 8 bytes, and 8 / 256 of the other 10.13 GB
        ("Qwen3.5-35B-A3B", "34.66", "UD-Q2_K_XL", "12144020029", 1.91),
        # the same bits in all matrices: 3.03e9 of 30.53e9 weights are read
        ("Qwen3-30B-A3B", "30.53", "4-bit g64", "17173125000", 1.70),
    ],
)
def test_bytes_of_a_mixture_of_experts_whose_recipe_is_not_llama_cpps(model, params_b, quant, model_bytes, read_gb):
    told = {"model": model, "params_b": params_b, "quant": quant, "model_bytes": model_bytes, "active_params_b": "3"}
    row = row_of(Cells({**SPEED, **told}, "file", 2), model_of)
    assert row.work is not None
    assert row.work.weight_bytes / 1e9 == pytest.approx(read_gb, rel=0.02)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"method": "MTP llama.cpp", "device": "RTX 5090 32GB"}, ""),
        ({"method": "DFlash block diffusion + DDTree budget 22", "device": "RTX 5090"}, "a tree of drafts"),
        ({"method": "draft model", "device": "2x RTX 5060 Ti (tensor split)"}, ""),
        ({"system": "llama.cpp single node (D3 desktop, mmap reload)", "batch": "1", "device": "D3: i9"}, ""),
        (
            {"system": "prima.cpp", "batch": "1", "device": "4 nodes: two laptops, a desktop, a phone"},
            "several machines",
        ),
        ({"system": "prima.cpp", "batch": "1", "device": "D1 + D2 + D3 + D4"}, "several machines"),
        ({"system": "FlexGen", "batch": "", "device": "T4"}, "an offloading server"),
        ({"system": "ZeRO-Inference", "batch": "1", "device": "A6000"}, "an offloading server"),
        ({"system": "some engine", "batch": "144", "device": "T4"}, "several sequences"),
        ({"system": "some engine", "batch": "1.0", "device": "T4"}, ""),
    ],
)
def test_what_the_models_of_speculation_and_streaming_are_not_of(row, reason):
    found = outside(row)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_refused_rows_are_counted_and_not_predicted():
    reasons = Counter(row.reason for row in speculation_rows())
    assert reasons["a tree of drafts is verified: its budget is no draft length"] == 47  # DDTree in the shipped file
    assert reasons[""] + sum(count for reason, count in reasons.items() if reason) == 900


def test_a_speedup_by_hand(monkeypatch):
    # a pass of 10 ms; a further token 1 ms + 2 x 7e9 / (0.5 x 1e13) s = 3.8 ms; a head of 0.03 x 7e9 / 1e12 s + 0.5 ms
    # = 0.71 ms: three drafts cost 1 + 3 x (0.38 + 0.071) = 2.353 passes and give 3 tokens
    traits = traits_of("x", "cuda", 1e12)._replace(peak_flops_per_s=1e13, matrix_flops_per_s=2e13)
    machine = Machine("cuda", 1e12, traits)
    monkeypatch.setattr(other_rows, "_machine", lambda _: machine)
    cells = {"method": "MTP", "target": "x-7B Q8_0", "device": "x", "gamma": "3", "baseline_tps": "100"}
    row = {**cells, "mean_accepted_tokens": "3", "acceptance_kind": "mean", "speedup": "1"}
    cost = 1 + 3 * (0.38 + (0.03 * 7e9 * 8.5 / 8 / 1e12 + 5e-4) / 0.01)
    assert speedup_of(row) == pytest.approx(3 / cost)
    # a mixture of 7 B of whose weights 1 B are used reads experts of its own for each draft: 0.45 of a pass
    drafting = (0.03 * 1e9 * 8.5 / 8 / 1e12 + 5e-4) / 0.01
    assert speedup_of({**row, "target": "x-7B-A1B Q8_0"}) == pytest.approx(3 / (1 + 3 * (0.45 + drafting)))


def speedup_of(cells: dict[str, str]) -> float:
    return other_rows._speculation(Cells(cells, "file", 1)).law().mid


def test_a_state_in_each_layer_costs_kernels_and_no_bytes():
    # with nothing but priors, twice the overhead of a plain layer where all layers keep a state, and root 2 at half
    engine = Machine("cuda", 4e11, traits_of("unheard of", "cuda", 4e11), build_year=CURRENT_YEAR)
    plain = Work(4e9, 8e9, 32, 0, "q4")
    times = [decode_seconds(plain._replace(recurrent_ratio=r), engine, {}) for r in (0.0, 0.5, 1.0)]
    assert [t.overhead_s / times[0].overhead_s for t in times] == pytest.approx([1, 2**0.5, 2])
    assert len({t.weights_s for t in times}) == 1
    assert prior_of("a/recurrent:cuda")[0] == 0


def test_layers_with_a_state_are_counted():
    hybrid, plain = model_of("Qwen3-Next-80B-A3B", 79.7, "Q4_K_M"), model_of("Llama-3-8B", 8.03, "Q4_K_M")
    assert hybrid is not None
    assert plain is not None
    assert isinstance(hybrid.shape.recurrent, Recurrent)
    cells = {
        **SPEED,
        "model": "Qwen3-Next-80B-A3B",
        "params_b": "79.7",
        "active_params_b": "3",
        "model_bytes": "4.8e10",
    }
    row = row_of(Cells(cells, "file", 2), model_of)
    assert row.work is not None
    assert row.work.recurrent_ratio == 0.75  # three of four layers, by the model's configuration


def test_blind_constant_by_hand():
    # 40, 50 and 80 tokens/s where the data sheet promises as much for each. Of two others the constant of least median
    # error (here their mean) is the slower one: 50 for the first, off by 1/4, 40 for the others, off by 1/5 and 1/2
    rows = [
        row_of(Cells({**SPEED, "chip": f"RTX {n}", "source": n, "tokens_per_s": speed}, "file", 1), model_of)
        for n, speed in (("3060", "40"), ("3070", "50"), ("3080", "80"))
    ]
    assert blind_constants(rows) == pytest.approx({"dense": 0.25, "NVIDIA, decode": 0.25}, abs=0.02)
    assert math.isnan(blind_constants(rows[:1])["dense"])  # nobody else to learn from
