"""Published split placements: read with their faults named, predicted by terms that never saw the card."""

from collections import Counter
from pathlib import Path

import pytest

from bench.fits.placement import cases, fit_terms, sweep_of, sweeps_found
from bench.rows.placements import placed_rows
from harness.answer.nearest import model_of
from harness.core.errors import BadDataError
from harness.speed.coefficients import shipped
from harness.speed.passes import PlacementTerms
from harness.speed.published.errors_of_rows import judge_shipped, report

HEADER = "gpu_chip,offload_mode,n_gpu_layers,n_cpu_moe,model,quant,test,tokens_per_s,n_layers,model_bytes,params_b,arch"


def rows_in(tmp_path: Path, *lines: str, header: str = HEADER) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def placed():
    return cases(model_of)


def test_the_shipped_rows_meet_their_targets(placed):
    rows = [row for row, _ in placed[::3]]
    found = report(rows, judge_shipped(rows, shipped())).groups
    for phase in ("decode", "prefill"):
        score = found[f"split placement, {phase}"]
        assert score.rows_count > 250
        assert score.median_ratio <= 0.16
        assert score.p90_ratio <= 0.54
        assert 0.80 <= score.coverage_ratio <= 0.97


def test_the_best_placement_of_a_sweep_is_found(placed):
    in_sweep = Counter(map(sweep_of, placed))
    found = sweeps_found([case for case in placed if in_sweep[sweep_of(case)] > 2][:500], PlacementTerms())
    assert len(found) >= 20
    assert sum(found) / len(found) >= 0.8


def test_a_card_that_no_row_was_fitted_on_is_predicted(placed):
    """Fitted on every tenth row of other cards, which is enough for nine terms."""
    terms = fit_terms([case for case in placed if case[0].chip != "4070 laptop"][::10])
    errors = sorted(
        abs(case.tokens_per_s(terms) / row.measured - 1)
        for row, case in placed
        if row.chip == "4070 laptop" and case.phase == "decode"
    )
    assert len(errors) > 300
    assert errors[len(errors) // 2] <= 0.20
    assert errors[len(errors) * 9 // 10] <= 0.60


@pytest.mark.parametrize(
    ("mode", "layers", "moe", "detail", "blocks", "experts"),
    [
        ("-ngl layers", "17", "", "", 32 / 48, 32 / 48),
        ("--n-cpu-moe", "99", "12", "", 0.0, 12 / 48),
        ("--n-cpu-moe", "99", "60", "", 0.0, 1.0),
        ("all experts on CPU (-ot exps=CPU)", "99", "", "exps=CPU", 0.0, 1.0),
        ("experts of some layers on CPU (-ot)", "99", "", "-ot blk.(34-47).ffn=CPU", 0.0, 14 / 48),
        ("experts of some layers on GPU (-ot)", "99", "", "-ot blk.(0-4).ffn=CUDA0, other experts CPU", 0.0, 43 / 48),
        ("-ot experts of N layers (llama-fit-params)", "9", "8", "", 40 / 48, 1.0),
    ],
)
def test_what_a_row_says_of_its_split(tmp_path, mode, layers, moe, detail, blocks, experts):
    header = HEADER + ",gpu_bandwidth_gb_s,backend,offload_detail,trust"
    split = f"RTX 4090,{mode},{layers},{moe},Qwen3-30B-A3B,Q4_K_M,tg128,50,48,18560000000,30.53,moe"
    line = f'{split},1008,cuda+cpu,"{detail}",A'
    ((row, case),) = placed_rows(rows_in(tmp_path, line, header=header), model_of)
    assert case is not None, row.reason
    assert case.split.cpu.work.layer_count == pytest.approx(blocks * 48)
    all_experts = sum(part.work.weight_bytes for part in (case.split.main, case.split.cpu, case.split.experts))
    assert case.split.experts.work.weight_bytes / all_experts <= 1
    everything = case.split.copied_expert_bytes
    assert everything == pytest.approx(experts * 16.9e9, rel=0.08)


def test_experts_of_a_recipe_that_is_not_llama_cpps_have_what_the_rest_leaves(tmp_path):
    # 48 x 128 x 3 x 2048 x 768 = 28.99e9 of the 30.53e9 weights are in routed experts; the other 1.54e9 in Q6_K take
    # 1.266 GB of the file's 11.8
    header = HEADER + ",gpu_bandwidth_gb_s,backend,offload_detail,trust"
    split = "RTX 4090,all experts on CPU,99,,Qwen3-30B-A3B,UD-Q2_K_XL,tg128,50,48,11800000000,30.53,moe"
    ((row, case),) = placed_rows(rows_in(tmp_path, f"{split},1008,cuda+cpu,exps=CPU,A", header=header), model_of)
    assert case is not None, row.reason
    assert case.split.copied_expert_bytes == pytest.approx(10.534e9, rel=1e-3)
    assert case.split.experts.work.weight_bytes == pytest.approx(10.534e9 * 8 / 128, rel=1e-3)
    # what the GPU reads: all else but the token table, 151936 x 2048
    assert case.split.main.work.weight_bytes == pytest.approx((1.543e9 - 0.311e9) * 6.5625 / 8, rel=5e-3)


def test_a_file_without_its_columns_is_named(tmp_path):
    path = rows_in(tmp_path, header="offload_mode,n_gpu_layers")
    with pytest.raises(BadDataError, match="no column"):
        placed_rows(path, model_of)


def test_a_cell_that_is_no_number_refuses_its_row(tmp_path):
    path = rows_in(tmp_path, "RTX 4090,-ngl layers,9,,m,Q4_0,tg128,fast")
    assert [row.reason for row, _ in placed_rows(path, model_of)] == ["no number: tokens_per_s 'fast'"]


def test_a_row_that_lacks_something_is_kept_with_its_reason(tmp_path):
    path = rows_in(tmp_path, "Mystery card,-ngl layers,9,,unknown,Q4_0,tg128,5,,,,")
    assert [row.reason for row, _ in placed_rows(path, model_of)] == ["no model bytes"]
