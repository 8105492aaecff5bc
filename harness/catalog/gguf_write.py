"""Write a GGUF file (version 3): metadata of a model's shape.

Header and tensors in a stream, nothing held in memory.

Source: the GGUF specification, docs/gguf.md of the ggml repository; llama.cpp, src/llama-arch.cpp (names of
the keys) and src/models (which architecture reads which).
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from harness.domain.facts import MODEL_WORDS, amount, checked_rows, holds, model_facts
from harness.domain.ggml import BLOCKS
from harness.domain.model import ModelShape, Tensor
from harness.domain.quant import MIXTURES

ALIGNMENT_BYTES: Final = 32
_FIXED_TOKEN_COUNT: Final = 260
"""Three special tokens, 256 bytes, and one that llama.cpp looks up by name in models of the Phi family."""
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_ROWS: Final = checked_rows("data/metadata.csv", MODEL_WORDS, sums=("whole",))

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
                    raise ValueError(
                        f"{tensor.name}: {out.tell() - begin} bytes written, not {tensor.size_bytes}"
                    )
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
    hybrid = (
        shape.recurrent and "full" in kinds and not facts["delta_net"] and not facts["state_beside_attention"]
    )
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
