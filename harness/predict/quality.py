"""What a quantisation mixture costs in quality, from published perplexities."""

from typing import Final

from harness.domain.base import shipped_table

LARGE_MODEL_PARAMETERS: Final = 3e10
"""From here on the figures of a 70B model are the nearer ones; below, those of an 8B model."""


def perplexity_growth_percent(quant: str, parameter_count: float) -> float | None:
    """Growth of WikiText-2 perplexity over F16, in percent, for a model of about that size.

    None where unpublished.

    Source: data/quant_quality.toml, which names its own.
    """
    row: dict[str, float] = shipped_table("data/quant_quality.toml", "harness.predict").get(quant, {})
    small = row.get("small_percent")
    large = row.get("large_percent")
    nearer, other = (small, large) if parameter_count < LARGE_MODEL_PARAMETERS else (large, small)
    if nearer is None:
        return other
    return nearer
