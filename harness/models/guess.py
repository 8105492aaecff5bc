"""A model that nobody knows, bounded by what models of its size have: layers, grouped queries, windows, states.

Parameters come from the name (or from whoever asks). The shape is that of the catalog's model nearest in
size, with its inner width changed until the parameters agree; the shapes of the nearest few beside it tell
how far the cache may be off. Models that cache keys and values of every head are left out: hardly any has
since 2023.
"""

import math
import re
from functools import lru_cache
from typing import Final

from harness.core.base import Frozen
from harness.core.model import ModelCard, ModelShape
from harness.core.paths import data_files
from harness.core.tables import shipped_table
from harness.models.cards import load_card

_SIZE: Final = re.compile(r"(?i)(?<![a-z\d.])(?:e)?(\d+(?:\.\d+)?)\s*([bm])(?![a-z\d])")
_ACTIVE: Final = re.compile(r"(?i)(?<![a-z\d])a\s*(\d+(?:\.\d+)?)\s*([bm])(?![a-z\d])")
_TIMES: Final = re.compile(r"(?i)(?<!\d)(\d+)x(\d+(?:\.\d+)?)b")
_RECURRENT: Final = re.compile(r"(?i)rwkv|mamba")
_BASES: Final[dict[str, str]] = shipped_table("data/names.toml")["usual_bases"]
"""Models that fine-tunes are mostly made of, by the size in their names."""
_NEAREST_COUNT: Final = 5
_FAMILY_BONUS: Final = 0.3
"""A model of the same first word counts as nearer by this much (of the logarithm of the size)."""
_WIDTH_STEP: Final = 64
_SHARED_RATIO: Final = 46.7 / 56
"""Experts of 8x7B share attention: Mixtral has 46.7B, and two of its experts go through 12.9B of 14B."""
_TWO_USED_RATIO: Final = 12.9 / 14
_LEAST_B: Final = 0.05
_MOST_B: Final = 5000.0
"""Sizes (10**9) that models have: below, the vocabulary is most of it; above, none has been published."""
_DENSE_MAX_B: Final = 100.0
"""From this size on a model of which nothing else is known is taken for a mixture of experts, as all are
since 2024."""


_MIXTURES_FROM_B: Final = 12.0
"""From this size on (10**9) a name that does not say so may be a mixture's: it reads a tenth for a token."""
SHAPE_DOUBT: Final = 0.2
"""How far ln(speed) of a model lies off that of another of the same weights: layers, heads and vocabulary
differ."""


WEIGHTS_RATIOS: Final = (0.87, 1.23)
"""Quantiles of 7.5 and 92.5 % of bytes in Q4_K_M over those guessed, of 262 cards guessed by the size in
their names with their own families left out."""
CACHE_RATIOS: Final = (0.1, 2.0)
"""With these and the ratios of weights 89 % of 44 cards of 2026, their families left out, have their memory inside
at 4,096 tokens of context, and 84 % at 32,768."""


class Guess(Frozen):
    """The shape that is believed of an unknown model.

    Attributes:
        speed_doubt: How far ln(speed) may lie below and above what the shape gives.
    """

    params_b: float
    active_b: float
    shape: ModelShape
    why: str
    speed_doubt: tuple[float, float] = (0.0, 0.0)


def sizes_in(name: str) -> tuple[float, float]:
    """Parameters and active parameters (10**9) that a name tells; 0 for what it does not."""
    active = _billions(_ACTIVE.search(name))
    if times := _TIMES.search(name):
        count = float(times[1])
        each = float(times[2])
        return _SHARED_RATIO * count * each, active or _TWO_USED_RATIO * 2 * each
    return _billions(_SIZE.search(_ACTIVE.sub(" ", name))), active


def guess(name: str, *, params_b: float = 0.0, active_b: float = 0.0) -> Guess | None:
    """A bounded guess at the model of that name, whose size (30B-A3B, 270M) is used where none is given (in 10**9).

    None where neither the name nor the caller tells a size that models have.
    """
    named, named_active = sizes_in(name)
    total = params_b or named
    if not _LEAST_B <= total <= _MOST_B:
        return None
    active = min(active_b or named_active or total, total)
    routed = active < 0.8 * total
    if not (active_b or named_active) and (total >= _DENSE_MAX_B or re.search(r"(?i)moe|expert", name)):
        routed = True
        active = _usual_active(total)
    told = bool(active_b or named_active or params_b)
    above = SHAPE_DOUBT
    if not told and not routed and total >= _MIXTURES_FROM_B:
        above = math.log(total / _usual_active(total))
    cards = [card for card in _cards(tuple(data_files("models"))) if _is_like(card, name, routed=routed)]
    family = re.split(r"[^a-z]", name.lower())[0]
    cards.sort(key=lambda card: _distance(card, total, active, family))
    near = cards[:_NEAREST_COUNT]
    base = _usual_base(total, active)
    if base is not None and not _RECURRENT.search(name):
        near = [base, *(card for card in near if card.name != base.name)]
    # The shape itself is taken from a model whose layers are all alike, where one is near: others only bound
    # it.
    plain = next((c for c in near if c.shape.recurrent is None and c.shape.latent is None), near[0])
    template = base or (near[0] if _RECURRENT.search(name) else plain)
    origin = "in its name"
    if params_b:
        origin = "stated"
    why = (
        f"nobody's card: {total:g}B parameters ({origin}), {active:g}B for each token; shaped like "
        f"{template.name}, one of the nearest known models: {', '.join(card.name for card in near)}"
    )
    return Guess(
        params_b=total,
        active_b=active,
        shape=template.shape if template == base else _scaled(template, total, active),
        why=why,
        speed_doubt=(SHAPE_DOUBT, above),
    )


