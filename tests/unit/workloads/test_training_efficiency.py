"""MFU of published runs in exact fractions, and LoRA by hand sums."""

from fractions import Fraction

import pytest

from harness.catalog.names import load_model
from harness.workloads.training_efficiency import SYSTEM, lora, mfu, run_flops

RUNS = {case["name"]: case for case in SYSTEM.cases({}, 1) if case["kind"] == "mfu"}


@pytest.mark.parametrize("name", [name for name, case in RUNS.items() if "stated_mfu" in case])
def test_stated_mfus_are_reproduced(name):
    """Within 1.4 points: nanochat states the MFU of its last step, and the formula gives that of the whole run."""
    assert float(mfu(RUNS[name])) == pytest.approx(RUNS[name]["stated_mfu"], abs=0.014)


@pytest.mark.parametrize(
    ("name", "stated", "tolerance"),
    [
        ("PaLM 540B", 0.462, 5e-4),  # arXiv:2204.02311, table 3
        ("PaLM 540B, attention left out", 0.457, 5e-4),
        ("MT-NLG 530B", 0.302, 5e-4),
        ("PaLM 540B, causal half", 0.4598, 5e-5),
    ],
)
def test_papers_to_their_last_digit(name, stated, tolerance):
    assert float(mfu(RUNS[name])) == pytest.approx(stated, abs=tolerance)


def test_the_seed_articles_mfu_is_exact():
    assert mfu(RUNS["DeepSeek-V3, seed article"]) == Fraction(4278125, 12532608)


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        # as nanochat's own reports state them
        ("nanochat d24, leaderboard run 1", 4.330784131228946e19),
        ("nanochat d20, October", 3.917670e19),
        ("nanochat d16", 4.096336e18),
        ("nanochat d24", 3.789436e19),
    ],
)
def test_flops_of_nanochat_are_those_of_its_reports(name, flops):
    assert float(run_flops(RUNS[name])) == pytest.approx(flops, rel=2e-7)


def test_lora_by_hand():
    shape = load_model("llama-3.2-1b").shape
    told = lora({"model": "llama-3.2-1b", "device": "macbook-air-m3"})
    # 16 layers, width 2048, 32 heads of 64, 8 of keys and values: rank 16 x (2 x (2048 + 2048) + 2 x (2048 + 512))
    assert told["adapter_count"] == 16 * 16 * (2 * 4096 + 2 * 2560) == 3_407_872
    frozen = round(load_model("llama-3.2-1b").parameter_count * 4.5 / 8)
    assert told["memory_bytes"] == frozen + 16 * 3_407_872 + ((34 + 32) * 2048 + 8 * shape.vocab_count) * 512
    more = lora({"model": "llama-3.2-1b", "device": "macbook-air-m3", "rank": 32})
    assert more["adapter_count"] == 2 * told["adapter_count"]


def test_the_score_is_the_distance_to_what_is_stated():
    cases = [{"kind": "mfu", "stated_mfu": 0.5}, {"kind": "mfu", "stated_mfu": 0.3}, {"kind": "mfu"}]
    score = SYSTEM.score(cases, [{"mfu": 0.51}, {"mfu": 0.3}, {"mfu": 0.9}])
    assert score == {"stated_count": 2, "mfu_error_median": pytest.approx(0.005), "mfu_error_max": pytest.approx(0.01)}
