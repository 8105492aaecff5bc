"""What a model's shape must hold, whoever wrote it: a card, a config.json, a model file.

Nothing after this divides by a count of 0, and no figure is larger than any model, or than the file itself,
could hold.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from harness.core.base import Frozen
from harness.core.errors import BadDataError
from harness.core.foreign import typed
from harness.core.model import ModelShape
from harness.core.tables import Row
from harness.models.facts import MODEL_WORDS, Facts, checked_rows, holds, model_facts


def read_checks() -> list[Row]:
    """The rows of ``data/shape_checks.csv``.

    Raises:
        BadDataError: A word that no model has.
    """
    return checked_rows("data/shape_checks.csv", MODEL_WORDS)


_ROWS: Final = read_checks()
_WEIGHTS_MAX: Final = (1 << 63) - 1


class _Shaped(Frozen):
    shape: ModelShape


def check_shape(
    shape: ModelShape, source: Path | str, dims: Mapping[str, tuple[int, ...]] | None = None
) -> ModelShape:
    """The shape, if a model can have it.

    ``dims`` are the sizes of all tensors by name where the file, ``source``, holds them all: no figure may
    exceed them.

    Raises:
        BadDataError: A count out of its bounds, one that contradicts another, or one that the tensors do not
            bear out.
    """

    def refuse(field: str, found: object, expected: str) -> None:
        raise BadDataError(source, f"shape.{field}", str(found), expected)

    typed({"shape": msgspec.to_builtins(shape)}, _Shaped, str(source))  # bounds of single fields
    facts = Counter(model_facts(shape))  # 0 of the parts that it has not
    for row in _ROWS:
        if holds(row["when"], facts):
            refuse(row["field"], 0, row["expected"])
    heads = shape.head_count
    kv_heads = shape.kv_head_count
    layers = shape.layer_count
    pattern = shape.layer_pattern
    if pattern and (len(pattern) != layers or set(pattern) - set("asr-")):
        refuse("layer_pattern", repr(pattern)[:60], "a letter of 'asr-' for each layer")
    if shape.recurrent is None and ("r" in pattern or facts["state_beside_attention"]):
        refuse("recurrent", "nothing", "this table: the model has recurrent layers")
    if kv_heads and heads % kv_heads:
        refuse("kv_head_count", kv_heads, f"a divisor of head_count, {heads}")
    used = facts["moe_used_count"]
    experts = facts["moe_expert_count"]
    if used > experts:
        refuse("experts.used_count", used, f"at most expert_count, {experts}")
    width = shape.feed_forward_dim + facts["moe_feed_forward_dim"] * experts
    width += heads * shape.head_dim + facts["ssm_inner_dim"]
    parameters = shape.hidden_dim * (shape.vocab_count + layers * width)
    if parameters > _WEIGHTS_MAX:
        refuse("", f"about {parameters:.2g} weights", "fewer than 2**63")
    if dims:
        _check_against(shape, facts, dims, refuse)
    return shape


def _check_against(
    shape: ModelShape,
    facts: Facts,
    dims: Mapping[str, tuple[int, ...]],
    refuse: Callable[[str, object, str], None],
) -> None:
    """No figure above what the tensors hold.

    Less is allowed, since some families differ from layer to layer.
    """
    blocks = len(set(re.findall(r"^blk\.[0-9]{1,5}\.", "\n".join(dims), re.MULTILINE)))
    layers = shape.layer_count
    table = dims.get("token_embd.weight", (shape.hidden_dim,))
    if table[0] != shape.hidden_dim:
        refuse("hidden_dim", shape.hidden_dim, f"{table[0]}, the row of token_embd.weight")
    experts = facts["moe_expert_count"]
    for name, sizes in dims.items():
        if name.endswith("_exps.weight") and sizes[-1] != experts:
            refuse("experts.expert_count", experts, f"{sizes[-1]}, as {name} has")
    widest = max(max(sizes) for sizes in dims.values())
    heads = shape.head_count
    if shape.latent is None:
        heads *= max(shape.head_dim, shape.value_head_dim)
    in_all = f"at most {widest}, the widest tensor of the file"
    for field, value, most, expected in (
        ("layer_count", layers, blocks, f"at most {blocks}, the blocks that the file has tensors of"),
        ("kv_shared_layer_count", shape.kv_shared_layer_count, layers, f"at most layer_count, {layers}"),
        (
            "experts.dense_layer_count",
            facts["moe_dense_layer_count"],
            layers,
            f"at most layer_count, {layers}",
        ),
        ("hidden_dim", shape.hidden_dim, widest, in_all),
        ("head_count", heads, widest, in_all),
        ("experts.feed_forward_dim", facts["moe_feed_forward_dim"], widest, in_all),
        ("latent.kv_rank_dim", max(facts["latent_kv_rank_dim"], facts["latent_q_rank_dim"]), widest, in_all),
        ("recurrent.inner_dim", facts["ssm_inner_dim"], widest, in_all),
        ("recurrent.state_dim", facts["ssm_state_dim"], widest, in_all),
    ):
        if value > most:
            refuse(field, value, expected)
    if shape.latent is not None:
        return
    sliding = shape.sliding_kv_head_count or shape.kv_head_count
    keys = max(shape.kv_head_count * shape.head_dim, sliding * (shape.sliding_head_dim or shape.head_dim))
    for field, value, part, ratios in (
        (
            "head_count x head_dim",
            shape.head_count * shape.head_dim,
            "attn_q",
            (1, 2),
        ),  # some hold a gate too
        ("kv_head_count x head_dim", keys, "attn_k", (1,)),
        ("feed_forward_dim", shape.feed_forward_dim, "ffn_up", (1, 2, 0.5)),  # a few count both halves
    ):
        widths = {sizes[-1] for name, sizes in dims.items() if name.endswith(f".{part}.weight")}
        if widths and widths.isdisjoint(ratio * value for ratio in ratios):
            refuse(field, value, f"{max(widths)}, as the matrices of the file have it")
