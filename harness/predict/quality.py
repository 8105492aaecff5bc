"""What a quantisation mixture costs in quality, from published perplexities."""

import tomllib
from functools import lru_cache
from importlib.resources import files
from typing import Final

LARGE_MODEL_PARAMETERS: Final = 3e10
"""From here on the figures of a 70B model are the nearer ones; below, those of an 8B model."""


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, float]]:
    text = (files("harness.predict") / "data" / "quant_quality.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def perplexity_growth_percent(quant: str, parameter_count: float) -> float | None:
    """Growth of WikiText-2 perplexity over F16, in percent, for a model of about that size; None where unpublished.

    Source: data/quant_quality.toml, which names its own.
    """
    row = _table().get(quant, {})
    small, large = row.get("small_percent"), row.get("large_percent")
    nearer, other = (small, large) if parameter_count < LARGE_MODEL_PARAMETERS else (large, small)
    return other if nearer is None else nearer
