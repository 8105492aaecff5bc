"""Every weight tensor of a model, from its shape alone: names and sizes as llama.cpp's converter writes them.

Source: llama.cpp (release packed in llama-cpp-python 0.3.36), src/models/*.cpp (``load_arch_tensors``) for names and
sizes, src/llama-arch.cpp for the spelling of names.
"""

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from harness.domain.model import Experts, LatentAttention, ModelShape, Recurrent
from harness.errors import RefusedError

Role = Literal[
    "embedding", "output", "attention", "feed_forward", "expert", "shared_expert", "router", "recurrent", "norm", "bias"
]
"""What a tensor is for. ``expert`` tensors are read in part (used / all); of ``embedding`` one row a token is read."""


class TensorSpec(NamedTuple):
    """One tensor before a type is chosen: llama.cpp's name, sizes with the row length first, and its role."""

    name: str
    dims: tuple[int, ...]
    role: Role


KNOWN_ARCHITECTURES: Final = frozenset(
    """
    llama llama4 mistral3 qwen2 qwen2vl qwen3 qwen3vl qwen2moe qwen3moe qwen3vlmoe gemma gemma2 gemma3 gemma3n
    phi2 phi3 phimoe starcoder2 stablelm command-r cohere2 olmo olmo2 olmoe internlm2 exaone exaone4 granite
    granitemoe glm4 glm4moe chatglm smollm3 minicpm minicpm3 deepseek deepseek2 bitnet gpt-oss ernie4_5
    ernie4_5-moe dots1 hunyuan-dense hunyuan-moe bailingmoe bailingmoe2 falcon dbrx nemotron arcee seed_oss xverse
    baichuan orion mamba mamba2 jamba granitehybrid falcon-h1 qwen3next qwen35 qwen35moe lfm2 lfm2moe smallthinker
    apertus gemma4 minimax-m2 mistral4 nemotron_h nemotron_h_moe hy_v3 glm-dsa
    """.split()  # noqa: SIM905 - a list of words reads better
)
"""Architectures whose tensors this module knows."""

_FUSED_QKV: Final = frozenset({"phi3", "phi2", "falcon", "dbrx", "bailingmoe2", "chatglm"})
_FUSED_GATE_UP: Final = frozenset({"phi3", "glm4", "chatglm"})
_POST_NORMS: Final = frozenset({"gemma2", "gemma3", "gemma3n", "gemma4", "glm4", "olmo2", "exaone4"})
_NO_ATTENTION_NORM: Final = frozenset({"olmo2", "exaone4"})
_NO_FEED_FORWARD_NORM: Final = frozenset({"olmo2", "exaone4", "cohere2", "command-r", "phi2", "falcon"})
_POST_ATTENTION_IS_FEED_FORWARD_NORM: Final = frozenset(
    {"gpt-oss", "qwen3next", "qwen35", "qwen35moe", "glm4moe", "seed_oss"}
)
_FULL_WIDTH_QK_NORM: Final = frozenset({"olmo2", "olmoe", "minimax-m2"})
_LFM2: Final = frozenset({"lfm2", "lfm2moe"})
_ONE_PART_A_BLOCK: Final = frozenset({"nemotron_h", "nemotron_h_moe"})
_SCORE_BIAS: Final = frozenset({"glm4moe", "minimax-m2", "nemotron_h_moe", "lfm2moe", "hy_v3", "glm-dsa"})
_NORM_BIAS: Final = frozenset({"phi2", "starcoder2", "falcon", "stablelm", "phimoe", "nemotron"})
_PROJECTION_BIAS: Final = frozenset({"phi2", "starcoder2"})
_DELTA_NET: Final = frozenset({"qwen3next", "qwen35", "qwen35moe"})

# Gemma 3n: widths that its config.json gives and no other family has.
_ALTUP_COUNT: Final = 4
_LAUREL_RANK_DIM: Final = 64


