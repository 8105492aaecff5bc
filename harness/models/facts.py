"""What the tables of tensors, of metadata and of types are read with: facts of a model or a block, and conditions.

A condition is words that must hold, or with a ``!`` before them must not. Each table is read once a process
against the words that are declared, so that a slip is an error and never a line that silently does not hold.
"""

from collections.abc import Collection, Mapping
from functools import cache, lru_cache
from itertools import chain
from math import prod
from typing import Final

from msgspec.structs import asdict, fields

from harness.core.model import Experts, LatentAttention, ModelShape, Recurrent
from harness.core.tables import Column, Row, shipped_rows
from harness.models.architecture import ARCHITECTURES, WORDS, has

Facts = dict[str, int]
"""Numbers by name; what does not hold is 0, or is not there."""

_PARTS: Final = (("", ModelShape), ("moe_", Experts), ("latent_", LatentAttention), ("ssm_", Recurrent))
_FIELDS: Final = {prefix + field.name for prefix, part in _PARTS for field in fields(part)}
MODEL_WORDS: Final = frozenset({
    *_FIELDS, *WORDS, *ARCHITECTURES, "half_head_dim", "ssm_step_dim", "ssm_group_dim", "ssm_kept_taps", "ssm_row_dim",
})  # fmt: skip
"""Words that a table about a model may use."""
BLOCK_WORDS: Final = MODEL_WORDS | {
    "full", "sliding", "recurrent", "none", "heads", "low_rank", "second_mamba", "routed", "drafts", "stored",
    "attention", "latent", "shares_keys", "feeds",
    "dense", "value_dim", "query_row_dim", "key_row_dim", "value_row_dim", "cache_key_dim", "cache_value_dim",
    "attended_value_dim", "block_feed_forward_dim", "moe_width", "moe_shared_dim",
}  # fmt: skip
"""And about a block."""


def checked_rows(
    path: str,
    known: Collection[str],
    *,
    sums: tuple[str, ...] = (),
    columns: Mapping[str, Column] = {},
    package: str = "harness",
) -> list[Row]:
    """The rows of a table that ships, whose ``when`` is a condition and whose ``sums`` are sums of products.

    ``known`` are the words of both, ``columns`` says what other columns hold.

    Raises:
        BadDataError: A cell uses a word that is not declared; names the line and the column.
    """

    def condition(cell: str) -> str:
        return declared([word for word, _ in _words(cell)])

    def formula(cell: str) -> str:
        terms = chain.from_iterable(map(_terms, cell.split()))
        return declared([name for term in terms for name in term if isinstance(name, str)])

    def declared(used: list[str]) -> str:
        wrong = next((word for word in used if word not in known), None)
        return "" if wrong is None else f"a word that is declared in place of {wrong!r}"

    checks = {**columns, "when": condition} | dict.fromkeys(sums, formula)
    return shipped_rows(path, package, columns=checks)


@cache
def _terms(text: str) -> list[list[int | str]]:
    return [[int(name) if name.isdigit() else name for name in term.split("*")] for term in text.split("+")]


@cache
def _words(condition: str) -> list[tuple[str, bool]]:
    return [(word.lstrip("!"), not word.startswith("!")) for word in condition.split()]