def _usual_base(total_b: float, active_b: float) -> ModelCard | None:
    """The model that most of those called by this size are made of; None where there is no such."""
    size = f"{total_b:g}b" if active_b in {0, total_b} else f"{total_b:g}b-a{active_b:g}b"
    name = _BASES.get(size)
    if name:
        return load_card(name)
    return None


@lru_cache(maxsize=2)
def _cards(names: tuple[str, ...]) -> tuple[ModelCard, ...]:
    cards = (load_card(name) for name in names)
    return tuple(
        c for c in cards if c.parameter_count and not c.caveat and not c.name.startswith("hypothetical")
    )


def _usual_active(total_b: float) -> float:
    """Active parameters (10**9) that the mixtures of experts nearest in size would have."""
    from statistics import median  # it brings fractions and decimals

    routed = [card for card in _cards(tuple(data_files("models"))) if card.shape.experts is not None]
    routed.sort(key=lambda card: abs(math.log(card.parameter_count / 1e9 / total_b)))
    return round(
        total_b * median(c.active_parameter_count / c.parameter_count for c in routed[:_NEAREST_COUNT]), 1
    )


def _is_like(card: ModelCard, name: str, *, routed: bool) -> bool:
    shape = card.shape
    pure = shape.recurrent is not None and not shape.head_count
    full_width = shape.latent is None and shape.kv_head_count == shape.head_count > 1
    return (shape.experts is not None) == routed and pure == bool(_RECURRENT.search(name)) and not full_width


def _distance(card: ModelCard, total_b: float, active_b: float, family: str) -> float:
    """How far apart two models are: |log| of the parameters and of those of one token."""
    apart = abs(math.log(card.parameter_count / 1e9 / total_b))
    apart += abs(math.log((card.active_parameter_count or card.parameter_count) / 1e9 / active_b))
    return apart - _FAMILY_BONUS * (len(family) > 2 and card.name.startswith(family))


def _scaled(card: ModelCard, total_b: float, active_b: float) -> ModelShape:
    """The card's shape with so many parameters: other layers where it is far off, then another inner width.

    A gated feed-forward block has 3 x hidden x inner weights, one without a gate 2 x hidden x inner.
    """
    shape = card.shape
    own = card.parameter_count / 1e9
    layers = shape.layer_count
    if not 0.6 < total_b / own < 1.7 and not shape.layer_pattern:
        layers = max(2, round(layers * (total_b / own) ** 0.5))
    per_width = (3 if shape.gated_feed_forward else 2) * shape.hidden_dim * layers
    if (experts := shape.experts) is not None:
        active = (card.active_parameter_count or card.parameter_count) / 1e9
        used = experts.used_count + experts.shared_count
        width = _width(
            experts.feed_forward_dim, (active_b - active * layers / shape.layer_count) * 1e9, per_width * used
        )
        rest = active_b * 1e9 - per_width * width * experts.used_count
        count = max(experts.used_count, round((total_b * 1e9 - rest) / (per_width * width)))
        shared = width * experts.shared_count * bool(experts.shared_feed_forward_dim)
        experts = experts.replace(feed_forward_dim=width, expert_count=count, shared_feed_forward_dim=shared)
        return shape.replace(layer_count=layers, experts=experts)
    missing = (total_b - own * layers / shape.layer_count) * 1e9
    inner = shape.feed_forward_dim and _width(shape.feed_forward_dim, missing, per_width)
    if shape.recurrent is not None and not shape.feed_forward_dim:  # all weights are in the mixers
        layers = max(2, round(shape.layer_count * total_b / own))
    return shape.replace(layer_count=layers, feed_forward_dim=inner)


def _width(own: int, missing: float, per_width: float) -> int:
    """The inner width plus what is missing, in whole steps; at least a quarter of the model's own."""
    wanted = max(own + missing / per_width, own / 4)
    return max(1, round(wanted / _WIDTH_STEP)) * _WIDTH_STEP


def _billions(size: re.Match[str] | None) -> float:
    if size is None:
        return 0.0
    return float(size[1]) * (1.0 if size[2].lower() == "b" else 1e-3)
