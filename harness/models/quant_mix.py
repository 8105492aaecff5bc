"""Which tensor gets which ggml type in each of llama.cpp's quantisation mixtures.

"Q4_K_M" is no type but a recipe: most matrices in Q4_K, the sensitive ones in Q6_K.
``data/quantisation_rules.csv`` has llama.cpp's rules: of the lines for a tensor and a mixture, the first
whose condition holds gives the type. Recipes of others give bits to groups of tensors; experts that a model
was trained with in a type of its own keep it in every mixture.

Source: llama.cpp, src/llama-quant.cpp (``llama_tensor_get_type_impl``, ``tensor_allows_quantization``,
``tensor_type_fallback``), release packed in llama-cpp-python 0.3.36.
"""

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from math import prod
from typing import Final, NamedTuple

from harness.core.errors import UnknownNameError
from harness.core.model import ModelShape, block_of
from harness.core.tables import Row, shipped_table, words
from harness.models.architecture import ARCHITECTURES, has
from harness.models.facts import Facts, checked_rows, holds
from harness.models.ggml import BLOCKS
from harness.models.quant import GROUPS, MIXTURES, SAME

_TABLES: Final = shipped_table("data/quantisations.toml")
QUANTS: Final = tuple(name for name, one in MIXTURES.items() if "read_only" not in one.flags)
"""The mixtures, from many bits to few."""

BASE_TYPE: Final = {quant: MIXTURES[quant].base for quant in QUANTS}
"""The type that a mixture gives to most matrices."""

NEEDS_IMPORTANCE_MATRIX: Final = frozenset(q for q in QUANTS if "importance_matrix" in MIXTURES[q].flags)
"""Mixtures that llama.cpp refuses to make without an importance matrix."""
_OF_MODEL: Final = {"importance_matrix", "grouped", "mixture", "several_experts", "eight_experts", "is_70b"}
_OF_TENSOR: Final = {
    "uneven", "stacked", "seen_early", "early", "first_two", "first_four", "first_sixteenth", "middle", "more",
}  # fmt: skip


def read_rules() -> list[Row]:
    """The rows of ``data/quantisation_rules.csv``.

    Raises:
        BadDataError: A kind of tensor, a mixture, a fact or a type that there is not.
    """
    columns = {
        "tensor": {"any", "other", *(kind for _, kind in _TABLES["kinds"])},
        "mixtures": words({"any", "low_bits", *QUANTS}),
        "type": {"same", *BLOCKS},
    }
    known = {*ARCHITECTURES, *_OF_MODEL, *_OF_TENSOR}
    return checked_rows("data/quantisation_rules.csv", known, columns=columns)


_RULES: Final = read_rules()
_SHORT_ROWS: Final = ("IQ4_NL", "Q5_0", "Q8_0")
"""Types of a table of n-grams, whose rows 256 does not divide: Unsloth's UD-Q4_K_XL of Qwen3.8 Flash Next has
26.8 GiB of it beside 77 (Helldez/BigMoeOnEdge, pull request 172)."""
_ALIASES: Final = SAME | {"Q4_K_XL": "Q4_K_M"}


def quant_named(name: str) -> str:
    """Canonical name of a mixture (``q4_k_m``, ``Q4_K``, ``FP16`` are understood).

    Raises:
        UnknownNameError: No mixture has such a name.
    """
    wanted = name.strip().upper().replace("-", "_")
    wanted = _ALIASES.get(wanted, wanted)
    if wanted not in BASE_TYPE:
        raise UnknownNameError("quantisation", name, QUANTS)
    return wanted


class Placed(NamedTuple):
    """A tensor with what the rules ask of it, worked out once for all mixtures.

    ``kind`` is what it is to the rules, ``number`` that among those of its kind.
    """

    name: str
    dims: tuple[int, ...]
    kind: str
    layer: int
    number: int
    quantised: bool
    kept_half: bool
    group: str


def in_llama_order(tensors: Mapping[str, tuple[int, ...]]) -> list[Placed]:
    """Tensors in the order in which llama.cpp walks them: no block first, then by block, then by name."""
    placed = list[Placed]()
    numbers = Counter[str]()
    for name, dims in sorted(tensors.items(), key=lambda item: (block_of(item[0]), item[0])):
        kind, group, kept, half = _named(name.split(".", 2)[-1] if name.startswith("blk.") else name)
        quantised = len(dims) > 1 and name.endswith("weight") and not kept
        if kind == "table" and "output.weight" not in tensors:
            kind = group = "output"
        placed.append(
            Placed(name, dims, kind, block_of(name), numbers[kind], quantised, half and len(dims) > 1, group)
        )
        numbers[kind] += quantised
    return placed


@cache
def _named(name: str) -> tuple[str, str, bool, bool]:
    """Of a tensor's name within its block: kind, group, whether it is kept, and whether it is kept in 16 bits."""
    kind, group = (
        next((word for pattern, word in _TABLES[what] if re.search(pattern, name)), "other")
        for what in ("kinds", "groups")
    )
    kept, half = (bool(re.search(_TABLES[what], name)) for what in ("kept", "kept_half"))
    return kind, group, kept, half


