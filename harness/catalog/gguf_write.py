"""Write a GGUF file (version 3): metadata of a model's shape; header and tensors in a stream, nothing held in memory.

Source: the GGUF specification, docs/gguf.md of the ggml repository; llama.cpp, src/llama-arch.cpp (names of the keys)
and src/models (which architecture reads which).
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from harness.catalog._gguf_shape import ARCHITECTURES
from harness.domain.ggml import BLOCKS
from harness.domain.model import Experts, LatentAttention, ModelShape, Recurrent, Tensor

ALIGNMENT_BYTES: Final = 32
_FIXED_TOKEN_COUNT: Final = 260
"""Three special tokens, 256 bytes, and one that llama.cpp looks up by name in models of the Phi family."""
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_DEFAULT_CONTEXT_TOKENS: Final = 1 << 17
_SIGMOID: Final = 2

Value = bool | int | float | str | Sequence[str] | Sequence[int] | Sequence[float]
"""Numbers are written as u32 (or u64 where they need it) and f32; sequences of them as i32 and f32."""


def header_bytes(metadata: Mapping[str, Value], tensors: Sequence[Tensor]) -> bytes:
    """Everything before the tensor data, padding included; the data follow in the order of ``tensors``."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), _typed(value)]
    offset = 0
    for tensor in tensors:
        parts.append(_text(tensor.name))
        parts.append(struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims))
        parts.append(struct.pack("<IQ", BLOCKS[tensor.type_name].type_id, offset))
        offset += tensor.size_bytes + padding_bytes(tensor.size_bytes)
    head = b"".join(parts)
    return head + bytes(padding_bytes(len(head)))


def padding_bytes(size_bytes: int) -> int:
    """Bytes to the next multiple of the alignment."""
    return -size_bytes % ALIGNMENT_BYTES