def tensors_of(shape: ModelShape) -> list[TensorSpec]:
    """All tensors of ``shape``, token table and output first, then block by block.

    Raises:
        RefusedError: No table for this architecture, so that a size would be a guess.
    """
    if shape.architecture not in KNOWN_ARCHITECTURES:
        raise RefusedError(
            f"no table of tensors for architecture {shape.architecture!r}; give a GGUF file of the model instead"
        )
    table = [TensorSpec("token_embd.weight", (shape.hidden_dim, shape.vocab_count), "embedding")]
    if not shape.tied_embeddings:
        table.append(TensorSpec("output.weight", (shape.hidden_dim, shape.vocab_count), "output"))
    norm = "token_embd_norm" if shape.architecture in _LFM2 else "output_norm"
    table.append(TensorSpec(f"{norm}.weight", (shape.hidden_dim,), "norm"))
    if shape.architecture in _NORM_BIAS:
        table.append(TensorSpec("output_norm.bias", (shape.hidden_dim,), "bias"))
    if shape.architecture in {"phi2", "phimoe"}:
        table.append(TensorSpec("output.bias", (shape.vocab_count,), "bias"))
    if shape.architecture == "gemma3n":
        table.extend(_altup_shared(shape))
    if shape.architecture == "gemma4":
        table.append(TensorSpec("rope_freqs.weight", (shape.head_dim // 2,), "norm"))
    if shape.per_layer_input_dim:
        table.extend(_per_layer_tables(shape))
    for layer in range(shape.layer_count):
        table.extend(spec._replace(name=f"blk.{layer}.{spec.name}") for spec in _block(shape, layer))
    return table


def _block(shape: ModelShape, layer: int) -> Iterator[TensorSpec]:
    arch, hidden = shape.architecture, shape.hidden_dim
    if arch not in _NO_ATTENTION_NORM:
        yield from _norm(shape, "attn_norm")
    yield from _mixer(shape, layer)
    if arch in _ONE_PART_A_BLOCK:
        if shape.layer_kind(layer) == "none":
            yield from _experts(shape, shape.experts) if shape.experts else _feed_forward(shape, layer)
        return
    if arch in _POST_NORMS or arch in _POST_ATTENTION_IS_FEED_FORWARD_NORM:
        yield TensorSpec("post_attention_norm.weight", (hidden,), "norm")
    if arch in {"mamba", "mamba2"}:
        return
    if arch == "falcon-h1":
        yield TensorSpec("ffn_norm", (hidden,), "norm")  # the one name without an ending
    elif arch not in _NO_FEED_FORWARD_NORM and arch not in _POST_ATTENTION_IS_FEED_FORWARD_NORM:
        yield from _norm(shape, "ffn_norm")
    routed = shape.experts if shape.is_moe_layer(layer) else None
    if routed is None or arch == "gemma4":
        yield from _feed_forward(shape, layer)
    if routed is not None:
        yield from _experts(shape, routed)
    yield from _gemma_end(shape)


def _mixer(shape: ModelShape, layer: int) -> Iterator[TensorSpec]:
    """What mixes tokens: attention, a recurrent state, both (Falcon-H1) or nothing (some blocks of Nemotron-H)."""
    kind, both = shape.layer_kind(layer), shape.architecture == "falcon-h1"
    if shape.recurrent is not None and (both or kind == "recurrent"):
        yield from _recurrent(shape, shape.recurrent)
    if both or kind in {"full", "sliding"}:
        yield from _attention(shape, layer) if shape.latent is None else _latent_attention(shape, shape.latent)


def _gemma_end(shape: ModelShape) -> Iterator[TensorSpec]:
    """Norms after the feed-forward part, Gemma 4's scale of a block, and the inputs of each layer of the E models."""
    hidden, each = shape.hidden_dim, shape.per_layer_input_dim
    if shape.architecture in _POST_NORMS:
        yield TensorSpec("post_ffw_norm.weight", (hidden,), "norm")
    if shape.architecture == "gemma4":
        yield TensorSpec("layer_output_scale.weight", (1,), "norm")
    if each:
        yield TensorSpec("inp_gate.weight", (hidden, each), "feed_forward")
        yield TensorSpec("proj.weight", (each, hidden), "feed_forward")
        yield TensorSpec("post_norm.weight", (hidden,), "norm")
    if shape.architecture == "gemma3n":
        yield from _altup_block(shape)


def _norm(shape: ModelShape, name: str) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{name}.weight", (shape.hidden_dim,), "norm")
    if shape.architecture in _NORM_BIAS:
        yield TensorSpec(f"{name}.bias", (shape.hidden_dim,), "bias")


def _attention(shape: ModelShape, layer: int) -> Iterator[TensorSpec]:
    """Queries, keys, values and the way back: [hidden, heads x head_dim] and so on."""
    arch, hidden = shape.architecture, shape.hidden_dim
    sliding = shape.layer_kind(layer) == "sliding"
    head_dim = shape.sliding_head_dim if sliding and shape.sliding_head_dim else shape.head_dim
    kv_heads = shape.sliding_kv_head_count if sliding and shape.sliding_kv_head_count else shape.kv_head_count
    value_dim = head_dim if sliding and shape.sliding_head_dim else shape.value_head_dim or shape.head_dim
    query, key, value = shape.head_count * head_dim, kv_heads * head_dim, kv_heads * value_dim
    gated_query = 2 * query if arch in _DELTA_NET else query
    if arch in _FUSED_QKV:
        parts = {"attn_qkv": query + key + value}
    else:
        parts = {"attn_q": gated_query, "attn_k": key, "attn_v": value}
    if shape.values_are_keys and not sliding:
        del parts["attn_v"]
    if arch == "gemma4" and layer >= shape.layer_count - shape.kv_shared_layer_count:
        parts = {"attn_q": query}
    for name, width in parts.items():
        yield TensorSpec(f"{name}.weight", (hidden, width), "attention")
        if shape.attention_bias:
            yield TensorSpec(f"{name}.bias", (width,), "bias")
    yield TensorSpec("attn_output.weight", (shape.head_count * value_dim, hidden), "attention")
    if (shape.attention_bias and arch in {"gpt-oss", "phimoe"}) or arch in _PROJECTION_BIAS:
        yield TensorSpec("attn_output.bias", (hidden,), "bias")
    if arch == "gpt-oss":
        yield TensorSpec("attn_sinks.weight", (shape.head_count,), "attention")
    if arch == "bitnet":
        yield TensorSpec("attn_sub_norm.weight", (hidden,), "norm")
    if shape.qk_norm:
        full = arch in _FULL_WIDTH_QK_NORM
        yield TensorSpec("attn_q_norm.weight", (query if full else head_dim,), "norm")
        if "attn_k" in parts or arch in _FUSED_QKV:
            yield TensorSpec("attn_k_norm.weight", (key if full else head_dim,), "norm")


def _latent_attention(shape: ModelShape, latent: LatentAttention) -> Iterator[TensorSpec]:
    """Compressed queries and keys (MLA). ``attn_k_b`` and ``attn_v_b`` are stacks of one matrix a head."""
    hidden, heads = shape.hidden_dim, shape.head_count
    head_dim = latent.nope_head_dim + latent.rope_head_dim
    if latent.q_rank_dim:
        yield TensorSpec("attn_q_a_norm.weight", (latent.q_rank_dim,), "norm")
        yield TensorSpec("attn_q_a.weight", (hidden, latent.q_rank_dim), "attention")
        yield TensorSpec("attn_q_b.weight", (latent.q_rank_dim, heads * head_dim), "attention")
    else:
        yield TensorSpec("attn_q.weight", (hidden, heads * head_dim), "attention")
    yield TensorSpec("attn_kv_a_norm.weight", (latent.kv_rank_dim,), "norm")
    yield TensorSpec("attn_kv_a_mqa.weight", (hidden, latent.kv_rank_dim + latent.rope_head_dim), "attention")
    if shape.architecture == "minicpm3":
        width = heads * (latent.nope_head_dim + latent.value_head_dim)
        yield TensorSpec("attn_kv_b.weight", (latent.kv_rank_dim, width), "attention")
    else:
        yield TensorSpec("attn_k_b.weight", (latent.nope_head_dim, latent.kv_rank_dim, heads), "attention")
        yield TensorSpec("attn_v_b.weight", (latent.kv_rank_dim, latent.value_head_dim, heads), "attention")
    yield TensorSpec("attn_output.weight", (heads * latent.value_head_dim, hidden), "attention")
    if shape.architecture == "glm-dsa":
        count, width = 32, 128  # heads of the indexer, which chooses the tokens to attend to (GLM-5's config.json)
        yield from (TensorSpec(f"indexer.k_norm.{part}", (width,), "norm") for part in ("weight", "bias"))
        parts = {"proj": (hidden, count), "attn_k": (hidden, width), "attn_q_b": (latent.q_rank_dim, count * width)}
        yield from (TensorSpec(f"indexer.{name}.weight", dims, "attention") for name, dims in parts.items())


def _feed_forward(shape: ModelShape, layer: int) -> Iterator[TensorSpec]:
    arch, hidden, inner = shape.architecture, shape.hidden_dim, shape.feed_forward_dim
    if shape.kv_shared_feed_forward_dim and layer >= shape.layer_count - shape.kv_shared_layer_count:
        inner = shape.kv_shared_feed_forward_dim
    if not inner:
        return
    if arch in _FUSED_GATE_UP:
        yield TensorSpec("ffn_up.weight", (hidden, 2 * inner), "feed_forward")
    else:
        if shape.gated_feed_forward:
            yield TensorSpec("ffn_gate.weight", (hidden, inner), "feed_forward")
        yield TensorSpec("ffn_up.weight", (hidden, inner), "feed_forward")
    yield TensorSpec("ffn_down.weight", (inner, hidden), "feed_forward")
    if arch in _PROJECTION_BIAS:
        yield TensorSpec("ffn_up.bias", (inner,), "bias")
        yield TensorSpec("ffn_down.bias", (hidden,), "bias")
    if arch == "bitnet":
        yield TensorSpec("ffn_sub_norm.weight", (inner,), "norm")


def _experts(shape: ModelShape, experts: Experts) -> Iterator[TensorSpec]:
    """Router [hidden, experts] and the stacked experts [.., .., experts], which may work in a narrower width."""
    hidden, inner, count = shape.hidden_dim, experts.feed_forward_dim, experts.expert_count
    width = experts.latent_dim or hidden
    yield TensorSpec("ffn_gate_inp.weight", (hidden, count), "router")
    if experts.latent_dim:
        yield TensorSpec("ffn_latent_down.weight", (hidden, width), "shared_expert")
        yield TensorSpec("ffn_latent_up.weight", (width, hidden), "shared_expert")
    if shape.architecture == "gemma4":
        yield TensorSpec("ffn_gate_inp.scale", (hidden,), "router")
        yield from (
            TensorSpec(f"{name}.weight", (hidden,), "norm")
            for name in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2")
        )
        yield TensorSpec("ffn_gate_up_exps.weight", (width, 2 * inner, count), "expert")
        yield TensorSpec("ffn_down_exps.scale", (count,), "router")
    else:
        if shape.gated_feed_forward:
            yield TensorSpec("ffn_gate_exps.weight", (width, inner, count), "expert")
        yield TensorSpec("ffn_up_exps.weight", (width, inner, count), "expert")
    yield TensorSpec("ffn_down_exps.weight", (inner, width, count), "expert")
    if shape.architecture in _SCORE_BIAS:
        yield TensorSpec("exp_probs_b.bias", (count,), "bias")
    if shape.architecture == "gpt-oss":
        yield TensorSpec("ffn_gate_inp.bias", (count,), "bias")
        yield TensorSpec("ffn_gate_exps.bias", (inner, count), "bias")
        yield TensorSpec("ffn_up_exps.bias", (inner, count), "bias")
        yield TensorSpec("ffn_down_exps.bias", (hidden, count), "bias")
    shared = experts.shared_feed_forward_dim or experts.shared_count * inner
    if shared:
        if shape.architecture in {"qwen2moe", "qwen3next", "qwen35moe"}:
            yield TensorSpec("ffn_gate_inp_shexp.weight", (hidden,), "router")
        if shape.gated_feed_forward:
            yield TensorSpec("ffn_gate_shexp.weight", (hidden, shared), "shared_expert")
        yield TensorSpec("ffn_up_shexp.weight", (hidden, shared), "shared_expert")
        yield TensorSpec("ffn_down_shexp.weight", (shared, hidden), "shared_expert")


def _recurrent(shape: ModelShape, recurrent: Recurrent) -> Iterator[TensorSpec]:
    if shape.architecture in _DELTA_NET:
        yield from _delta_net(shape, recurrent)
    elif shape.architecture in _LFM2:
        hidden = shape.hidden_dim
        yield TensorSpec("shortconv.conv.weight", (recurrent.conv_dim, hidden), "recurrent")
        yield TensorSpec("shortconv.in_proj.weight", (hidden, 3 * hidden), "recurrent")
        yield TensorSpec("shortconv.out_proj.weight", (hidden, hidden), "recurrent")
    elif shape.architecture in {"mamba", "jamba"}:
        yield from _mamba(shape, recurrent)
    else:
        yield from _mamba2(shape, recurrent)


def _mamba(shape: ModelShape, recurrent: Recurrent) -> Iterator[TensorSpec]:
    """Mamba-1 (Gu and Dao 2023); the rank of dt is ceil(hidden / 16)."""
    hidden, inner, state = shape.hidden_dim, recurrent.inner_dim, recurrent.state_dim
    rank = -(-hidden // 16)
    yield TensorSpec("ssm_in.weight", (hidden, 2 * inner), "recurrent")
    yield TensorSpec("ssm_conv1d.weight", (recurrent.conv_dim, inner), "recurrent")
    yield TensorSpec("ssm_conv1d.bias", (inner,), "bias")
    yield TensorSpec("ssm_x.weight", (inner, rank + 2 * state), "recurrent")
    yield TensorSpec("ssm_dt.weight", (rank, inner), "recurrent")
    yield TensorSpec("ssm_dt.bias", (inner,), "bias")
    if shape.architecture == "jamba":
        yield TensorSpec("ssm_dt_norm.weight", (rank,), "norm")
        yield TensorSpec("ssm_b_norm.weight", (state,), "norm")
        yield TensorSpec("ssm_c_norm.weight", (state,), "norm")
    yield TensorSpec("ssm_a", (state, inner), "recurrent")
    yield TensorSpec("ssm_d", (inner,), "recurrent")
    yield TensorSpec("ssm_out.weight", (inner, hidden), "recurrent")


def _mamba2(shape: ModelShape, recurrent: Recurrent) -> Iterator[TensorSpec]:
    """Mamba-2 (Dao and Gu 2024): gate, x, B and C of each group, and dt of each head from one matrix."""
    hidden, inner, heads, groups = shape.hidden_dim, recurrent.inner_dim, recurrent.head_count, recurrent.group_count
    conv = inner + 2 * groups * recurrent.state_dim
    yield TensorSpec("ssm_in.weight", (hidden, inner + conv + heads), "recurrent")
    yield TensorSpec("ssm_conv1d.weight", (recurrent.conv_dim, conv), "recurrent")
    yield TensorSpec("ssm_conv1d.bias", (conv,), "bias")
    yield TensorSpec("ssm_dt.bias", (heads,), "bias")
    yield TensorSpec("ssm_a", (1, heads), "recurrent")
    yield TensorSpec("ssm_d", (1, heads), "recurrent")
    yield TensorSpec("ssm_norm.weight", (inner // groups, groups), "norm")
    yield TensorSpec("ssm_out.weight", (inner, hidden), "recurrent")


def _delta_net(shape: ModelShape, recurrent: Recurrent) -> Iterator[TensorSpec]:
    """Gated delta net (Qwen3-Next): heads of width ``state_dim``; key heads = groups, value heads = heads."""
    hidden, heads = shape.hidden_dim, recurrent.head_count
    key, value = recurrent.state_dim * recurrent.group_count, recurrent.state_dim * heads
    yield TensorSpec("attn_qkv.weight", (hidden, 2 * key + value), "recurrent")
    yield TensorSpec("attn_gate.weight", (hidden, value), "recurrent")
    yield TensorSpec("ssm_conv1d.weight", (recurrent.conv_dim, 2 * key + value), "recurrent")
    yield TensorSpec("ssm_dt.bias", (heads,), "bias")
    yield TensorSpec("ssm_a", (heads,), "recurrent")
    if shape.architecture == "qwen3next":
        yield TensorSpec("ssm_ba.weight", (hidden, 2 * heads), "recurrent")
    else:
        yield TensorSpec("ssm_beta.weight", (hidden, heads), "recurrent")
        yield TensorSpec("ssm_alpha.weight", (hidden, heads), "recurrent")
    yield TensorSpec("ssm_norm.weight", (recurrent.state_dim,), "norm")
    yield TensorSpec("ssm_out.weight", (value, hidden), "recurrent")


def _per_layer_tables(shape: ModelShape) -> Iterator[TensorSpec]:
    """A row for each layer and token, and the way from the token's embedding to the same width (Gemma 3n and 4)."""
    each, width = shape.per_layer_input_dim, shape.per_layer_input_dim * shape.layer_count
    yield TensorSpec("per_layer_token_embd.weight", (width, shape.vocab_count), "embedding")
    yield TensorSpec("per_layer_model_proj.weight", (shape.hidden_dim, width), "feed_forward")
    yield TensorSpec("per_layer_proj_norm.weight", (each,), "norm")


def _altup_shared(shape: ModelShape) -> Iterator[TensorSpec]:
    hidden = shape.hidden_dim
    yield TensorSpec("altup_proj.weight", (hidden, hidden, _ALTUP_COUNT - 1), "feed_forward")
    yield TensorSpec("altup_unembd_proj.weight", (hidden, hidden, _ALTUP_COUNT - 1), "feed_forward")


def _altup_block(shape: ModelShape) -> Iterator[TensorSpec]:
    hidden, altup = shape.hidden_dim, _ALTUP_COUNT
    yield TensorSpec("altup_correct_coef.weight", (altup, altup), "feed_forward")
    yield TensorSpec("altup_correct_scale.weight", (hidden,), "norm")
    yield TensorSpec("altup_predict_coef.weight", (altup, altup * altup), "feed_forward")
    yield TensorSpec("altup_router.weight", (hidden, altup), "router")
    yield TensorSpec("altup_router_norm.weight", (hidden,), "norm")
    yield TensorSpec("laurel_l.weight", (hidden, _LAUREL_RANK_DIM), "feed_forward")
    yield TensorSpec("laurel_r.weight", (_LAUREL_RANK_DIM, hidden), "feed_forward")
    yield TensorSpec("laurel_post_norm.weight", (hidden,), "norm")
