"""Published config.json files against the shapes of the same models' cards, and against hostile ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from harness.catalog.hf_config import read_hf_config, shape_of
from harness.catalog.names import load_model
from harness.errors import BadDataError

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
        ({"hidden_size": "4096"}, "hidden_size"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"vocab_size": 1 << 60}, "vocab_size"),
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
