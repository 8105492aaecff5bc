"""Every weight tensor of a model, from its shape alone: names and sizes as llama.cpp's converter writes them.

Source: llama.cpp (release packed in llama-cpp-python 0.3.36), src/models/*.cpp (``load_arch_tensors``) for names and
sizes, src/llama-arch.cpp for the spelling of names.
"""

from functools import lru_cache
from typing import Final

from harness.domain.base import shipped_table
from harness.domain.model import Experts, LatentAttention, ModelShape, Recurrent
from harness.errors import RefusedError
from harness.predict.kv_cache import INDEXER_DIM

Table = dict[str, tuple[int, ...]]
"""Tensors before a type is chosen: sizes by llama.cpp's name, the row length first."""

_TABLES: Final = shipped_table("data/architectures.toml")
_WITH: Final = {what: frozenset(words.split()) for what, words in _TABLES["tensors"].items()}
"""Architectures by what their tensors have; ``known`` are those whose tensors this module knows."""
_DELTA_NET: Final = frozenset(_TABLES["delta_net"])

# Gemma 3n: widths that its config.json gives and no other family has.
_ALTUP_COUNT: Final = 4
_LAUREL_RANK_DIM: Final = 64


@lru_cache(maxsize=1 << 14)
def block_of(name: str) -> int:
    """Number of the block that a tensor belongs to; -1 for none."""
    return int(name.split(".")[1]) if name.startswith("blk.") else -1


