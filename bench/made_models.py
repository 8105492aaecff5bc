"""Model files with random weights at true shapes, for tests and for what is checked against real engines here.

They have the size and the speed of the model, and no meaning. The tensors are those of the real model, name by name
and type by type.

A router of random weights behind random blocks chooses nearly the same experts for every token: nothing like
a trained model. In a mixture of experts the norms before attention and before the experts are therefore
small, and with them what blocks add: a hidden state stays that of its own token, and the router's logits are
standard normal noise, drawn anew for each token of the vocabulary. Experts are chosen evenly, which is the
worst case for a cache of them. Where the token table is the output matrix too, greedy output still repeats
one token.

Source: llama.cpp, src/llama-arch.cpp (names of the keys) and src/models (which architecture reads which).
"""

from pathlib import Path
from typing import IO, Final

import numpy as np

from harness.core.model import ModelShape, Tensor, Weights
from harness.models.facts import MODEL_WORDS, amount, checked_rows, holds, model_facts
from harness.models.gguf import SYNTHETIC_KEY
from harness.models.gguf_write import Value, write_gguf
from harness.models.quant import MIXTURES
from harness.models.random_weights import BlockSource

_FIXED_TOKEN_COUNT: Final = 260
"""Three special tokens, 256 bytes, and one that llama.cpp looks up by name in models of the Phi family."""
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_ROWS: Final = checked_rows("metadata.csv", MODEL_WORDS, sums=("whole",), package="bench")
_MIXTURE_NORM: Final = 1e-3
"""Weights of the norms before attention and experts: over a model's depth blocks then add less than a token's
state."""


def synthesize(weights: Weights, path: Path, *, seed: int = 0, name: str = "") -> Path:
    """Write a file of random weights that llama.cpp loads as it would the real one, the same for the same seed."""
    metadata = metadata_of(weights.shape, name=name or path.stem, quant=weights.quant)
    metadata |= {"general.synthetic": True, SYNTHETIC_KEY: "synthetic"}
    source = _Routed(seed) if weights.shape.experts is not None else BlockSource(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(path, metadata, weights.tensors, source.fill)
    return path


class _Routed(BlockSource):
    """Bytes for the tensors of a mixture of experts."""

    def fill(self, out: IO[bytes], tensor: Tensor) -> None:
        """Write one tensor."""
        count = tensor.element_count
        if tensor.name.endswith((".attn_norm.weight", ".ffn_norm.weight")):
            out.write(np.full(count, _MIXTURE_NORM, np.float32).tobytes())
        elif tensor.type_name == "F32" and tensor.name.endswith(".ffn_gate_inp.weight"):
            rows = self.random.standard_normal(count, np.float32)
            out.write((rows / np.float32(_MIXTURE_NORM * np.sqrt(tensor.dims[0]))).tobytes())
        else:
            super().fill(out, tensor)


def metadata_of(shape: ModelShape, *, name: str, quant: str) -> dict[str, Value]:
    """Metadata of a file with this shape: identity, hyper-parameters, and a vocabulary of the right size."""
    mixture = MIXTURES.get(quant)
    metadata: dict[str, Value] = {"general.architecture": shape.architecture, "general.name": name}
    if mixture is not None:
        metadata["general.file_type"] = mixture.file_type
    metadata["general.quantization_version"] = 2
    metadata |= {f"{shape.architecture}.{key}": value for key, value in _hyper_parameters(shape).items()}
    return metadata | _vocabulary(shape)


def _hyper_parameters(shape: ModelShape) -> dict[str, Value]:
    facts, kinds = model_facts(shape), shape.layer_kinds
    values: dict[str, Value] = {
        row["key"]: float(row["real"]) if row["real"] else amount(row["whole"], facts)
        for row in _ROWS
        if holds(row["when"], facts)
    }
    hybrid = shape.recurrent and "full" in kinds and not facts["delta_net"] and not facts["state_beside_attention"]
    if (hybrid or shape.sliding_kv_head_count) and not shape.latent:
        heads = {"full": shape.kv_head_count, "sliding": shape.sliding_kv_head_count}
        values["attention.head_count_kv"] = tuple(heads.get(kind, 0) for kind in kinds)
    if facts["one_part_a_block"]:
        inner = shape.feed_forward_dim or facts.get("moe_feed_forward_dim", 0)
        values["feed_forward_length"] = tuple(inner * (kind == "none") for kind in kinds)
    elif shape.kv_shared_feed_forward_dim:
        shared = shape.kv_shared_layer_count
        values["feed_forward_length"] = (shape.feed_forward_dim,) * (shape.layer_count - shared) + (
            shape.kv_shared_feed_forward_dim,
        ) * shared
    if facts["sectioned_rope"]:
        values["rope.dimension_sections"] = (*[shape.head_dim // 8] * 3, 0)
    if facts["own_full_heads"]:
        values["attention.sliding_window_pattern"] = tuple(kind == "sliding" for kind in kinds)
    step = facts.get("ssm_attention_step_count", 0)
    if step > 1 and facts["ssm_attention_offset_count"] == step - 1 and not facts["short_convolution"]:
        values["full_attention_interval"] = step
    return values


def _vocabulary(shape: ModelShape) -> dict[str, Value]:
    """A SentencePiece vocabulary that knows single bytes, so that any text has tokens.

    The rest is never produced.
    """
    count = shape.vocab_count
    if count < _FIXED_TOKEN_COUNT:
        return {"tokenizer.ggml.model": "none"}
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "<|endoftext|>"]
    tokens += [f"\u2581t{i}" for i in range(_FIXED_TOKEN_COUNT, count)]
    filler = count - _FIXED_TOKEN_COUNT
    kinds = [_UNKNOWN, _CONTROL, _CONTROL] + [_BYTE] * 256 + [_CONTROL] + [_NORMAL] * filler
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * _FIXED_TOKEN_COUNT + [-float(i) for i in range(filler)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
