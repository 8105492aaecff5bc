"""Repositories in a format of their own, read from a hub on a socket: their bytes, programs and commands decide."""

import json
import re
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.answer.answer import answer
from harness.answer.resolve import resolve_model
from harness.core.errors import RefusedError
from harness.core.question import Question
from harness.models.formats import format_named, shards_in
from harness.show.first_screen import first_screen

pytest.importorskip("huggingface_hub")

LAYERS, HIDDEN, INNER, HEADS, KV, HEAD, VOCAB = 40, 5120, 17408, 40, 8, 128, 151_936
CONFIG = {
    "model_type": "qwen3", "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "vocab_size": VOCAB,
    "num_attention_heads": HEADS, "num_key_value_heads": KV, "head_dim": HEAD, "intermediate_size": INNER,
    "max_position_embeddings": 40_960, "tie_word_embeddings": False,
}  # fmt: skip
"""A model of 14.77 billion parameters, as Qwen3-14B."""
MATRICES = {
    "self_attn.q_proj": HIDDEN * HEADS * HEAD,
    "self_attn.k_proj": HIDDEN * KV * HEAD,
    "self_attn.v_proj": HIDDEN * KV * HEAD,
    "self_attn.o_proj": HIDDEN * HEADS * HEAD,
    "mlp.gate_proj": HIDDEN * INNER,
    "mlp.up_proj": HIDDEN * INNER,
    "mlp.down_proj": HIDDEN * INNER,
}


def tensors(bits: float, table_bits: float = 16) -> dict[str, int]:
    """Bytes of each tensor in safetensors, as their makers name them."""
    made = {
        "model.embed_tokens.weight": VOCAB * HIDDEN * table_bits / 8,
        "lm_head.weight": VOCAB * HIDDEN * table_bits / 8,
    }
    for layer in range(LAYERS):
        made |= {f"model.layers.{layer}.{name}.weight": count * bits / 8 for name, count in MATRICES.items()}
    return {name: round(size) for name, size in made.items()}


def packed(sizes: dict[str, int]) -> tuple[bytes, int]:
    """The header of a file of safetensors, and the size of the whole file."""
    header, end = {}, 0
    for name, size in sizes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text, 8 + len(text) + end


AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128}
FORMATS: dict[str, tuple[dict[str, Any], dict[str, int], str, str]] = {
    "Plain-14B-FP8": (
        {"quantization_config": {"quant_method": "fp8"}}, tensors(8), "FP8", "vllm serve org/Plain-14B-FP8 ",
    ),
    "Plain-14B": ({}, tensors(16), "BF16", "vllm serve org/Plain-14B "),
    "Plain-14B-NVFP4": (
        {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, tensors(4.5), "NVFP4",
        "vllm serve org/Plain-14B-NVFP4 ",
    ),
    "Plain-14B-4bit": (
        {"quantization": {"group_size": 64, "bits": 4}}, tensors(4.5, 4.5), "MLX",
        "mlx_lm.server --model org/Plain-14B-4bit",
    ),
    "Plain-14B-AWQ": ({"quantization_config": AWQ}, tensors(4.16), "AWQ", "vllm serve org/Plain-14B-AWQ "),
    "Plain-14B-GPTQ-Int4": (
        {"quantization_config": {"quant_method": "gptq", "bits": 4}}, tensors(4.16), "GPTQ",
        "vllm serve org/Plain-14B-GPTQ-Int4 ",
    ),
    "Plain-14B-exl3": (
        {"quantization_config": {"quant_method": "exl3", "bits": 4.0}}, tensors(4.02, 6), "EXL3",
        "python main.py --model-dir models",
    ),
    "Plain-14B-W4A16": (
        {"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized"}}, tensors(4.16),
        "compressed-tensors", "vllm serve org/Plain-14B-W4A16 ",
    ),
    "Plain-14B-bnb-4bit": (
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, tensors(4.13), "bitsandbytes",
        "vllm serve org/Plain-14B-bnb-4bit --quantization bitsandbytes",
    ),
}  # fmt: skip