def tensors_of(shape: ModelShape) -> Table:
    """All tensors of ``shape``, token table and output first, then block by block.

    Raises:
        RefusedError: No table for this architecture, so that a size would be a guess.
    """
    arch, hidden, each = shape.architecture, shape.hidden_dim, shape.per_layer_input_dim
    if arch not in _WITH["known"]:
        raise RefusedError(f"no table of tensors for architecture {arch!r}; give a GGUF file of the model instead")
    table: Table = {"token_embd.weight": (hidden, shape.vocab_count)}
    if not shape.tied_embeddings:
        table["output.weight"] = (hidden, shape.vocab_count)
    table["token_embd_norm.weight" if arch in _WITH["short_convolution"] else "output_norm.weight"] = (hidden,)
    if arch in _WITH["norm_bias"]:
        table["output_norm.bias"] = (hidden,)
    if arch in {"phi2", "phimoe"}:
        table["output.bias"] = (shape.vocab_count,)
    if arch == "gemma3n":
        table |= dict.fromkeys(("altup_proj.weight", "altup_unembd_proj.weight"), (hidden, hidden, _ALTUP_COUNT - 1))
    if arch == "gemma4":
        table["rope_freqs.weight"] = (shape.head_dim // 2,)
    if each:  # a row for each layer and token, and the way from the token's embedding to the same width
        table["per_layer_token_embd.weight"] = (each * shape.layer_count, shape.vocab_count)
        table["per_layer_model_proj.weight"] = (hidden, each * shape.layer_count)
        table["per_layer_proj_norm.weight"] = (each,)
    for layer in range(shape.layer_count):
        table |= {f"blk.{layer}.{name}": dims for name, dims in _block(shape, layer).items()}
    return table


def _block(shape: ModelShape, layer: int) -> Table:
    arch, hidden = shape.architecture, shape.hidden_dim
    block = {} if arch in _WITH["no_attention_norm"] else _norm(shape, "attn_norm")
    block |= _mixer(shape, layer)
    if arch in _WITH["one_part_a_block"]:
        if shape.layer_kind(layer) == "none":
            block |= _experts(shape, shape.experts) if shape.experts else _feed_forward(shape, layer)
        return block
    if arch in _WITH["post_norms"] or arch in _WITH["post_attention_is_feed_forward_norm"]:
        block["post_attention_norm.weight"] = (hidden,)
    if arch in {"mamba", "mamba2"}:
        return block
    if arch == "falcon-h1":
        block["ffn_norm"] = (hidden,)  # the one name without an ending
    elif arch not in _WITH["no_feed_forward_norm"] and arch not in _WITH["post_attention_is_feed_forward_norm"]:
        block |= _norm(shape, "ffn_norm")
    routed = shape.experts if shape.is_moe_layer(layer) else None
    if routed is None or arch == "gemma4":
        block |= _feed_forward(shape, layer)
    if routed is not None:
        block |= _experts(shape, routed)
    return block | _gemma_end(shape)


def _mixer(shape: ModelShape, layer: int) -> Table:
    """What mixes tokens: attention, a recurrent state, both (Falcon-H1) or nothing (some blocks of Nemotron-H)."""
    kind, both = shape.layer_kind(layer), shape.architecture == "falcon-h1"
    mixer: Table = {}
    if shape.recurrent is not None and (both or kind == "recurrent"):
        mixer |= _recurrent(shape, shape.recurrent)
    if both or kind in {"full", "sliding"}:
        mixer |= _attention(shape, layer) if shape.latent is None else _latent_attention(shape, shape.latent)
    return mixer


def _gemma_end(shape: ModelShape) -> Table:
    """Norms after the feed-forward part, Gemma 4's scale of a block, and the inputs of each layer of the E models."""
    hidden, each, altup = shape.hidden_dim, shape.per_layer_input_dim, _ALTUP_COUNT
    end: Table = {}
    if shape.architecture in _WITH["post_norms"]:
        end["post_ffw_norm.weight"] = (hidden,)
    if shape.architecture == "gemma4":
        end["layer_output_scale.weight"] = (1,)
    if each:
        end |= {"inp_gate.weight": (hidden, each), "proj.weight": (each, hidden), "post_norm.weight": (hidden,)}
    if shape.architecture == "gemma3n":
        end |= {
            "altup_correct_coef.weight": (altup, altup),
            "altup_correct_scale.weight": (hidden,),
            "altup_predict_coef.weight": (altup, altup * altup),
            "altup_router.weight": (hidden, altup),
            "altup_router_norm.weight": (hidden,),
            "laurel_l.weight": (hidden, _LAUREL_RANK_DIM),
            "laurel_r.weight": (_LAUREL_RANK_DIM, hidden),
            "laurel_post_norm.weight": (hidden,),
        }
    return end


def _norm(shape: ModelShape, name: str) -> Table:
    ends = ("weight", "bias") if shape.architecture in _WITH["norm_bias"] else ("weight",)
    return {f"{name}.{end}": (shape.hidden_dim,) for end in ends}


def _attention(shape: ModelShape, layer: int) -> Table:
    """Queries, keys, values and the way back: [hidden, heads x head_dim] and so on."""
    arch, hidden = shape.architecture, shape.hidden_dim
    sliding = shape.layer_kind(layer) == "sliding"
    head_dim = shape.sliding_head_dim if sliding and shape.sliding_head_dim else shape.head_dim
    kv_heads = shape.sliding_kv_head_count if sliding and shape.sliding_kv_head_count else shape.kv_head_count
    value_dim = head_dim if sliding and shape.sliding_head_dim else shape.value_head_dim or shape.head_dim
    query, key, value = shape.head_count * head_dim, kv_heads * head_dim, kv_heads * value_dim
    gated_query = 2 * query if arch in _DELTA_NET else query
    if arch in _WITH["fused_qkv"]:
        parts = {"attn_qkv": query + key + value}
    else:
        parts = {"attn_q": gated_query, "attn_k": key, "attn_v": value}
    if shape.values_are_keys and not sliding:
        del parts["attn_v"]
    if arch == "gemma4" and layer >= shape.layer_count - shape.kv_shared_layer_count:
        parts = {"attn_q": query}
    attention: Table = {}
    for name, width in parts.items():
        attention[f"{name}.weight"] = (hidden, width)
        if shape.attention_bias:
            attention[f"{name}.bias"] = (width,)
    attention["attn_output.weight"] = (shape.head_count * value_dim, hidden)
    if (shape.attention_bias and arch in {"gpt-oss", "phimoe"}) or arch in _WITH["projection_bias"]:
        attention["attn_output.bias"] = (hidden,)
    if arch == "gpt-oss":
        attention["attn_sinks.weight"] = (shape.head_count,)
    if arch == "bitnet":
        attention["attn_sub_norm.weight"] = (hidden,)
    if shape.qk_norm:
        full = arch in _WITH["full_width_qk_norm"]
        attention["attn_q_norm.weight"] = (query if full else head_dim,)
        if "attn_k" in parts or arch in _WITH["fused_qkv"]:
            attention["attn_k_norm.weight"] = (key if full else head_dim,)
    return attention


def _latent_attention(shape: ModelShape, latent: LatentAttention) -> Table:
    """Compressed queries and keys (MLA). ``attn_k_b`` and ``attn_v_b`` are stacks of one matrix a head."""
    hidden, heads, rank = shape.hidden_dim, shape.head_count, latent.kv_rank_dim
    head_dim = latent.nope_head_dim + latent.rope_head_dim
    attention: Table = {"attn_q.weight": (hidden, heads * head_dim)}
    if latent.q_rank_dim:
        attention = {
            "attn_q_a_norm.weight": (latent.q_rank_dim,),
            "attn_q_a.weight": (hidden, latent.q_rank_dim),
            "attn_q_b.weight": (latent.q_rank_dim, heads * head_dim),
        }
    attention["attn_kv_a_norm.weight"] = (rank,)
    attention["attn_kv_a_mqa.weight"] = (hidden, rank + latent.rope_head_dim)
    if shape.architecture == "minicpm3":
        attention["attn_kv_b.weight"] = (rank, heads * (latent.nope_head_dim + latent.value_head_dim))
    else:
        attention["attn_k_b.weight"] = (latent.nope_head_dim, rank, heads)
        attention["attn_v_b.weight"] = (rank, latent.value_head_dim, heads)
    if shape.indexer_layer_count:
        count, width = (
            32,
            INDEXER_DIM,
        )  # heads of the indexer, which chooses the tokens to attend to (GLM-5's config.json)
        attention |= {"indexer.k_norm.weight": (width,), "indexer.k_norm.bias": (width,)}
        attention |= {"indexer.proj.weight": (hidden, count), "indexer.attn_k.weight": (hidden, width)}
        attention["indexer.attn_q_b.weight"] = (latent.q_rank_dim, count * width)
    return attention | {"attn_output.weight": (heads * latent.value_head_dim, hidden)}


def _feed_forward(shape: ModelShape, layer: int) -> Table:
    arch, hidden, inner = shape.architecture, shape.hidden_dim, shape.feed_forward_dim
    if shape.kv_shared_feed_forward_dim and layer >= shape.layer_count - shape.kv_shared_layer_count:
        inner = shape.kv_shared_feed_forward_dim
    if not inner:
        return {}
    fused = arch in _WITH["fused_gate_up"]
    gate: Table = {"ffn_gate.weight": (hidden, inner)} if shape.gated_feed_forward and not fused else {}
    part = gate | {"ffn_up.weight": (hidden, 2 * inner if fused else inner), "ffn_down.weight": (inner, hidden)}
    if arch in _WITH["projection_bias"]:
        part |= {"ffn_up.bias": (inner,), "ffn_down.bias": (hidden,)}
    if arch == "bitnet":
        part["ffn_sub_norm.weight"] = (inner,)
    return part


def _experts(shape: ModelShape, experts: Experts) -> Table:
    """Router [hidden, experts] and the stacked experts [.., .., experts], which may work in a narrower width."""
    arch, hidden, inner, count = shape.architecture, shape.hidden_dim, experts.feed_forward_dim, experts.expert_count
    width = experts.latent_dim or hidden
    gates = ("gate", "up") if shape.gated_feed_forward else ("up",)
    part: Table = {"ffn_gate_inp.weight": (hidden, count)}
    if experts.latent_dim:
        part |= {"ffn_latent_down.weight": (hidden, width), "ffn_latent_up.weight": (width, hidden)}
    if arch == "gemma4":
        part["ffn_gate_inp.scale"] = (hidden,)
        part |= {f"{n}.weight": (hidden,) for n in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2")}
        part |= {"ffn_gate_up_exps.weight": (width, 2 * inner, count), "ffn_down_exps.scale": (count,)}
    else:
        part |= {f"ffn_{gate}_exps.weight": (width, inner, count) for gate in gates}
    part["ffn_down_exps.weight"] = (inner, width, count)
    if arch in _TABLES["sigmoid_routed"]:
        part["exp_probs_b.bias"] = (count,)
    if arch == "gpt-oss":
        part["ffn_gate_inp.bias"] = (count,)
        part |= dict.fromkeys(("ffn_gate_exps.bias", "ffn_up_exps.bias"), (inner, count))
        part["ffn_down_exps.bias"] = (hidden, count)
    if shared := experts.shared_feed_forward_dim or experts.shared_count * inner:
        if arch in {"qwen2moe", "qwen3next", "qwen35moe"}:
            part["ffn_gate_inp_shexp.weight"] = (hidden,)
        part |= {f"ffn_{gate}_shexp.weight": (hidden, shared) for gate in gates}
        part["ffn_down_shexp.weight"] = (shared, hidden)
    return part


def _recurrent(shape: ModelShape, recurrent: Recurrent) -> Table:
    hidden = shape.hidden_dim
    if shape.architecture in _DELTA_NET:
        return _delta_net(shape, recurrent)
    if shape.architecture in _WITH["short_convolution"]:
        return {
            "shortconv.conv.weight": (recurrent.conv_dim, hidden),
            "shortconv.in_proj.weight": (hidden, 3 * hidden),
            "shortconv.out_proj.weight": (hidden, hidden),
        }
    return (_mamba if shape.architecture in {"mamba", "jamba"} else _mamba2)(shape, recurrent)


def _mamba(shape: ModelShape, recurrent: Recurrent) -> Table:
    """Mamba-1 (Gu and Dao 2023); the rank of dt is ceil(hidden / 16)."""
    hidden, inner, state = shape.hidden_dim, recurrent.inner_dim, recurrent.state_dim
    rank = -(-hidden // 16)
    norms: Table = {"ssm_dt_norm.weight": (rank,), "ssm_b_norm.weight": (state,), "ssm_c_norm.weight": (state,)}
    return {
        "ssm_in.weight": (hidden, 2 * inner),
        "ssm_conv1d.weight": (recurrent.conv_dim, inner),
        "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (inner, rank + 2 * state),
        "ssm_dt.weight": (rank, inner),
        "ssm_dt.bias": (inner,),
        **(norms if shape.architecture == "jamba" else {}),
        "ssm_a": (state, inner),
        "ssm_d": (inner,),
        "ssm_out.weight": (inner, hidden),
    }


def _mamba2(shape: ModelShape, recurrent: Recurrent) -> Table:
    """Mamba-2 (Dao and Gu 2024): gate, x, B and C of each group, and dt of each head from one matrix."""
    hidden, inner, heads, groups = shape.hidden_dim, recurrent.inner_dim, recurrent.head_count, recurrent.group_count
    conv = inner + 2 * groups * recurrent.state_dim
    return {
        "ssm_in.weight": (hidden, inner + conv + heads),
        "ssm_conv1d.weight": (recurrent.conv_dim, conv),
        "ssm_conv1d.bias": (conv,),
        "ssm_dt.bias": (heads,),
        "ssm_a": (1, heads),
        "ssm_d": (1, heads),
        "ssm_norm.weight": (inner // groups, groups),
        "ssm_out.weight": (inner, hidden),
    }


def _delta_net(shape: ModelShape, recurrent: Recurrent) -> Table:
    """Gated delta net (Qwen3-Next): heads of width ``state_dim``; key heads = groups, value heads = heads."""
    hidden, heads = shape.hidden_dim, recurrent.head_count
    key, value = recurrent.state_dim * recurrent.group_count, recurrent.state_dim * heads
    fused: Table = {"ssm_ba.weight": (hidden, 2 * heads)}
    apart: Table = {"ssm_beta.weight": (hidden, heads), "ssm_alpha.weight": (hidden, heads)}
    return {
        "attn_qkv.weight": (hidden, 2 * key + value),
        "attn_gate.weight": (hidden, value),
        "ssm_conv1d.weight": (recurrent.conv_dim, 2 * key + value),
        "ssm_dt.bias": (heads,),
        "ssm_a": (heads,),
        **(fused if shape.architecture == "qwen3next" else apart),
        "ssm_norm.weight": (recurrent.state_dim,),
        "ssm_out.weight": (value, hidden),
    }
