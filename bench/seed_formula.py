"""The formula that this project started from, exactly as published, errors included.

docs/seed-corrections.md goes through it.
"""

from typing import Final, NamedTuple

SEED_KV_CACHE_GB: Final = 0.5
"""What the article adds for the KV cache of any model at any context."""


class EdgeFeasibility(NamedTuple):
    """The article's answer, with the names it gives (GB = 10**9 bytes)."""

    model_size_gb: float
    total_memory_gb: float
    fits_in_ram: bool
    bandwidth_needed_gb_s: float
    bandwidth_sufficient: bool
    achievable_tokens_per_sec: float


def compute_edge_feasibility(
    model_params: float,
    bits_per_param: float,
    device_ram_gb: float,
    device_bandwidth_gb_s: float,
    target_tokens_per_sec: float,
) -> EdgeFeasibility:
    """The seed article's function: size = parameters x bits / 8, plus 0.5 GB; speed = bandwidth / size.

    Source: "The Research Frontier in 2026: Open Problems and Promising Directions", section on edge deployment.
    """
    bytes_per_token = model_params * bits_per_param / 8
    model_size_gb = (model_params * bits_per_param) / (8 * 1e9)
    total_memory_gb = model_size_gb + SEED_KV_CACHE_GB
    bandwidth_needed_gb_s = bytes_per_token * target_tokens_per_sec / 1e9
    return EdgeFeasibility(
        model_size_gb=model_size_gb,
        total_memory_gb=total_memory_gb,
        fits_in_ram=total_memory_gb <= device_ram_gb,
        bandwidth_needed_gb_s=bandwidth_needed_gb_s,
        bandwidth_sufficient=bandwidth_needed_gb_s <= device_bandwidth_gb_s,
        achievable_tokens_per_sec=device_bandwidth_gb_s * 1e9 / max(bytes_per_token, 1),
    )