class Hub(BaseHTTPRequestHandler):
    """A hub whose files of weights have a header and a size, and nobody reads what follows."""

    server: Any

    def do_GET(self) -> None:
        listing = re.match(r"/api/models/(org/[\w.-]+)", self.path)
        resolved = re.match(r"/(org/[\w.-]+)/resolve/\w+/([^?]+)", self.path)
        if listing:
            files = self.server.repositories[listing[1]]
            rows = [{"rfilename": name, "size": size} for name, (_, size) in files.items()]
            self.reply(json.dumps({"siblings": rows, "sha": "a" * 40}).encode(), 200)
        elif resolved and resolved[2] in self.server.repositories[resolved[1]]:
            data, size = self.server.repositories[resolved[1]][resolved[2]]
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if asked is None or self.server.refuses_ranges:
                self.reply(data, 200 if asked is None else 416)
                return
            start, stop = int(asked[1]), min(int(asked[2]) + 1, size)
            part = data[start:stop].ljust(stop - start, b"\0")
            self.reply(part, 206, {"Content-Range": f"bytes {start}-{stop - 1}/{size}"})
        else:
            self.reply(b"none", 404)

    def do_HEAD(self) -> None:
        self.reply(b"", 200)

    def reply(self, data: bytes, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ((headers or {}) | {"Content-Length": str(len(data)), "ETag": '"1"'}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.refuses_ranges, server.repositories = False, {}
    for name, (more, sizes, *_) in FORMATS.items():
        config = json.dumps(CONFIG | more).encode()
        server.repositories[f"org/{name}"] = {
            "config.json": (config, len(config)), "model.safetensors": packed(sizes),
            "tokenizer.json": (b"{}", 11_000_000),
        }  # fmt: skip
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("refuses", [False, True])
def test_the_bytes_of_a_repository_are_those_of_its_listing(hub: Any, name: str, refuses: bool) -> None:
    hub.refuses_ranges = refuses
    _, sizes, kind, _ = FORMATS[name]

    model = resolve_model(f"hf:org/{name}")

    assert model.format is not None
    assert model.format.name == kind
    assert model.weights.file_bytes == pytest.approx(packed(sizes)[1], rel=0.001)
    assert sum(tensor.size_bytes for tensor in model.weights.tensors) == pytest.approx(sum(sizes.values()), rel=0.01)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_has_its_programs_and_a_gguf_file_beside(hub: Any, name: str) -> None:
    _, sizes, kind, command = FORMATS[name]
    device = "m4 max 128gb" if kind == "MLX" else "h100 sxm 80gb"

    found = answer(Question(model=f"hf:org/{name}", device=device))

    assert found.commands[0].startswith(command)
    assert not any("gguf" in one.lower() or "llama-server" in one for one in found.commands)
    assert found.own_format is not None
    assert found.own_format.file_bytes == pytest.approx(packed(sizes)[1], rel=0.001)
    screen = " ".join(" ".join(first_screen(found)).split())
    assert f"a GGUF of it would need {'16 (-q Q8_0)' if kind == 'FP8' else '9.0 (-q Q4_K_M)'}" in screen


@pytest.mark.parametrize(
    ("name", "device", "said"),
    [
        (
            "Plain-14B-AWQ",
            "m4 max 128gb",
            "No program runs AWQ on .*vLLM and SGLang.*GGUF file of it would need 9.0 GB",
        ),
        ("Plain-14B-exl3", "m4 max 128gb", "No program runs EXL3"),
        ("Plain-14B-4bit", "rtx 4090", "No program runs MLX.*Metal"),
        ("Plain-14B-NVFP4", "rx 7900 xtx", "No program runs NVFP4"),
    ],
)
def test_no_device_runs_what_none_of_its_programs_loads(hub: Any, name: str, device: str, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        answer(Question(model=f"hf:org/{name}", device=device))


def test_a_quantisation_that_is_asked_for_is_a_gguf_file(hub: Any) -> None:
    model = resolve_model("hf:org/Plain-14B-FP8", "Q4_K_M")

    assert model.format is None
    assert model.weights.file_bytes / 1e9 == pytest.approx(9.0, rel=0.01)  # Qwen3-14B-Q4_K_M.gguf of its makers


def test_a_program_that_loads_gguf_files_is_refused(hub: Any) -> None:
    with pytest.raises(RefusedError, match="llama-server loads GGUF files"):
        answer(Question(model="hf:org/Plain-14B-FP8", device="rtx 4090", program="llama-server"))


def test_several_cards_are_told_to_the_program(hub: Any) -> None:
    found = answer(Question(model="hf:org/Plain-14B", device="2x rtx 4090"))

    assert found.commands[0].endswith("--tensor-parallel-size 2")


def test_one_set_of_weights_counts() -> None:
    listed = {
        "consolidated.safetensors": 10,
        "model-00001-of-00002.safetensors": 5,
        "model-00002-of-00002.safetensors": 5,
    }
    assert sum(shards_in(listed).values()) == 10


@pytest.mark.parametrize(
    ("ref", "quant", "name"),
    [
        ("Qwen/Qwen3-8B-FP8", "FP8", "FP8"),
        ("mlx-community/Qwen3-8B-4bit", "4bit", "MLX"),
        ("turboderp/Qwen3-8B-exl3", "exl3-4.0bpw", "EXL3"),
        ("bartowski/Qwen3-8B-GGUF", "Q4_K_M", ""),
        ("unsloth/Qwen3-8B-BF16-GGUF", "BF16", ""),
        ("qwen3-8b", "BF16", ""),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "BF16", "BF16"),
    ],
)
def test_a_name_tells_its_format(ref: str, quant: str, name: str) -> None:
    found = format_named(ref, quant)
    assert (found.name if found else "") == name