def amount(text: str, facts: Facts) -> int:
    """A sum of products as a table gives it, such as ``2*ssm_inner_dim+ssm_head_count``.

    Raises:
        KeyError: A factor is no name of a fact.
    """
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
    """Facts of a model: fields of the shape, those of its parts with a prefix, and words of its architecture.

    ``ssm_``, ``moe_`` and ``latent_`` stand before the fields of recurrent layers, experts and latent
    attention.
    """
    facts: Facts = {}
    for prefix, part in (
        ("", shape),
        ("moe_", shape.experts),
        ("latent_", shape.latent),
        ("ssm_", shape.recurrent),
    ):
        if part is not None:
            facts |= {
                prefix + name: int(value) for name, value in asdict(part).items() if isinstance(value, int)
            }
    facts |= {word: has(shape.architecture, word) for word in WORDS}
    if shape.architecture in ARCHITECTURES:  # a stranger's may be called like a field
        facts[shape.architecture] = True
    facts["half_head_dim"] = shape.head_dim // 2
    facts["ssm_step_dim"] = -(-shape.hidden_dim // 16)
    mixer = shape.recurrent
    if mixer is not None:
        facts["ssm_group_dim"] = mixer.inner_dim // mixer.group_count
        facts["ssm_kept_taps"] = mixer.conv_dim - 1
        facts["ssm_row_dim"] = mixer.inner_dim
        if not facts["first_mamba"]:
            facts["ssm_row_dim"] += 2 * mixer.group_count * mixer.state_dim
    return facts


@lru_cache(maxsize=1 << 10)
def block_facts(shape: ModelShape, block: int) -> Facts:
    """Facts of one block: those of its model, its kind, and the widths that follow from them."""
    facts = dict(model_facts(shape))
    kind = shape.layer_kind(block)
    both = facts["state_beside_attention"]
    attends = bool(both) or kind in {"full", "sliding"}
    drafts = block >= shape.layer_count
    stored = drafts or block < shape.layer_count - shape.kv_shared_layer_count
    facts |= {
        kind: True,
        "drafts": drafts,
        "stored": stored,
        "attention": attends,
        "routed": shape.is_moe_layer(block),
    }
    if both:
        facts["recurrent"] = True
    compresses = bool(shape.latent)
    mixers = ("delta_net", "short_convolution", "first_mamba")
    facts["heads"] = attends and not compresses
    facts["low_rank"] = attends and compresses
    facts["second_mamba"] = "recurrent" in facts and not any(facts[word] for word in mixers)
    _add_attention(facts, shape, slides=kind == "sliding")
    inner = shape.feed_forward_dim
    if not stored and shape.kv_shared_feed_forward_dim:
        inner = shape.kv_shared_feed_forward_dim
    one_part = "-" in shape.layer_pattern
    facts["block_feed_forward_dim"] = inner
    facts["feeds"] = not facts["attention_free"] and (kind == "none" or not one_part)
    if facts["feeds"] and (facts["own_full_heads"] or not facts["routed"]):
        facts["dense"] = inner
    experts = shape.experts
    if experts is not None:
        facts["moe_width"] = experts.latent_dim or shape.hidden_dim
        shared = experts.shared_feed_forward_dim or experts.shared_count * experts.feed_forward_dim
        facts["moe_shared_dim"] = shared
    return facts


def _add_attention(facts: Facts, shape: ModelShape, *, slides: bool) -> None:
    """Widths of queries, keys and values, as they are computed and as they are cached."""
    head = shape.head_dim
    heads = shape.head_count
    kv_heads = shape.kv_head_count
    value = shape.value_head_dim or head
    if slides:
        heads = shape.sliding_head_count or heads
        kv_heads = shape.sliding_kv_head_count or kv_heads
        head = shape.sliding_head_dim or head
        value = shape.sliding_head_dim or value
        facts["values_are_keys"] = False
    facts |= {"head_dim": head, "head_count": heads, "value_dim": value}
    facts |= {
        "query_row_dim": heads * head,
        "key_row_dim": kv_heads * head,
        "value_row_dim": kv_heads * value,
    }
    facts["shares_keys"] = facts["own_full_heads"] and not facts["stored"]
    compressed = shape.latent
    facts["latent"] = compressed is not None and not facts["every_head_cached"]
    if compressed is None or not facts["latent"]:
        facts |= {
            "cache_key_dim": kv_heads * head,
            "cache_value_dim": kv_heads * value,
            "attended_value_dim": value,
        }
    else:
        row = compressed.kv_rank_dim + compressed.rope_head_dim
        facts |= {"cache_key_dim": row, "cache_value_dim": 0, "attended_value_dim": compressed.kv_rank_dim}
