"""The seed article's function, as its own comments say it behaves."""

from bench.seed_formula import compute_edge_feasibility


def test_the_article_s_example() -> None:
    result = compute_edge_feasibility(
        model_params=8e9, bits_per_param=4, device_ram_gb=8, device_bandwidth_gb_s=100, target_tokens_per_sec=15
    )
    # "fits_in_ram: True (4.5 GB total)", "achievable_tps: ~25 tokens/sec"
    assert result.fits_in_ram
    assert result.total_memory_gb == 4.5
    assert result.achievable_tokens_per_sec == 25.0
    assert result.model_size_gb == 4.0
    assert result.bandwidth_needed_gb_s == 60.0
    assert result.bandwidth_sufficient


def test_no_parameters_do_not_divide_by_zero() -> None:
    assert compute_edge_feasibility(0, 4, 8, 100, 15).achievable_tokens_per_sec == 100e9
