"""What the tables of tensors and of compute graphs are read with: widths of a block, and which lines hold for it."""

from functools import cache, lru_cache
from math import prod
from typing import Final

from msgspec.structs import asdict

from harness.domain.base import shipped_table
from harness.domain.model import ModelShape

Facts = dict[str, int]
"""Numbers by name; what does not hold is 0, or is not there."""

_TABLES: Final = shipped_table("data/architectures.toml")
TRAITS: Final = {what: frozenset(names.split()) for what, names in _TABLES["tensors"].items()} | {
    what: frozenset(_TABLES[what]) for what in ("delta_net", "scaled", "sectioned_rope", "sigmoid_routed")
}
"""Architectures by what their blocks have; ``known`` are those whose tensors are known."""


@cache
def _terms(text: str) -> list[list[int | str]]:
    return [[int(name) if name.isdigit() else name for name in term.split("*")] for term in text.split("+")]


@cache
def _words(condition: str) -> list[tuple[str, bool]]:
    return [(word.lstrip("!"), not word.startswith("!")) for word in condition.split()]


def amount(text: str, facts: Facts) -> int:
    """A sum of products as a table gives it, such as ``2*ssm_inner_dim+ssm_head_count``; KeyError for other names."""
    total = 0
    for term in _terms(text):
        total += prod([facts[name] if isinstance(name, str) else name for name in term])
    return total


def holds(condition: str, facts: Facts) -> bool:
    """Whether each word of a condition holds, and none of those with a ``!`` before them."""
    return all(bool(facts.get(word)) is wanted for word, wanted in _words(condition))


@lru_cache(maxsize=1 << 8)
def model_facts(shape: ModelShape) -> Facts:
    """Facts of a model: fields of the shape, those of its parts with a prefix, and traits of its architecture.

    ``ssm_``, ``moe_`` and ``latent_`` stand before the fields of recurrent layers, experts and latent attention.
    """
    structs = (("", shape), ("moe_", shape.experts), ("latent_", shape.latent), ("ssm_", shape.recurrent))
    fields = [(prefix + name, n) for prefix, struct in structs if struct for name, n in asdict(struct).items()]
    facts: Facts = {name: int(number) for name, number in fields if isinstance(number, int)}
    facts["ssm_step_dim"] = -(-shape.hidden_dim // 16)
    return facts | {what: shape.architecture in names for what, names in TRAITS.items()} | {shape.architecture: True}


@lru_cache(maxsize=1 << 10)
def block_facts(shape: ModelShape, block: int) -> Facts:
    """Facts of one block: those of its model, its kind, and what follows from them."""
    arch, kind = shape.architecture, shape.layer_kind(block)
    facts = model_facts(shape) | {kind: True}
    facts["recurrent"] = shape.recurrent is not None and (kind == "recurrent" or arch == "falcon-h1")
    facts["attention"] = kind in {"full", "sliding"} or arch == "falcon-h1"
    facts["stored"] = block < shape.layer_count - shape.kv_shared_layer_count
    facts["shares_keys"] = arch == "gemma4" and not facts["stored"]
    facts["values_are_keys"] = shape.values_are_keys and kind != "sliding"
    sliding = facts if kind == "sliding" else {}
    facts["half_head_dim"] = shape.head_dim // 2
    facts["value_dim"] = sliding.get("sliding_head_dim") or shape.value_head_dim or shape.head_dim
    facts["head_dim"] = sliding.get("sliding_head_dim") or shape.head_dim
    kv_heads = sliding.get("sliding_kv_head_count") or shape.kv_head_count
    facts["query_row_dim"] = shape.head_count * facts["head_dim"]
    facts["key_row_dim"] = kv_heads * facts["head_dim"]
    facts["value_row_dim"] = kv_heads * facts["value_dim"]
    own = 0 if facts["stored"] else shape.kv_shared_feed_forward_dim
    facts["block_feed_forward_dim"] = own or shape.feed_forward_dim
    facts["feeds"] = not facts["attention_free"] and (kind == "none" or "-" not in shape.layer_pattern)
    facts["routed"] = shape.is_moe_layer(block)
    facts["dense"] = facts["feeds"] and (arch == "gemma4" or not facts["routed"]) and facts["block_feed_forward_dim"]
    if (experts := shape.experts) is not None:
        facts["moe_width"] = experts.latent_dim or shape.hidden_dim
        facts["moe_shared_dim"] = experts.shared_feed_forward_dim or experts.shared_count * experts.feed_forward_dim
    if (recurrent := shape.recurrent) is not None:
        facts["ssm_group_dim"] = recurrent.inner_dim // recurrent.group_count
    return facts
