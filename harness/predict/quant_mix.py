"""Which tensor gets which ggml type in each of llama.cpp's quantisation mixtures.

"Q4_K_M" is no type but a recipe: most matrices in Q4_K, the sensitive ones in Q6_K. Written after the rules in
llama.cpp, src/llama-quant.cpp (``llama_tensor_get_type_impl``, ``tensor_allows_quantization``,
``tensor_type_fallback``), release packed in llama-cpp-python 0.3.36. Recipes of others give bits to groups of tensors;
experts that a model was trained with in a type of its own keep it in every mixture.
"""

from collections.abc import Mapping
from math import prod
from typing import Final, NamedTuple

from harness.domain.base import shipped_table
from harness.domain.ggml import BLOCKS
from harness.domain.model import ModelShape
from harness.domain.quant import GROUPS, SAME
from harness.errors import UnknownNameError
from harness.predict.tensors import block_of

_TABLES: Final = shipped_table("data/quantisations.toml")
QUANTS: Final = tuple(_TABLES["mixtures"]["all"].split())
"""The mixtures, from many bits to few."""

BASE_TYPE: Final[dict[str, str]] = {quant: _TABLES["base"].get(quant, quant) for quant in QUANTS}
"""The type that a mixture gives to most matrices: the one that it is named after, mostly."""

_KINDS: Final = {kind: frozenset(words.split()) for kind, words in _TABLES["mixtures"].items()}
NEEDS_IMPORTANCE_MATRIX: Final = _KINDS["needs_importance_matrix"]
"""Mixtures that llama.cpp refuses to make without an importance matrix."""
THROUGHOUT: Final = _KINDS["throughout"]
"""Mixtures of models trained for them, which have the type in all matrices."""

_ALIASES: Final = SAME | {"Q4_K_XL": "Q4_K_M"}
_HEADS_BY_LAYER: Final = frozenset({"jamba", "granitehybrid", "lfm2", "lfm2moe"})
"""Their files list the KV heads layer by layer, so that llama.cpp reads a group size of 0 off a recurrent first one."""
_VALUES: Final = frozenset({"v", "qkv", "kv_b"})
"""Categories that llama.cpp treats as values, the most sensitive matrices of attention."""
_KEPT_PARTS: Final = (
    *("_norm.weight", "ffn_gate_inp.weight", "altup", "laurel", "per_layer_model_proj"),
    *("ssm_conv1d", "shortconv.conv.weight"),
)
_KEPT_HALF: Final = ("altup_proj", "altup_unembd_proj", "altup_router.", "laurel_l", "laurel_r", "per_layer_model_proj")


def quant_named(name: str) -> str:
    """Canonical name of a mixture (``q4_k_m``, ``Q4_K``, ``FP16`` are understood); UnknownNameError for any other."""
    wanted = name.strip().upper().replace("-", "_")
    wanted = _ALIASES.get(wanted, wanted)
    if wanted not in BASE_TYPE:
        raise UnknownNameError("quantisation", name, QUANTS)
    return wanted


class Placed(NamedTuple):
    """A tensor with what the rules ask of it, worked out once for all mixtures."""

    name: str
    dims: tuple[int, ...]
    category: str
    layer: int
    quantised: bool
    kept_half: bool
    group: str


def in_llama_order(tensors: Mapping[str, tuple[int, ...]]) -> list[Placed]:
    """Tensors in the order in which llama.cpp walks them: no block first, then by block, then by name."""
    placed, tied = [], "output.weight" not in tensors
    for name, dims in tensors.items():
        half = len(dims) > 1 and any(part in name for part in _KEPT_HALF)
        group = _group(name, tied=tied)
        placed.append(Placed(name, dims, _category(name), block_of(name), _is_quantised(name, dims), half, group))
    return sorted(placed, key=lambda p: (p.layer, p.name))


def types_in_order(
    shape: ModelShape,
    placed: list[Placed],
    quant: str,
    *,
    bits: tuple[float, ...] = (),
    importance_matrix: bool | None = None,
) -> dict[str, str]:
    """The ggml type of every tensor, by name.

    ``bits`` a weight are a recipe's, one for each of ``GROUPS`` (0: the mixture's own). An ``importance_matrix``
    changes a few choices; None: one is used only where llama.cpp demands it.

    Raises:
        UnknownNameError: There is no such mixture.
    """
    quant = quant_named(quant)
    if importance_matrix is None:
        importance_matrix = quant in NEEDS_IMPORTANCE_MATRIX
    chooser = _Chooser(shape, placed, quant, importance_matrix)
    types = {p.name: chooser.choose(p) for p in placed}
    for group, wanted in zip(GROUPS, bits, strict=False):
        if wanted:
            types |= _types_of_bits([p for p in placed if p.group == group and p.quantised], wanted, quant)
    if native := _TABLES["native_experts"].get(shape.architecture):
        types |= {p.name: native for p in placed if p.group == "experts" and p.quantised}
    return types


