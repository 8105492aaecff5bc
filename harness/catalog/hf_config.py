"""From a model's published config.json to its shape.

Source: the configuration classes of the transformers library, and llama.cpp's convert_hf_to_gguf.py for which family
becomes which architecture.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec

from harness.catalog._gguf_shape import ARCHITECTURES, SLIDING_STEPS
from harness.catalog._shape_check import check_shape
from harness.domain.model import Experts, LatentAttention, ModelShape, Recurrent
from harness.errors import BadDataError

CONFIG_MAX_BYTES: Final = 4 << 20

_TYPES: Final[dict[str, str]] = ARCHITECTURES["of_config"]
_LETTERS: Final[dict[str, str]] = ARCHITECTURES["layer_letters"]


def read_hf_config(path: Path) -> ModelShape:
    """Shape of the model that a config.json describes.

    Raises:
        BadDataError: Not readable, too large, no JSON, or ``shape_of``'s reasons.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(CONFIG_MAX_BYTES + 1)
    except OSError as error:
        raise BadDataError(path, "", error.strerror or str(error), "a readable config.json") from error
    if len(data) > CONFIG_MAX_BYTES:
        raise BadDataError(path, "", f"more than {CONFIG_MAX_BYTES} bytes", "a config.json")
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadDataError(path, "", f"no JSON ({error})", "a config.json") from error
    return shape_of(document, path)


def shape_of(document: Any, source: Path | str = "config.json") -> ModelShape:
    """The same from a document already parsed; the text part of a multimodal model is taken.

    Raises:
        BadDataError: An unknown ``model_type``, or a field that is missing or makes no sense.
    """
    if not isinstance(document, Mapping):
        raise BadDataError(source, "", type(document).__name__, "a JSON object")
    inner = document.get("text_config")
    if isinstance(inner, Mapping):
        document = {**{k: document[k] for k in ("tie_word_embeddings",) if k in document}, **inner}
    kind = document.get("model_type")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise BadDataError(source, "model_type", repr(kind)[:60], f"one of: {', '.join(sorted(_TYPES))}")
    return check_shape(_Config(source, document, _TYPES[kind]).shape(), source)