def write_gguf(
    path: Path,
    metadata: Mapping[str, Value],
    tensors: Sequence[Tensor],
    fill: Callable[[IO[bytes], Tensor], None],
) -> None:
    """Write the file; it appears under its name when it is whole.

    ``fill`` writes the ``size_bytes`` bytes of one tensor; the tensors' offsets are not looked at.

    Raises:
        ValueError: ``fill`` wrote more or less than that.
        OSError: The disk cannot take it.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as out:
            out.write(header_bytes(metadata, tensors))
            for tensor in tensors:
                begin = out.tell()
                fill(out, tensor)
                if out.tell() - begin != tensor.size_bytes:
                    raise ValueError(f"{tensor.name}: {out.tell() - begin} bytes written, not {tensor.size_bytes}")
                out.write(bytes(padding_bytes(tensor.size_bytes)))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _typed(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value) if 0 <= value < 1 << 32 else struct.pack("<IQ", 10, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_text(str(v)) for v in value)
    code, letter = (6, "f") if value and isinstance(value[0], float) else (5, "i")
    return struct.pack(f"<IIQ{len(value)}{letter}", 9, code, len(value), *value)


def metadata_of(shape: ModelShape, *, name: str, quant: str) -> dict[str, Value]:
    """Metadata of a file with this shape: identity, hyper-parameters, and a vocabulary of the right size."""
    file_type = ARCHITECTURES["file_types"].get(quant)
    metadata: dict[str, Value] = {"general.architecture": shape.architecture, "general.name": name}
    if file_type is not None:
        metadata["general.file_type"] = file_type
    metadata["general.quantization_version"] = 2
    metadata |= {f"{shape.architecture}.{key}": value for key, value in _hyper_parameters(shape)}
    return metadata | _vocabulary(shape)


def _hyper_parameters(shape: ModelShape) -> Iterator[tuple[str, Value]]:
    experts = shape.experts
    feed_forward = shape.feed_forward_dim or (experts.feed_forward_dim if experts else 0)
    yield from _told(shape, "shape")
    yield "context_length", shape.context_max_tokens or _DEFAULT_CONTEXT_TOKENS
    yield "feed_forward_length", _widths(shape) or feed_forward
    yield "attention.layer_norm_rms_epsilon", 1e-5
    yield "attention.layer_norm_epsilon", 1e-5
    yield from _attention(shape)
    if shape.architecture in ARCHITECTURES["scaled"]:
        yield from ((f"{key}_scale", 1.0) for key in ("logit", "residual", "embedding"))
    if shape.architecture in {"cohere2", "command-r"}:
        yield "logit_scale", 1.0
    if shape.architecture in ARCHITECTURES["sigmoid_routed"]:
        yield "expert_gating_func", _SIGMOID
    if experts:
        yield from _told(experts, "experts")
    if shape.recurrent:
        yield from _recurrent(shape, shape.recurrent)


def _attention(shape: ModelShape) -> Iterator[tuple[str, Value]]:
    if shape.latent:
        yield from _latent(shape, shape.latent)
        return
    kinds = shape.layer_kinds
    hybrid = shape.recurrent is not None and "full" in kinds and shape.architecture not in ARCHITECTURES["delta_net"]
    if hybrid and shape.architecture != "falcon-h1":
        yield "attention.head_count_kv", tuple(shape.kv_head_count if k == "full" else 0 for k in kinds)
    elif shape.sliding_kv_head_count:
        heads = {"full": shape.kv_head_count, "sliding": shape.sliding_kv_head_count}
        yield "attention.head_count_kv", tuple(heads[k] for k in kinds)
    else:
        yield "attention.head_count_kv", shape.kv_head_count
    if shape.head_dim:
        yield "attention.key_length", shape.head_dim
        yield "attention.value_length", shape.value_head_dim or shape.head_dim
        yield "rope.dimension_count", shape.head_dim
        yield "rope.freq_base", 500_000.0
    if shape.architecture in ARCHITECTURES["sectioned_rope"]:
        quarter = shape.head_dim // 8
        yield "rope.dimension_sections", (quarter, quarter, quarter, 0)
    if shape.architecture == "gemma4":
        yield "attention.sliding_window_pattern", tuple(k == "sliding" for k in kinds)
        yield "attention.key_length_swa", shape.sliding_head_dim or shape.head_dim
        yield "attention.value_length_swa", shape.sliding_head_dim or shape.head_dim
        yield "rope.dimension_count_swa", shape.sliding_head_dim or shape.head_dim
    if shape.architecture in {"gemma3n", "gemma4"}:
        yield "embedding_length_per_layer_input", shape.per_layer_input_dim


def _widths(shape: ModelShape) -> tuple[int, ...]:
    """Feed-forward widths layer by layer, where they differ; empty where one number says it."""
    layers = range(shape.layer_count)
    if shape.architecture.startswith("nemotron_h"):
        inner = shape.feed_forward_dim or (shape.experts.feed_forward_dim if shape.experts else 0)
        return tuple(inner if shape.layer_kind(i) == "none" else 0 for i in layers)
    if shape.kv_shared_feed_forward_dim:
        own = shape.layer_count - shape.kv_shared_layer_count
        return tuple(shape.feed_forward_dim if i < own else shape.kv_shared_feed_forward_dim for i in layers)
    return ()


def _latent(shape: ModelShape, latent: LatentAttention) -> Iterator[tuple[str, Value]]:
    """The cache holds one compressed row: llama.cpp calls it one KV head and keeps the true widths apart.

    MiniCPM3 alone keeps keys and values of every head in its cache.
    """
    key, value = latent.nope_head_dim + latent.rope_head_dim, latent.value_head_dim
    is_expanded = shape.architecture == "minicpm3"
    yield "attention.head_count_kv", shape.kv_head_count if is_expanded else 1
    if latent.q_rank_dim or is_expanded:
        yield "attention.q_lora_rank", latent.q_rank_dim
    yield "attention.kv_lora_rank", latent.kv_rank_dim
    yield "attention.key_length", key if is_expanded else latent.kv_rank_dim + latent.rope_head_dim
    yield "attention.value_length", value if is_expanded else latent.kv_rank_dim
    if not is_expanded:
        yield "attention.key_length_mla", key
        yield "attention.value_length_mla", value
    yield "rope.dimension_count", latent.rope_head_dim


def _told(part: ModelShape | Experts | Recurrent, table: str) -> Iterator[tuple[str, Value]]:
    """What a table of ``architectures.toml`` tells of a part of the shape."""
    for key, field in ARCHITECTURES["file"][table].items():
        value = getattr(part, field)
        if value or not key.endswith("?"):
            yield key.removesuffix("?"), value


def _recurrent(shape: ModelShape, recurrent: Recurrent) -> Iterator[tuple[str, Value]]:
    if shape.architecture.startswith("lfm2"):
        yield "shortconv.l_cache", recurrent.conv_dim
        return
    yield from _told(recurrent, "recurrent")
    yield "ssm.time_step_rank", recurrent.head_count or -(-shape.hidden_dim // 16)
    if recurrent.attention_step_count > 1 and recurrent.attention_offset_count == recurrent.attention_step_count - 1:
        yield "full_attention_interval", recurrent.attention_step_count


def _vocabulary(shape: ModelShape) -> dict[str, Value]:
    """A SentencePiece vocabulary that knows single bytes, so that any text has tokens; the rest is never produced."""
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