def _types_of_bits(placed: list[Placed], bits: float, quant: str) -> dict[str, str]:
    """Types whose mean over these tensors is ``bits`` a weight: of two neighbours in the ladder, spread evenly."""
    names = _TABLES["ladder_low" if quant.startswith("IQ") else "ladder"].split()
    ladder = [BLOCKS[name].bits_per_weight for name in names]
    upper = next((i for i, each in enumerate(ladder) if each >= bits), len(ladder) - 1)
    lower = max(upper - 1, 0)
    share = 1.0 if upper == lower else (bits - ladder[lower]) / (ladder[upper] - ladder[lower])
    types, owed = dict[str, str](), 0.0
    for tensor in placed:
        count = prod(tensor.dims)
        owed += share * count
        better = owed >= count / 2
        owed -= count if better else 0
        types[tensor.name] = _fitting(names[upper if better else lower], tensor.dims[0])
    return types


class _Chooser:
    """Walks the tensors in llama.cpp's order, counting as it does."""

    def __init__(self, shape: ModelShape, placed: list[Placed], quant: str, imatrix: bool) -> None:
        self.shape, self.quant, self.imatrix = shape, quant, imatrix
        self.tied = all(p.category != "output" for p in placed)
        self.value_count = sum(p.category in _VALUES for p in placed)
        self.layer_count = shape.layer_count
        listed = shape.architecture in _HEADS_BY_LAYER and shape.layer_kind(0) == "recurrent"
        self.gqa = 0 if listed or not shape.kv_head_count else shape.head_count // shape.kv_head_count
        self.expert_count = shape.experts.expert_count if shape.experts else 0
        self.is_70b = shape.layer_count == 80 and (
            shape.architecture == "qwen2" or (shape.architecture == "llama" and self.gqa > 1)
        )
        self.seen = {"v": 0, "down": 0, "gate": 0, "up": 0}

    def choose(self, placed: Placed) -> str:
        if not placed.quantised:
            half = placed.kept_half and self.quant != "F32"
            return ("BF16" if self.quant == "BF16" else "F16") if half else "F32"
        base = BASE_TYPE[self.quant]
        if base in {"F32", "F16", "BF16"}:
            return base
        return _fitting(self._mixed(placed, base), placed.dims[0])

    def _mixed(self, placed: Placed, base: str) -> str:  # noqa: PLR0911 - one return for each rule
        dims, category = placed.dims, placed.category
        if self.quant in THROUGHOUT:
            return base
        if placed.group == "layer_tables":  # as in published files; the quantiser of 2026 would take the output's
            return str(_TABLES["layer_tables"].get(self.shape.architecture, {}).get(self.quant, base))
        if category == "output" or (self.tied and category == "embedding"):
            return self._output(dims, base)
        if self.quant == "MXFP4_MOE":
            return "MXFP4" if len(dims) > 2 and dims[2] > 1 else "Q8_0"
        if category == "embedding":
            return str(_TABLES["embedding"].get(self.quant, base))
        if self.quant in _KINDS["low_bit"]:
            return self._low_bit(category, base)
        if category in _VALUES:
            return self._value(base)
        if category in {"q", "k"}:
            special = {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}
            return "Q8_0" if category == "k" and self.expert_count == 8 else special.get(self.quant, base)
        if category == "down":
            return self._down(placed, base)
        if category == "o":
            return self._attention_output(base)
        if category in {"gate", "up"}:
            layer = self._count(category, placed)
            middle = self.layer_count // 8 <= layer < 7 * self.layer_count // 8
            return "IQ3_XXS" if self.quant == "IQ3_XS" and middle else base
        return base

    def _count(self, category: str, placed: Placed) -> int:
        """The counter of a category before this tensor; the block's number itself in a model with experts."""
        seen = self.seen[category]
        self.seen[category] += 1
        return placed.layer if self.expert_count > 1 else seen

    def _output(self, dims: tuple[int, ...], base: str) -> str:
        if self.quant == "MXFP4_MOE" or self.shape.architecture == "falcon":
            return "Q8_0"
        if dims[0] % BLOCKS[base].elements:
            return "Q8_0"
        if self.quant in _KINDS["low_bit"] or self.quant == "IQ3_XXS":
            return "Q5_K"
        return base if base == "Q8_0" else "Q6_K"

    def _low_bit(self, category: str, base: str) -> str:  # noqa: PLR0911 - one return for each rule
        better = "IQ3_S" if self.quant in _KINDS["low_bit_high"] else "Q2_K"
        if category in _VALUES:
            return "Q4_K" if self.gqa >= 4 or self.expert_count >= 4 else better
        if category == "k" and self.expert_count == 8:
            return "Q4_K"
        if category == "down":
            seen = self.seen["down"]
            self.seen["down"] += 1
            return better if seen < self.layer_count // 8 else base
        if category == "o":
            if self.expert_count == 8:
                return "Q5_K"
            if self.quant in {"IQ1_S", "IQ1_M"}:
                return "IQ2_XXS"
            return "IQ3_S" if self.quant in _KINDS["low_bit_high"] else base
        return base

    def _value(self, base: str) -> str:
        seen, grouped = self.seen["v"], self.gqa >= 4
        self.seen["v"] += 1
        if self.expert_count == 8:
            return "Q8_0"
        chosen = base
        match self.quant:
            case "Q2_K":
                chosen = "Q4_K" if grouped else "Q3_K"
            case "Q2_K_S" | "IQ3_XS" | "IQ3_S" if grouped:
                chosen = "Q4_K"
            case "IQ3_XXS":
                chosen = "Q4_K" if grouped else "IQ3_XXS" if self.imatrix else "IQ3_S"
            case "IQ3_M":
                chosen = "Q4_K"
            case "Q3_K_M":
                chosen = "Q5_K" if seen < 2 else "Q4_K"
            case "Q3_K_L":
                chosen = "Q5_K"
            case "IQ4_NL" | "IQ4_XS" if grouped:
                chosen = "Q5_K"
            case "Q4_K_M" | "Q5_K_M" if _use_more_bits(seen, self.value_count):
                chosen = "Q6_K"
            case "Q4_K_S" if seen < 4:
                chosen = "Q5_K"
        return "Q5_K" if self.is_70b and chosen in {"Q3_K", "Q4_K"} else chosen

    def _down(self, placed: Placed, base: str) -> str:  # noqa: PLR0911 - one return for each rule
        layer, count = self._count("down", placed), self.layer_count
        falcon, early = self.shape.architecture == "falcon", layer < count // 8
        more = _use_more_bits(layer, count)
        match self.quant:
            case "Q2_K":
                return "Q3_K"
            case "Q2_K_S" if early:
                return "Q4_K"
            case "IQ3_XXS" if not self.imatrix:
                return "Q4_K" if early else "Q3_K"
            case "Q3_K_M":
                return "Q5_K" if layer < count // 16 else "Q4_K" if not falcon or more else "Q3_K"
            case "IQ3_M" if early or (self.expert_count == 8 and more):
                return "Q4_K"
            case "Q3_K_L":
                return "Q4_K" if falcon else "Q5_K"
            case "Q4_K_M" if falcon:
                return "Q6_K" if layer < count // 16 else "Q5_K" if more else "Q4_K"
            case "Q4_K_M" | "Q5_K_M" if more:
                return "Q6_K"
            case "IQ4_NL" | "IQ4_XS" if early and not self.imatrix:
                return "Q5_K"
            case "Q4_K_S" if early and not falcon:
                return "Q5_K"
            case "Q4_0" | "Q5_0" if early and self.imatrix:
                return "Q4_1" if self.quant == "Q4_0" else "Q5_1"
        return base

    def _attention_output(self, base: str) -> str:
        if self.shape.architecture == "falcon":
            return "Q4_K" if self.quant == "Q3_K_L" else base
        if self.expert_count == 8:
            return "Q5_K" if self.quant in _KINDS["eight_expert_output_q5"] else base
        special = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
        return special.get(self.quant, base)