class _Config:
    """One config.json, read with checks."""

    def __init__(self, source: Path | str, document: Mapping[str, Any], architecture: str) -> None:
        self.source, self.document, self.architecture = source, document, architecture

    def number(self, *keys: str, default: int | None = None) -> int:
        """The first of ``keys`` there is, as a whole number."""
        for key in keys:
            value = self.document.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 40:
                raise BadDataError(self.source, key, repr(value)[:60], "a whole number from 0 to 2**40")
            return value
        if default is None:
            raise BadDataError(self.source, keys[0], "no such key", "a whole number")
        return default

    def flag(self, key: str, *, default: bool) -> bool:
        """A yes or no."""
        value = self.document.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise BadDataError(self.source, key, repr(value)[:60], "true or false")
        return value

    def has(self, trait: str) -> bool:
        """Whether the architecture is in that list of ``architectures.toml``."""
        return self.architecture in ARCHITECTURES[trait]

    def shape(self) -> ModelShape:
        """Everything together."""
        hidden = self.number("hidden_size", "d_model")
        layers = self.number("num_hidden_layers", "n_layer")
        latent, experts, recurrent = self.latent(), self.experts(), self.recurrent(hidden)
        pattern = self.pattern(recurrent)
        pure = recurrent is not None and recurrent.attention_step_count == 0 and not pattern
        heads = 0 if pure else self.number("num_attention_heads")
        if heads == 0 and not pure:
            raise BadDataError(self.source, "num_attention_heads", "0", "at least 1")
        head = 0 if pure else self.number("head_dim", default=hidden // max(1, heads))
        kv_heads = 0 if pure else self.number("num_key_value_heads", default=heads)
        if latent:
            head, kv_heads = latent.nope_head_dim + latent.rope_head_dim, heads
        window, step = self.sliding()
        own = self.architecture == "gemma4"
        if own:  # its plain figures are those of the sliding layers
            sliding = {"sliding_head_dim": head, "sliding_kv_head_count": kv_heads}
            head = self.number("global_head_dim", default=head)
            kv_heads = self.number("num_global_key_value_heads", default=kv_heads)
            sliding["sliding_kv_head_count"] *= kv_heads != sliding["sliding_kv_head_count"]
        all_moe = experts is not None and experts.dense_layer_count == 0 and experts.layer_step_count == 1
        if self.architecture == "nemotron_h" and experts:
            self.architecture, all_moe = "nemotron_h_moe", True
        inner = 0 if pure or all_moe else self.inner_dim()
        shared_layers = self.number("num_kv_shared_layers", default=0)
        wide = own and shared_layers and self.flag("use_double_wide_mlp", default=False)
        return ModelShape(
            architecture=self.architecture,
            layer_count=layers,
            hidden_dim=hidden,
            vocab_count=self.number("vocab_size"),
            head_count=heads,
            kv_head_count=kv_heads,
            head_dim=head,
            value_head_dim=latent.value_head_dim if latent and latent.value_head_dim != head else 0,
            feed_forward_dim=inner,
            gated_feed_forward=not self.has("ungated"),
            tied_embeddings=self.flag("tie_word_embeddings", default=self.has("tied") or pure),
            context_max_tokens=self.number("max_position_embeddings", default=0),
            sliding_window_tokens=window,
            sliding_step_count=step,
            attention_bias=self.flag("attention_bias", default=self.has("biased")),
            qk_norm=self.has("qk_normed") or self.flag("use_qk_norm", default=False),
            experts=experts,
            latent=latent,
            recurrent=recurrent,
            kv_shared_layer_count=shared_layers,
            kv_shared_feed_forward_dim=2 * inner if wide else 0,
            values_are_keys=own and self.flag("attention_k_eq_v", default=False),
            per_layer_input_dim=self.number("hidden_size_per_layer_input", default=0),
            layer_pattern=pattern,
            **(sliding if own else {}),
        )

    def inner_dim(self) -> int:
        """Inner width of the feed-forward block; LFM2 may state one of which two thirds are used, rounded up."""
        inner = self.number("intermediate_size", "block_ff_dim", default=0)
        if self.architecture not in {"lfm2"} or not self.flag("block_auto_adjust_ff_dim", default=False):
            return inner
        step = self.number("block_multiple_of", default=256)
        return -(-(2 * inner // 3) // step) * step

    def pattern(self, recurrent: Recurrent | None) -> str:
        """The kinds of the layers where attention follows no period between recurrent ones."""
        if recurrent is None or recurrent.attention_step_count or self.has("delta_net"):
            return ""
        kinds = self.document.get("hybrid_override_pattern") or self.document.get("layers_block_type")
        kinds = kinds or self.document.get("layer_types") or ""
        if not isinstance(kinds, str | list) or any(kind not in _LETTERS for kind in kinds):
            raise BadDataError(self.source, "layer_types", repr(kinds)[:60], f"kinds of {', '.join(_LETTERS)}")
        return "".join(_LETTERS[kind] for kind in kinds)

    def sliding(self) -> tuple[int, int]:
        """Window of the local layers, and every so manyth layer that is global."""
        window = self.number("sliding_window", default=0)
        if not window or not self.flag("use_sliding_window", default=True):
            return 0, 0
        kinds = self.document.get("layer_types")
        if isinstance(kinds, list) and kinds:
            if "sliding_attention" not in kinds:
                return 0, 0
            return window, next((i + 1 for i, kind in enumerate(kinds) if kind == "full_attention"), 0)
        step = self.number("sliding_window_pattern", default=SLIDING_STEPS.get(self.architecture, 0))
        return window, step

    def experts(self) -> Experts | None:
        """The routed part, if any."""
        count = self.number("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts", default=0)
        if count <= 1:
            return None
        width = self.number("moe_intermediate_size", "intermediate_size")
        shared = self.number("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", default=0)
        shared_width = self.number(
            "shared_expert_intermediate_size", "shared_intermediate_size", "moe_shared_expert_intermediate_size",
            default=shared * width,
        )  # fmt: skip
        return Experts(
            expert_count=count,
            used_count=self.number("num_experts_per_tok", "experts_per_token", "top_k_experts", "moe_k"),
            feed_forward_dim=width,
            shared_count=shared or (1 if shared_width else 0),
            shared_feed_forward_dim=shared_width,
            dense_layer_count=self.number(
                "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", default=0
            ),
            latent_dim=self.number("moe_latent_size", default=0),
            layer_step_count=self.number("decoder_sparse_step", "interleave_moe_layer_step", default=1) or 1,
        )

    def latent(self) -> LatentAttention | None:
        """Latent attention, if any."""
        rank = self.number("kv_lora_rank", default=0)
        if not rank:
            return None
        return LatentAttention(
            q_rank_dim=self.number("q_lora_rank", default=0),
            kv_rank_dim=rank,
            rope_head_dim=self.number("qk_rope_head_dim"),
            nope_head_dim=self.number("qk_nope_head_dim"),
            value_head_dim=self.number("v_head_dim"),
        )

    def recurrent(self, hidden: int) -> Recurrent | None:
        """State-space layers, if any."""
        a = self.architecture
        if a in {"mamba", "mamba2"}:
            inner = self.number("intermediate_size", default=self.number("expand", default=2) * hidden)
            heads = self.number("num_heads", default=0) if a == "mamba2" else 0
            return Recurrent(
                inner_dim=inner,
                state_dim=self.number("state_size", default=16),
                conv_dim=self.number("conv_kernel", default=4),
                group_count=self.number("n_groups", default=1),
                head_count=heads,
            )
        if a in {"lfm2", "lfm2moe"}:
            return Recurrent(inner_dim=hidden, state_dim=0, conv_dim=self.number("conv_L_cache", default=3))
        if a == "nemotron_h":
            heads = self.number("mamba_num_heads")
            return Recurrent(
                inner_dim=heads * self.number("mamba_head_dim"),
                state_dim=self.number("ssm_state_size", default=128),
                conv_dim=self.number("conv_kernel", default=4),
                group_count=self.number("n_groups", default=8),
                head_count=heads,
            )
        if a in ARCHITECTURES["delta_net"]:
            step = self.number("full_attention_interval", default=4)
            heads = self.number("linear_num_value_heads")
            return Recurrent(
                inner_dim=heads * self.number("linear_value_head_dim"),
                state_dim=self.number("linear_key_head_dim"),
                conv_dim=self.number("linear_conv_kernel_dim", default=4),
                group_count=self.number("linear_num_key_heads"),
                head_count=heads,
                attention_step_count=step,
                attention_offset_count=step - 1,
            )
        if a in {"jamba", "granitehybrid", "falcon-h1"}:
            return self.hybrid(hidden)
        return None

    def hybrid(self, hidden: int) -> Recurrent:
        """State-space layers with attention layers between them."""
        inner = self.number("mamba_d_ssm", default=self.number("mamba_expand", default=2) * hidden)
        kinds = self.document.get("layer_types")
        if isinstance(kinds, list) and "attention" in kinds:
            places = [i for i, kind in enumerate(kinds) if kind == "attention"]
            steps = {b - a for a, b in pairwise(places)} or {len(kinds)}
            step, offset = (steps.pop(), places[0]) if len(steps) == 1 else (0, 0)  # 0: the pattern tells
        else:
            step = self.number("attn_layer_period", default=1)
            offset = self.number("attn_layer_offset", default=0)
        return Recurrent(
            inner_dim=inner,
            state_dim=self.number("mamba_d_state", default=16),
            conv_dim=self.number("mamba_d_conv", default=4),
            group_count=self.number("mamba_n_groups", default=1),
            head_count=self.number("mamba_n_heads", default=0),
            attention_step_count=step,
            attention_offset_count=offset,
        )
