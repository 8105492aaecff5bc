"""Write a GGUF file (version 3): header and tensors in a stream, nothing held in memory.

Source: the GGUF specification, docs/gguf.md of the ggml repository.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from harness.core.model import Tensor
from harness.models.ggml import BLOCKS

ALIGNMENT_BYTES: Final = 32

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