def _is_quantised(name: str, dims: tuple[int, ...]) -> bool:
    """Whether the quantiser touches it: matrices only, no norms, routers, convolutions, nor biases."""
    if len(dims) < 2 or not name.endswith("weight"):
        return False
    return not any(part in name for part in _KEPT_PARTS)


def _category(name: str) -> str:
    if name == "output.weight":
        return "output"
    if name in {"token_embd.weight", "per_layer_token_embd.weight"}:
        return "embedding"
    for part, category in (
        ("attn_qkv.weight", "qkv"),
        ("attn_kv_b.weight", "kv_b"),
        ("attn_v.weight", "v"),
        ("attn_k.weight", "k"),
        ("attn_q.weight", "q"),
        ("attn_output.weight", "o"),
        ("ffn_up", "up"),
        ("ffn_gate", "gate"),
        ("ffn_down", "down"),
    ):
        if part in name:
            return category
    return "other"


def _group(name: str, *, tied: bool) -> str:
    """Which of ``GROUPS`` a tensor belongs to."""
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return "output"
    if name in {"token_embd.weight", "per_layer_token_embd.weight"}:
        return "layer_tables" if name.startswith("per_layer") else "table"
    if "_exps." in name:
        return "experts"
    if "attn_gate" in name or "_shexp" in name:
        return "other"
    return "attention" if "attn" in name else "feed_forward" if "ffn" in name else "other"


def _use_more_bits(index: int, count: int) -> bool:
    """The first eighth, the last eighth, and every third between."""
    return index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2


def _fitting(type_name: str, row_elements: int) -> str:
    """``type_name``, or the next type whose blocks divide the row."""
    if row_elements % BLOCKS[type_name].elements == 0:
        return type_name
    smaller = _TABLES["fallback"].get(type_name, type_name)
    return smaller if row_elements % BLOCKS[smaller].elements == 0 else "F16"
