"""The GGUF reader against the format's own package, and against files made to hurt."""

import struct
from pathlib import Path

import numpy as np
import pytest

from harness.core.errors import BadDataError
from harness.models.gguf import SkippedArray, read_gguf

gguf = pytest.importorskip("gguf", reason="the reference reader, package gguf, is not installed")


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def header(tensors: int = 0, metadata: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, metadata)


def tensor(name: str, dims: tuple[int, ...], type_id: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, type_id, offset)


def padded(data: bytes, payload: int) -> bytes:
    return data + bytes(-len(data) % 32 + payload)


@pytest.fixture
def reference_file(tmp_path: Path) -> Path:
    """A small llama with every kind of metadata, written by the format's own package."""
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_context_length(2048)
    writer.add_file_type(8)
    writer.add_token_list([f"token {i}" for i in range(320)])
    writer.add_token_scores([0.5] * 320)
    writer.add_array("a.few", [1, 2, 3])
    writer.add_float64("a.double", 0.1)
    writer.add_bool("a.flag", True)
    generator = np.random.default_rng(1)
    writer.add_tensor("token_embd.weight", generator.random((320, 64), dtype=np.float32))
    writer.add_tensor("output_norm.weight", generator.random(64, dtype=np.float32))
    q8 = gguf.quants.quantize(generator.random((64, 64), dtype=np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.attn_q.weight", q8, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.ffn_gate.weight", generator.random((96, 64), dtype=np.float32).astype(np.float16))
    writer.add_tensor("blk.0.ffn_up.weight", generator.random((96, 64), dtype=np.float32).astype(np.float16))
    writer.add_tensor("blk.1.attn_k.weight", generator.random((32, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_agrees_with_the_reference_tensor_by_tensor(reference_file: Path) -> None:
    ours = read_gguf(reference_file)
    theirs = gguf.GGUFReader(reference_file)

    assert [(t.name, t.dims, t.type_name, t.size_bytes, t.offset_bytes) for t in ours.tensors] == [
        (t.name, tuple(int(d) for d in t.shape), t.tensor_type.name, int(t.n_bytes), int(t.data_offset))
        for t in theirs.tensors
    ]


def test_metadata_and_shape(reference_file: Path) -> None:
    ours = read_gguf(reference_file)
    weights = ours.weights()

    assert ours.name == "tiny"
    assert ours.metadata["a.few"] == (1, 2, 3)
    assert ours.metadata["a.double"] == 0.1
    assert ours.metadata["a.flag"] is True
    assert ours.metadata["tokenizer.ggml.tokens"] == SkippedArray(8, 320)
    assert weights.quant == "Q5_0"  # what general.file_type 8 stands for
    shape = weights.shape
    assert (shape.layer_count, shape.hidden_dim, shape.head_dim, shape.kv_head_count) == (2, 64, 16, 2)
    assert (shape.vocab_count, shape.context_max_tokens, shape.tied_embeddings) == (320, 2048, True)


ONE = tensor("t", (32,))
LLAMA = text("general.architecture") + struct.pack("<I", 8) + text("llama")
HOSTILE = {
    "empty": b"",
    "short": b"GGUF",
    "wrong magic": padded(b"GGML" + header()[4:], 64),
    "big-endian": padded(b"GGUF" + struct.pack(">IQQ", 3, 0, 0), 64),
    "version 1": padded(header(version=1), 64),
    "version of the future": padded(header(version=4), 64),
    "tensor count near 2**64": padded(header(tensors=2**64 - 1), 64),
    "metadata count near 2**64": padded(header(metadata=2**64 - 1), 64),
    "key past the end": padded(header(metadata=1) + struct.pack("<Q", 2**63), 64),
    "array count near 2**64": padded(header(metadata=1) + text("k") + struct.pack("<IIQ", 9, 4, 2**64 - 1), 64),
    "array of arrays": padded(header(metadata=1) + text("k") + struct.pack("<IIQ", 9, 9, 1), 64),
    "string array past the end": padded(header(metadata=1) + text("k") + struct.pack("<IIQQ", 9, 8, 2, 2**62), 64),
    "unknown value type": padded(header(metadata=1) + text("k") + struct.pack("<I", 99), 64),
    "key twice": padded(header(metadata=2) + (text("k") + struct.pack("<IB", 0, 1)) * 2, 64),
    "alignment zero": padded(header(metadata=1) + text("general.alignment") + struct.pack("<II", 4, 0), 64),
    "zero-length tensor": padded(header(tensors=1) + tensor("t", (0,)), 256),
    "five dimensions": padded(header(tensors=1) + tensor("t", (1, 1, 1, 1, 1)), 256),
    "no dimension": padded(header(tensors=1) + tensor("t", ()), 256),
    "product past 2**63": padded(header(tensors=1) + tensor("t", (2**62, 2**62)), 256),
    "unknown tensor type": padded(header(tensors=1) + tensor("t", (32,), type_id=4), 256),
    "row is no whole block": padded(header(tensors=1) + tensor("t", (33,), type_id=8), 256),
    "misaligned offset": padded(header(tensors=1) + tensor("t", (32,), offset=7), 256),
    "data past the end": padded(header(tensors=1) + tensor("t", (32,), offset=2**60), 256),
    "overlap": padded(header(tensors=2) + ONE + tensor("u", (32,), offset=96), 512),
    "same name": padded(header(tensors=2) + ONE + tensor("t", (32,), offset=128), 512),
    "truncated data": padded(header(tensors=1) + ONE, 100),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_give_one_clear_error(tmp_path: Path, case: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(HOSTILE[case])

    with pytest.raises(BadDataError, match=r"bad\.gguf.*found .*expected "):
        read_gguf(path)


def test_a_good_minimal_file(tmp_path: Path) -> None:
    """The same builders make a file that is read: the errors above are not theirs."""
    path = tmp_path / "good.gguf"
    path.write_bytes(padded(header(tensors=2) + ONE + tensor("u", (32,), offset=128), 256))

    assert [t.size_bytes for t in read_gguf(path).tensors] == [128, 128]


@pytest.mark.parametrize(
    ("more", "words"),
    [(b"", "tensor count: found 0"), (text("general.type") + struct.pack("<I", 8) + text("adapter"), "'adapter'")],
)
def test_a_file_without_a_model_has_no_weights(tmp_path: Path, more: bytes, words: str) -> None:
    """A vocabulary alone, and what belongs beside a model: an adapter, an importance matrix, an encoder of pictures."""
    path = tmp_path / "beside.gguf"
    path.write_bytes(padded(header(metadata=1 + (more != b"")) + LLAMA + more, 64))

    with pytest.raises(BadDataError, match=words):
        read_gguf(path).weights()


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(BadDataError):
            read_gguf(path)
