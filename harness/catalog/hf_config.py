"""From a model's published config.json to its shape.

Source: the configuration classes of the transformers library, and llama.cpp's convert_hf_to_gguf.py for which family
becomes which architecture.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from harness.catalog._gguf_shape import ARCHITECTURES, SLIDING_STEPS, Keys
from harness.catalog._shape_check import check_shape
from harness.domain.foreign import json_of, read_limited, say
from harness.domain.model import Experts, LatentAttention, ModelShape, Recurrent
from harness.errors import BadDataError

CONFIG_MAX_BYTES: Final = 4 << 20

_TYPES: Final[dict[str, str]] = ARCHITECTURES["of_config"]
_LETTERS: Final[dict[str, str]] = ARCHITECTURES["layer_letters"]


def read_hf_config(path: Path) -> ModelShape:
    """Shape of the model that a config.json describes; BadDataError: no JSON, too large, or as ``shape_of``."""
    data = read_limited(path, CONFIG_MAX_BYTES, "a config.json")
    return shape_of(json_of(data, path, "a config.json"), path)


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
        raise BadDataError(source, "model_type", say(kind), f"one of: {', '.join(sorted(_TYPES))}")
    return check_shape(_Config(source, _TYPES[kind], document, form="config").shape(), source)


class _Config(Keys):
    def flag(self, key: str, *, default: bool) -> bool:
        """A yes or no."""
        value = self.values.get(key)
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
        fields: dict[str, Any] = self.part("shape")
        hidden = fields["hidden_dim"]
        latent, experts, recurrent = self.latent(), self.experts(), self.recurrent(hidden)
        pattern = self.pattern(recurrent)
        pure = recurrent is not None and recurrent.attention_step_count == 0 and not pattern
        heads = 0 if pure else self.number("num_attention_heads")
        if heads == 0 and not pure:
            raise BadDataError(self.source, "num_attention_heads", "0", "at least 1")
        head = 0 if pure else self.number("head_dim", hidden // max(1, heads))
        kv_heads = 0 if pure else self.number("num_key_value_heads", heads)
        if latent:
            head, kv_heads = latent.nope_head_dim + latent.rope_head_dim, heads
        window, step = self.sliding()
        own = self.architecture == "gemma4"
        if own:  # its plain figures are those of the sliding layers
            fields["sliding_head_dim"], sliding_kv_heads = head, kv_heads
            head = self.number("global_head_dim", head)
            kv_heads = self.number("num_global_key_value_heads", kv_heads)
            fields["sliding_kv_head_count"] = sliding_kv_heads * (kv_heads != sliding_kv_heads)
        all_moe = experts is not None and experts.dense_layer_count == 0 and experts.layer_step_count == 1
        if self.architecture == "nemotron_h" and experts:
            self.architecture, all_moe = "nemotron_h_moe", True
        inner = 0 if pure or all_moe else self.inner_dim()
        wide = own and fields["kv_shared_layer_count"] and self.flag("use_double_wide_mlp", default=False)
        return ModelShape(
            **fields,
            architecture=self.architecture,
            head_count=heads,
            kv_head_count=kv_heads,
            head_dim=head,
            value_head_dim=latent.value_head_dim if latent and latent.value_head_dim != head else 0,
            feed_forward_dim=inner,
            gated_feed_forward=not self.has("ungated"),
            tied_embeddings=self.flag("tie_word_embeddings", default=self.has("tied") or pure),
            sliding_window_tokens=window,
            sliding_step_count=step,
            attention_bias=self.flag("attention_bias", default=self.has("biased")),
            qk_norm=self.has("qk_normed") or self.flag("use_qk_norm", default=False),
            experts=experts,
            latent=latent,
            recurrent=recurrent,
            kv_shared_feed_forward_dim=2 * inner if wide else 0,
            values_are_keys=own and self.flag("attention_k_eq_v", default=False),
            layer_pattern=pattern,
        )

    def inner_dim(self) -> int:
        """Inner width of the feed-forward block; LFM2 may state one of which two thirds are used, rounded up."""
        inner = self.number("intermediate_size", "block_ff_dim", 0)
        if self.architecture not in {"lfm2"} or not self.flag("block_auto_adjust_ff_dim", default=False):
            return inner
        step = self.number("block_multiple_of", 256)
        return -(-(2 * inner // 3) // step) * step

    def pattern(self, recurrent: Recurrent | None) -> str:
        """The kinds of the layers where attention follows no period between recurrent ones."""
        if recurrent is None or recurrent.attention_step_count or self.has("delta_net"):
            return ""
        kinds = self.values.get("hybrid_override_pattern") or self.values.get("layers_block_type")
        kinds = kinds or self.values.get("layer_types") or ""
        if not isinstance(kinds, str | list) or any(kind not in _LETTERS for kind in kinds):
            raise BadDataError(self.source, "layer_types", repr(kinds)[:60], f"kinds of {', '.join(_LETTERS)}")
        return "".join(_LETTERS[kind] for kind in kinds)

    def sliding(self) -> tuple[int, int]:
        """Window of the local layers, and every so manyth layer that is global."""
        window = self.number("sliding_window", 0)
        if not window or not self.flag("use_sliding_window", default=True):
            return 0, 0
        kinds = self.values.get("layer_types")
        if isinstance(kinds, list) and kinds:
            if "sliding_attention" not in kinds:
                return 0, 0
            return window, next((i + 1 for i, kind in enumerate(kinds) if kind == "full_attention"), 0)
        return window, self.number("sliding_window_pattern", SLIDING_STEPS.get(self.architecture, 0))

    def experts(self) -> Experts | None:
        """The routed part, if any."""
        if self.number(*self.keys["experts"]["expert_count"]) <= 1:
            return None
        routed = self.routed()
        return Experts(**routed | {"layer_step_count": routed["layer_step_count"] or 1})

    def latent(self) -> LatentAttention | None:
        """Latent attention, if any."""
        return LatentAttention(**self.part("latent")) if self.number("kv_lora_rank", 0) else None

    def recurrent(self, hidden: int) -> Recurrent | None:
        """State-space layers, if any."""
        kind = ARCHITECTURES["recurrent"].get(self.architecture)
        if kind is None:
            return None
        fields = self.part(kind)
        inner = fields.pop("expand", 0) * hidden or fields["head_count"] * fields.pop("head_dim")
        fields["inner_dim"] = fields.get("inner_dim") or inner
        step, offset = 0, 0
        if kind == "delta_net":
            step = self.number("full_attention_interval", 4)
            offset = step - 1
        elif kind == "hybrid":
            step, offset = self.period()
        return Recurrent(**fields, attention_step_count=step, attention_offset_count=offset)

    def period(self) -> tuple[int, int]:
        """Step and first index of the attention layers of a hybrid; 0 where its pattern tells."""
        kinds = self.values.get("layer_types")
        if not isinstance(kinds, list) or "attention" not in kinds:
            return self.number("attn_layer_period", 1), self.number("attn_layer_offset", 0)
        places = [i for i, kind in enumerate(kinds) if kind == "attention"]
        steps = {b - a for a, b in pairwise(places)} or {len(kinds)}
        return (steps.pop(), places[0]) if len(steps) == 1 else (0, 0)
