"""What the tables of tensors and of compute graphs are read with: widths of a block, and which lines hold for it."""

from functools import cache, lru_cache
from math import prod
from typing import Final

from msgspec.structs import asdict

from harness.domain.base import shipped_rows, shipped_table
from harness.domain.model import ModelShape

Facts = dict[str, int]
"""Numbers by name; what does not hold is 0, or is not there."""

TRAITS: Final = {
    what: frozenset(names.split()) for what, names in shipped_table("data/architectures.toml")["tensors"].items()
}
"""Architectures by what their blocks have; ``known`` are those whose tensors are known."""
_ROWS: Final = shipped_rows("data/facts.csv")


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
    for word, wanted in _words(condition):  # noqa: SIM110 - asked so often that a generator shows
        if bool(facts.get(word)) is not wanted:
            return False
    return True


@lru_cache(maxsize=1 << 8)
def model_facts(shape: ModelShape) -> Facts:
    """Facts of a model: fields of the shape, those of its parts with a prefix, and traits of its architecture.

    ``ssm_``, ``moe_`` and ``latent_`` stand before the fields of recurrent layers, experts and latent attention.
    """
    structs = (("", shape), ("moe_", shape.experts), ("latent_", shape.latent), ("ssm_", shape.recurrent))
    fields = [(prefix + name, n) for prefix, struct in structs if struct for name, n in asdict(struct).items()]
    facts: Facts = {name: int(number) for name, number in fields if isinstance(number, int)}
    facts |= {what: shape.architecture in names for what, names in TRAITS.items()}
    facts |= dict.fromkeys(TRAITS["known"] & {shape.architecture}, True)  # a stranger's may be called like a field
    facts["one_part_a_layer"] = "-" in shape.layer_pattern
    facts["half_head_dim"] = shape.head_dim // 2
    facts["ssm_step_dim"] = -(-shape.hidden_dim // 16)
    if (recurrent := shape.recurrent) is not None:
        facts["ssm_group_dim"] = recurrent.inner_dim // recurrent.group_count
        facts["ssm_kept_taps"] = recurrent.conv_dim - 1
    return facts


@lru_cache(maxsize=1 << 10)
def block_facts(shape: ModelShape, block: int) -> Facts:
    """Facts of one block: those of its model, its kind, and what follows from them by ``data/facts.csv``."""
    facts = model_facts(shape) | {shape.layer_kind(block): True, "routed": shape.is_moe_layer(block)}
    facts["drafts"] = block >= shape.layer_count
    facts["stored"] = bool(facts["drafts"]) or block < shape.layer_count - shape.kv_shared_layer_count
    for row in _ROWS:
        if holds(row["when"], facts):
            facts[row["name"]] = amount(row["whole"], facts)
    return facts
