"""What the fuzzer reads: for each reader of foreign files some valid ones, and how they are damaged."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from bench.tiny_gguf import synthesize_tiny
from harness.core.paths import data_files
from harness.core.record import (
    SCHEMA_VERSION,
    EngineIdentity,
    MachineFingerprint,
    MemoryUse,
    ModelIdentity,
    Record,
    Sample,
)
from harness.core.scenario import Scenario
from harness.gates.budget_file import load_budgets
from harness.hardware.devices import load_device
from harness.models.gguf import read_gguf
from harness.models.hf_config import read_hf_config
from harness.models.names import load_model
from harness.records.store import encode, load

_EXTREMES: Final = (0, 1, 2, 8, 9, 12, 13, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1)
_HEADER_BYTES: Final = 4096
"""Mutations aim at the first part of the file: further back is only data."""
_WORDS: Final = (
    *(b"0", b"-1", b"1e999", b"-1e999", b"nan", b"inf", b"NaN", b"Infinity", b"1e-400", b"9" * 400, b"1e18", b"0x7f"),
    *(b"true", b"null", b'""', b'"x"', b"[]", b"{}", b"[[]]", b'{"a": 1}', b"1979-05-27T07:32:00Z", b"2" * 5000),
    *(b"[" * 5000, b"{" * 2000, b'{"a":' * 3000, b'"' + b"x" * 20000 + b'"', b"\x00", b"\xff\xfe", b"\\ud800"),
    *(b"../../etc/passwd", b"<script>", b"__class__", b"!!python/object", b"\n[a.b.c]\n", b"\n[[engine]]\n"),
)


class Target(NamedTuple):
    """A reader.

    Attributes:
        name: What it reads.
        ending: How its files end.
        seeds: Valid files; may use the folder given.
        mutate: Makes a damaged file of a valid one.
        read: Reads a file: a value or ``BadDataError``.
    """

    name: str
    ending: str
    seeds: Callable[[Path], list[bytes]]
    mutate: Callable[[bytes, random.Random], bytes]
    read: Callable[[Path], object]


def _valid_gguf(folder: Path) -> list[bytes]:
    """A small file that reads well: every kind of value and 20 tensors."""
    path = synthesize_tiny(
        folder / "seed.gguf", "Q4_0", hidden_dim=32, feed_forward_dim=32, vocab_count=300, head_count=2, kv_head_count=1
    )
    return [path.read_bytes()]


def mutate_gguf(data: bytes, draw: random.Random) -> bytes:
    """One damaged file."""
    if draw.random() < 0.1:
        return (b"GGUF\x03\0\0\0" if draw.random() < 0.7 else b"") + draw.randbytes(draw.randrange(512))
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        _damage(out, draw)
    return bytes(out)


def _damage(out: bytearray, draw: random.Random) -> None:
    if len(out) < 32:
        return
    at = draw.randrange(min(len(out) - 16, _HEADER_BYTES))
    if draw.random() < 0.3:
        at = draw.choice((4, 8, 16))  # version, tensor count, metadata count
    size = draw.choice((1, 4, 8))
    match draw.randrange(6):
        case 0:
            out[at] ^= 1 << draw.randrange(8)
        case 1:
            out[at : at + size] = (draw.choice(_EXTREMES) % 256**size).to_bytes(size, "little")
        case 2:
            del out[draw.randrange(len(out)) :]
        case 3:
            del out[at : at + draw.randrange(1, 64)]
        case 4:
            out[at:at] = out[at : at + draw.randrange(1, 256)]
        case _:
            other = draw.randrange(min(len(out) - 16, _HEADER_BYTES))
            out[at : at + 8], out[other : other + 8] = out[other : other + 8], out[at : at + 8]


def _read_gguf(path: Path) -> None:
    header = read_gguf(path)
    end = path.stat().st_size
    if any(t.offset_bytes + t.size_bytes > end for t in header.tensors):
        raise AssertionError("a tensor past the end of the file was let through")
    header.weights()


def mutate_text(data: bytes, draw: random.Random) -> bytes:
    """One damaged text file: values, lines and brackets exchanged for what its writer never thought of."""
    if draw.random() < 0.05:
        return draw.randbytes(draw.randrange(512))
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        _damage_text(out, draw)
    return bytes(out)


def _damage_text(out: bytearray, draw: random.Random) -> None:
    if len(out) < 8:
        return
    at = draw.randrange(len(out) - 4)
    match draw.randrange(7):
        case 0:
            out[at] ^= 1 << draw.randrange(8)
        case 1 | 2:  # a value: from the next sign that begins one to the next that ends it
            begin = next((i for i in range(at, len(out)) if out[i] in b"=:[,"), at) + 1
            end = next((i for i in range(begin, len(out)) if out[i] in b",]}\n"), len(out))
            out[begin:end] = b" " + draw.choice(_WORDS)
        case 3:
            del out[at : at + draw.randrange(1, 64)]
        case 4:
            out[at:at] = out[at : at + draw.randrange(1, 256)]
        case 5:
            out[at:at] = draw.choice(_WORDS)
        case _:
            lines = bytes(out).split(b"\n")
            line = lines.pop(draw.randrange(len(lines)))
            lines.insert(draw.randrange(len(lines) + 1), line)
            out[:] = b"\n".join(lines[: draw.randrange(len(lines)) + 1] if draw.random() < 0.2 else lines)


def _data_seeds(folder: Path) -> list[bytes]:
    del folder
    return [file.read_bytes() for kind in ("devices", "models") for file in list(data_files(kind).values())[::8]]


def _read_data(path: Path) -> object:
    # Both readers: a card that is damaged into something like a profile is a case as well.
    if path.read_bytes().find(b"[shape]") >= 0:
        return load_model(str(path))
    return load_device(str(path))


def _budget_seeds(folder: Path) -> list[bytes]:
    del folder
    return [
        b'[[budget]]\nmetric = "decode_tokens_per_s"\nfloor = 15\nmodel = "smollm2*"\n\n[[budget]]\n'
        b'metric = "peak_memory_bytes"\nceiling = 3e9\ndevice = "iphone-16-pro"\n'
        b'model = "llama-3.1-8b"\npredicted = true\n',
        b'[[budget]]\nmetric = "prefill_tokens_per_s"\nbaseline_ratio = 0.9\n',
    ]


def _record_seeds(folder: Path) -> list[bytes]:
    del folder
    machine = MachineFingerprint(
        system="Linux",
        kernel="6",
        cpu_model="c",
        core_count=2,
        ram_bytes=1,
        memory_limit_bytes=1,
        isa=("avx2",),
        python="3",
    )
    sample = Sample(
        phase="decode", label="tg2", token_count=2, duration_s=0.5, started_unix_s=1.0, token_times_s=(0.2,)
    )
    record = Record(
        schema_version=SCHEMA_VERSION,
        run_id="20260101T000000000Z-00000000",
        created="2026-01-01T00:00:00.000Z",
        harness_version="0",
        command=("edge-harness", "run"),
        workload="generate",
        machine=machine,
        scenario=Scenario(),
        outcome="ok",
        model=ModelIdentity(name="m", quant="Q4_0", size_bytes=1, sha256="", architecture="llama", parameter_count=1),
        engine=EngineIdentity(name="e", version="1", build="", thread_count=1, options={"a": 1}),
        samples=(sample, sample),
        memory=MemoryUse(peak_rss_bytes=1),
        extra={"deep": [{"a": [1, 2.5, None]}]},
    )
    return [encode(record), msgspec.json.format(encode(record), indent=1)]


def _config_seeds(folder: Path) -> list[bytes]:
    del folder
    llama = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "vocab_size": 512,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "tie_word_embeddings": True,
        "max_position_embeddings": 2048,
    }
    mixture = llama | {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    windows = llama | {"model_type": "gemma3_text", "head_dim": 16, "sliding_window": 512, "sliding_window_pattern": 6}
    return [msgspec.json.format(msgspec.json.encode(d), indent=1) for d in (llama, mixture, windows)]


TARGETS: Final[Mapping[str, Target]] = {
    target.name: target
    for target in (
        Target("gguf", ".gguf", _valid_gguf, mutate_gguf, _read_gguf),
        Target("toml", ".toml", _data_seeds, mutate_text, _read_data),
        Target("budget", ".toml", _budget_seeds, mutate_text, load_budgets),
        Target("record", ".json", _record_seeds, mutate_text, load),
        Target("config", ".json", _config_seeds, mutate_text, read_hf_config),
    )
}
