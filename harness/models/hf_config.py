"""From a model's published config.json to its shape.

Source: the configuration classes of the transformers library, and llama.cpp's convert_hf_to_gguf.py for which
family becomes which architecture.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness.core.errors import BadDataError
from harness.core.foreign import json_in, say
from harness.core.model import ModelShape
from harness.models.architecture import OF_CONFIG, architecture_named, has
from harness.models.gguf_shape import KEYS, LAYERS_MAX, Header, Keys
from harness.models.shape_check import check_shape

CONFIG_MAX_BYTES: Final = 4 << 20

_LETTERS: Final[dict[str, str]] = KEYS["layer_letters"]


def read_hf_config(path: Path) -> ModelShape:
    """Shape of the model that a config.json describes.

    Raises:
        BadDataError: The file is no JSON or too large, or ``shape_of`` finds a field missing or wrong.
    """
    return shape_of(json_in(path, "a config.json", CONFIG_MAX_BYTES), path)


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
    if not isinstance(kind, str) or kind not in OF_CONFIG:
        raise BadDataError(source, "model_type", say(kind), f"one of: {', '.join(sorted(OF_CONFIG))}")
    return check_shape(_Config(source, OF_CONFIG[kind], document).shape(), source)


class _Config(Keys):
    """A configuration, told by the keys that llama.cpp's converter writes of it into a file's header."""

    def flag(self, key: str, *, default: bool) -> bool:
        """A yes or no."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise BadDataError(self.source, key, repr(value)[:60], "true or false")
        return value

    def shape(self) -> ModelShape:
        """Everything together."""
        layer_count = self.number(*KEYS["config"]["shape"]["block_count"], most=LAYERS_MAX)
        header: dict[str, Any] = self.part("shape")
        kind = architecture_named(self.architecture).recurrent
        layers = self.layers(kind, layer_count)
        pure = bool(kind) and kind != "delta_net" and not layers
        own = has(self.architecture, "own_full_heads")
        if not pure:
            header |= self.part("attention")
            if not header["attention.head_count"]:
                raise BadDataError(self.source, "num_attention_heads", "0", "at least 1")
        if own:  # its plain figures are those of the sliding layers
            header |= self.part("full_attention")
        if self.number("kv_lora_rank", 0):
            header |= self.part("latent")
            header["attention.key_length_mla"] += header["rope.dimension_count"]
        if kind:
            header |= self.recurrent(kind, header["embedding_length"])
        routes = self.number(*KEYS["config"]["experts"]["expert_count"]) > 1
        experts = self.part("experts") if routes else {}
        header |= experts
        everywhere = (
            experts and not experts["leading_dense_block_count"] and experts["interleave_moe_layer_step"] <= 1
        )
        with_experts = architecture_named(self.architecture).with_experts
        if experts and with_experts:
            self.architecture = with_experts
            everywhere = True
        if not pure and not everywhere:
            header["feed_forward_length"] = self.inner_dims(layer_count, own=own)
        # What is 0 is left to the header's reader, which knows what that stands for.
        header = {key: value for key, value in (header | self.sliding()).items() if value}
        traits = {
            "gated_feed_forward": not has(self.architecture, "ungated"),
            "tied_embeddings": self.flag(
                "tie_word_embeddings", default=has(self.architecture, "tied") or pure
            ),
            "attention_bias": self.flag("attention_bias", default=has(self.architecture, "biased")),
            "qk_norm": has(self.architecture, "qk_normed") or self.flag("use_qk_norm", default=False),
            "values_are_keys": own and self.flag("attention_k_eq_v", default=False),
        }
        try:
            return Header(self.source, self.architecture, header, letters=layers).shape(traits)
        except BadDataError as error:
            key = self.written(error.field)
            if self.values.get(key) == 0:
                raise BadDataError(self.source, key, "0", "at least 1") from error
            raise BadDataError(self.source, key, error.found, error.expected) from error

    def written(self, key: str) -> str:
        """The key of config.json that gave a header's; itself where none did."""
        tables = KEYS["config"].values()
        return next((name for table in tables for name in table.get(key, ()) if name in self.values), key)

    def inner_dims(self, layer_count: int, *, own: bool) -> int | tuple[int, ...]:
        """Inner width of the feed-forward block; LFM2 may state one of which two thirds are used, rounded up.

        Gemma 4's (``own``) may be twice as wide in the layers that share keys and values: one for each block
        then.
        """
        inner = self.number("intermediate_size", "block_ff_dim", 0)
        if self.flag("block_auto_adjust_ff_dim", default=False):
            step = self.number("block_multiple_of", 256)
            return -(-(2 * inner // 3) // step) * step
        sharing = self.number("num_kv_shared_layers", 0, most=layer_count)
        if own and sharing and self.flag("use_double_wide_mlp", default=False):
            return (inner,) * (layer_count - sharing) + (2 * inner,) * sharing
        return inner

    def layers(self, kind: str, layer_count: int) -> str:
        """Letters of a hybrid's layers; empty where an interval tells, or every layer is alike."""
        if not kind or kind == "delta_net":
            return ""
        kinds = self.values.get("hybrid_override_pattern") or self.values.get("layers_block_type")
        kinds = kinds or self.values.get("layer_types") or ""
        if not isinstance(kinds, str | list) or any(str(kind) not in _LETTERS for kind in kinds):
            raise BadDataError(
                self.source, "layer_types", repr(kinds)[:60], f"kinds of {', '.join(_LETTERS)}"
            )
        if kind == "hybrid" and not kinds:
            step = self.number("attn_layer_period", 1) or 1
            offset = self.number("attn_layer_offset", 0)
            kinds = ["attention" if i % step == offset % step else "conv" for i in range(layer_count)]
        return "".join(_LETTERS[kind] for kind in kinds)

    def sliding(self) -> dict[str, Any]:
        """Window of the local layers, and which of them slide: a flag each, or every so manyth that does not."""
        window = self.number("sliding_window", 0)
        listed = self.values.get("layer_types")
        kinds: list[Any] = listed if isinstance(listed, list) else []
        if not self.flag("use_sliding_window", default=True) or (kinds and "sliding_attention" not in kinds):
            return {}
        step = self.number("sliding_window_pattern", 0)
        slides = tuple(kind == "sliding_attention" for kind in kinds if window)
        return {"attention.sliding_window": window, "attention.sliding_window_pattern": slides or step}

    def recurrent(self, kind: str, hidden: int) -> dict[str, int]:
        """State-space layers."""
        keys = self.part(kind)
        inner = keys.pop("expand", 0) * hidden or keys["ssm.time_step_rank"] * keys.pop("head_dim")
        return {"ssm.inner_size": inner} | {key: value for key, value in keys.items() if value}