def types_in_order(
    shape: ModelShape,
    placed: list[Placed],
    quant: str,
    bits: tuple[float, ...] = (),
    *,
    importance_matrix: bool,
) -> dict[str, str]:
    """The ggml type of every tensor, by name.

    ``bits`` a weight are a recipe's, one for each of ``GROUPS`` (0: the mixture's own). An
    ``importance_matrix`` changes a few choices.
    """
    base = BASE_TYPE[quant]
    named = {quant, "any"} | MIXTURES[quant].flags
    rules = {
        kind: [r for r in _RULES if r["tensor"] in {kind, "any"} and named & set(r["mixtures"].split())]
        for kind in {one.kind for one in placed}
    }
    of_model = _model_facts(shape, importance_matrix)
    of_model["value_count"] = sum(one.kind == "value" for one in placed)
    types = dict[str, str]()
    for one in placed:
        if not one.quantised:
            half = one.kept_half and quant != "F32"
            types[one.name] = ("BF16" if quant == "BF16" else "F16") if half else "F32"
        elif base in {"F32", "F16", "BF16"}:
            types[one.name] = base
        else:
            facts = _tensor_facts(one, base, of_model)
            chosen = next((rule["type"] for rule in rules[one.kind] if holds(rule["when"], facts)), "same")
            types[one.name] = _fitting(base if chosen == "same" else chosen, one.dims[0])
    for group, wanted in zip(GROUPS, bits, strict=False):
        if not wanted:
            continue
        members = [p for p in placed if p.group == group and p.quantised]
        if group == "layer_tables" and shape.lazy_row_count:  # rows that few tokens read, as experts are
            fitting = (name for name in _SHORT_ROWS if _bits(name) > bits[GROUPS.index("experts")] - 0.5)
            types |= dict.fromkeys((p.name for p in members), next(fitting, "Q8_0"))
        else:
            types |= _types_of_bits(members, wanted, quant)
    native = _TABLES["native_experts"].get(shape.architecture)
    kept = shape.experts.native_type if shape.experts is not None else ""
    for one in placed:
        if one.group == "experts" and one.quantised:
            types[one.name] = native or types[one.name]
            if kept and _bits(types[one.name]) > _bits(kept):
                types[one.name] = kept
    return types


def _bits(type_name: str) -> float:
    return BLOCKS[type_name].bits_per_weight


def _model_facts(shape: ModelShape, importance_matrix: bool) -> Facts:
    """What the rules ask of a model.

    A file that lists the KV heads layer by layer has llama.cpp read a group size of 0 off a recurrent first
    one.
    """
    listed = has(shape.architecture, "heads_by_layer") and shape.layer_kind(0) == "recurrent"
    queries_a_key = 0
    if shape.kv_head_count and not listed:
        queries_a_key = shape.head_count // shape.kv_head_count
    expert_count = shape.experts.expert_count if shape.experts else 0
    return {
        shape.architecture: True,
        "importance_matrix": importance_matrix,
        "grouped": queries_a_key >= 4,
        "mixture": expert_count > 1,
        "several_experts": expert_count >= 4,
        "eight_experts": expert_count == 8,
        "is_70b": shape.layer_count == 80 and has(shape.architecture, "counted_as_70b") and queries_a_key > 1,
        "layer_count": shape.layer_count,
    }


def _tensor_facts(placed: Placed, base: str, facts: Facts) -> Facts:
    """What the rules ask of a tensor beside its model.

    In a mixture of experts its block counts as its number.
    """
    index = placed.number
    count = facts["layer_count"]
    if placed.kind == "value":
        count = facts["value_count"]
    elif facts["mixture"]:
        index = placed.layer
    eighth = count // 8
    early = index < eighth
    late = index >= 7 * count // 8
    return facts | {
        "uneven": placed.dims[0] % BLOCKS[base].elements,
        "stacked": len(placed.dims) > 2 and placed.dims[2] > 1,
        "seen_early": placed.number < eighth,
        "early": early,
        "first_two": index < 2,
        "first_four": index < 4,
        "first_sixteenth": index < count // 16,
        "middle": not early and not late,
        "more": early or late or (index - eighth) % 3 == 2,
    }


def _types_of_bits(placed: list[Placed], bits: float, quant: str) -> dict[str, str]:
    """Types whose mean over these tensors is ``bits`` a weight: of two neighbours in the ladder, spread evenly."""
    names = _TABLES["ladder_low" if quant.startswith("IQ") else "ladder"].split()
    ladder = [BLOCKS[name].bits_per_weight for name in names]
    upper = next((i for i, each in enumerate(ladder) if each >= bits), len(ladder) - 1)
    lower = max(upper - 1, 0)
    share = 1.0
    if upper > lower:
        share = (bits - ladder[lower]) / (ladder[upper] - ladder[lower])
    types = dict[str, str]()
    owed = 0.0
    for tensor in placed:
        count = prod(tensor.dims)
        owed += share * count
        better = owed >= count / 2
        if better:
            owed -= count
        types[tensor.name] = _fitting(names[upper if better else lower], tensor.dims[0])
    return types


def _fitting(type_name: str, row_elements: int) -> str:
    """``type_name``, or the next type whose blocks divide the row."""
    if row_elements % BLOCKS[type_name].elements == 0:
        return type_name
    smaller = BLOCKS[type_name].fallback or type_name
    if row_elements % BLOCKS[smaller].elements == 0:
        return smaller
    return "F16"
