"""Published config.json files against the shapes of the same models' cards, and against hostile ones."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from harness.core.errors import BadDataError
from harness.models.hf_config import read_hf_config, shape_of
from harness.models.names import load_model
from harness.models.weights import tensors_of

LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    "tie_word_embeddings": False, "attention_bias": False,
}  # fmt: skip
QWEN_CODER = {
    "model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12,
    "num_hidden_layers": 28, "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768,
    "tie_word_embeddings": True, "sliding_window": 32768, "use_sliding_window": False,
}  # fmt: skip
GEMMA_270M = {
    "model_type": "gemma3_text", "hidden_size": 640, "intermediate_size": 2048, "num_attention_heads": 4,
    "num_hidden_layers": 18, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144,
    "max_position_embeddings": 32768, "sliding_window": 512,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3,
}  # fmt: skip
MIXTRAL = {
    "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 32768,
    "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None,
}  # fmt: skip
DEEPSEEK_V3 = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
    "num_attention_heads": 128, "num_key_value_heads": 128, "num_hidden_layers": 61, "vocab_size": 129280,
    "max_position_embeddings": 163840, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
    "first_k_dense_replace": 3, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128, "v_head_dim": 128,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "name"),
    [(LLAMA_8B, "llama-3.1-8b"), (QWEN_CODER, "qwen2.5-coder-1.5b"), (GEMMA_270M, "gemma-3-270m")],
)
def test_a_published_config_gives_the_card_s_shape(tmp_path: Path, config: dict[str, Any], name: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))

    assert read_hf_config(path) == load_model(name).shape


def test_experts_and_latent_attention() -> None:
    mixtral, deepseek = shape_of(MIXTRAL), shape_of(DEEPSEEK_V3)

    assert mixtral.experts is not None
    assert (mixtral.experts.expert_count, mixtral.experts.used_count) == (8, 2)
    assert mixtral.experts.feed_forward_dim == 14336
    assert mixtral.sliding_window_tokens == 0
    assert deepseek.latent is not None
    assert (deepseek.latent.kv_rank_dim, deepseek.head_dim) == (512, 192)  # 128 + 64
    assert deepseek.experts is not None
    assert (deepseek.experts.dense_layer_count, deepseek.experts.shared_feed_forward_dim) == (3, 2048)


def test_the_text_part_of_a_multimodal_model_is_taken() -> None:
    shape = shape_of({"model_type": "gemma3", "text_config": GEMMA_270M, "vision_config": {}})

    assert shape == replace(load_model("gemma-3-270m").shape)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mystery"}, "model_type"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"hidden_size": 0}, "hidden_size: found 0, expected at least 1"),
        ({"hidden_size": "4096"}, "hidden_size"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"vocab_size": 1 << 60}, "vocab_size"),
        ({"num_hidden_layers": 100_001}, "num_hidden_layers"),
        ({"num_experts": 2, "num_experts_per_tok": 0}, "num_experts_per_tok"),
        ({"model_type": "gemma2", "sliding_window": 8, "layer_types": ["sliding_attention"]}, "layer_types"),
    ],
)
def test_nonsense_names_its_field(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadDataError, match=words):
        shape_of({**LLAMA_8B, **change}, "x/config.json")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"x"', "\xff"])
def test_what_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(BadDataError, match=r"config\.json"):
        read_hf_config(path)


def _kinds(count: int, others: dict[int, str], usual: str) -> list[str]:
    return [others.get(i, usual) for i in range(count)]


# Configurations as published (read in copies of them), and the parameters that llama-bench prints of the model (10**9).
THIS_YEAR = {
    "glm-4.7-flash": (
        {"model_type": "glm4_moe_lite", "hidden_size": 2048, "intermediate_size": 10240, "moe_intermediate_size": 1536,
         "num_attention_heads": 20, "num_key_value_heads": 20, "n_routed_experts": 64, "n_shared_experts": 1,
         "num_experts_per_tok": 4, "first_k_dense_replace": 1, "num_hidden_layers": 47, "q_lora_rank": 768,
         "kv_lora_rank": 512, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256, "head_dim": 64,
         "vocab_size": 154880, "max_position_embeddings": 202752, "tie_word_embeddings": False},
        29.94,
    ),
    "gemma-4-31b": (
        {"model_type": "gemma4", "text_config": {
            "model_type": "gemma4_text", "hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 60,
            "num_attention_heads": 32, "num_key_value_heads": 16, "num_global_key_value_heads": 4, "head_dim": 256,
            "global_head_dim": 512, "attention_k_eq_v": True, "hidden_size_per_layer_input": 0, "sliding_window": 1024,
            "layer_types": _kinds(60, dict.fromkeys(range(5, 60, 6), "full_attention"), "sliding_attention"),
            "vocab_size": 262144, "max_position_embeddings": 262144, "num_kv_shared_layers": 0}},
        30.70,
    ),
    "nemotron-3-nano-30b-a3b": (
        {"model_type": "nemotron_h", "hidden_size": 2688, "intermediate_size": 1856, "moe_intermediate_size": 1856,
         "moe_shared_expert_intermediate_size": 3712, "n_routed_experts": 128, "n_shared_experts": 1,
         "num_experts_per_tok": 6, "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128,
         "num_hidden_layers": 52, "mamba_num_heads": 64, "mamba_head_dim": 64, "n_groups": 8, "ssm_state_size": 128,
         "conv_kernel": 4, "vocab_size": 131072, "max_position_embeddings": 262144, "tie_word_embeddings": False,
         "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"},
        31.58,
    ),
    "lfm2-2.6b": (
        {"model_type": "lfm2", "block_auto_adjust_ff_dim": False, "block_ff_dim": 10752, "block_multiple_of": 256,
         "intermediate_size": 10752, "hidden_size": 2048, "num_hidden_layers": 30, "num_attention_heads": 32,
         "num_key_value_heads": 8, "conv_L_cache": 3, "vocab_size": 65536, "max_position_embeddings": 128000,
         "layer_types": _kinds(30, dict.fromkeys((2, 5, 9, 13, 17, 21, 24, 27), "full_attention"), "conv")},
        2.57,
    ),
    "lfm2.5-1.2b": (
        {"model_type": "lfm2", "block_auto_adjust_ff_dim": True, "block_ff_dim": 12288, "block_multiple_of": 256,
         "intermediate_size": 12288, "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32,
         "num_key_value_heads": 8, "conv_L_cache": 3, "vocab_size": 65536, "max_position_embeddings": 128000,
         "layer_types": _kinds(16, dict.fromkeys((2, 5, 8, 10, 12, 14), "full_attention"), "conv")},
        1.17,
    ),
    "granite-4.0-h-350m": (
        {"model_type": "granitemoehybrid", "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 32,
         "num_attention_heads": 12, "num_key_value_heads": 4, "num_local_experts": 0, "num_experts_per_tok": 0,
         "mamba_d_conv": 4, "mamba_d_state": 128, "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": 48,
         "layer_types": _kinds(32, dict.fromkeys((10, 13, 17, 27), "attention"), "mamba"),
         "vocab_size": 100352, "max_position_embeddings": 131072, "tie_word_embeddings": True},
        0.34,
    ),
    "ministral-3-3b": (
        {"model_type": "ministral3", "head_dim": 128, "hidden_size": 3072, "intermediate_size": 9216,
         "num_attention_heads": 32, "num_hidden_layers": 26, "num_key_value_heads": 8, "sliding_window": None,
         "tie_word_embeddings": True, "vocab_size": 131072, "max_position_embeddings": 262144},
        3.43,
    ),
    "minimax-m2.1": (
        {"model_type": "minimax_m2", "hidden_size": 3072, "intermediate_size": 1536, "num_hidden_layers": 62,
         "num_attention_heads": 48, "num_key_value_heads": 8, "head_dim": 128, "num_local_experts": 256,
         "num_experts_per_tok": 8, "use_qk_norm": True, "vocab_size": 200064, "max_position_embeddings": 196608,
         "tie_word_embeddings": False},
        228.69,
    ),
    "qwen3.5-2b": (
        {"model_type": "qwen3_5_text", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24,
         "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "full_attention_interval": 4,
         "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
         "linear_num_key_heads": 16, "linear_num_value_heads": 16, "vocab_size": 248320,
         "max_position_embeddings": 262144, "tie_word_embeddings": True},
        1.88,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", THIS_YEAR)
def test_configurations_of_this_year(name: str) -> None:
    """The shape is that of the card, and it has the parameters that llama-bench prints."""
    document, params_b = THIS_YEAR[name]
    shape = shape_of(document)

    assert shape == load_model(name).shape
    assert sum(math.prod(dims) for dims in tensors_of(shape).values()) / 1e9 == pytest.approx(params_b, rel=0.005)


def test_a_layer_of_an_unknown_kind_is_refused() -> None:
    document = dict(THIS_YEAR["lfm2-2.6b"][0]) | {"layer_types": ["conv"] * 29 + ["wavelet"]}
    with pytest.raises(BadDataError, match="layer_types"):
        shape_of(document)
