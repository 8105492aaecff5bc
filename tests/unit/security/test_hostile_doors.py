"""Hostile files, archives and servers, one table: each is one clear error, within the bounds of ``conftest.py``.

Devices, mirrors and names that lead elsewhere are in ``test_strangers.py``, under the same bounds.
"""

import json
import socket
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.core.errors import HarnessError
from harness.core.foreign import read_limited, toml_in
from harness.gates.budget_file import load_budgets
from harness.hardware.devices import load_device
from harness.models.gguf import read_gguf
from harness.models.hf_config import read_hf_config
from harness.records.imports import read_results
from harness.records.store import load
from harness.runtimes.server.dialects import dialect_of
from harness.runtimes.server.pieces import Request
from harness.runtimes.server.stream import Endpoint, Patience
from harness.verbs.learn import measurements_in

DEEP = 100_000
WIDE = {
    "model_type": "gemma4_text", "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2,
    "num_hidden_layers": 30, "num_key_value_heads": 1, "head_dim": 32, "vocab_size": 1000, "num_kv_shared_layers": 20,
    "use_double_wide_mlp": True,
}  # fmt: skip


def gguf(*, tensors: int = 0, pairs: int = 0, rest: bytes = b"") -> bytes:
    """The head of a GGUF file of version 3."""
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + rest


def text(value: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if size is None else size) + value


def sparse(path: Path, head: bytes, size: int) -> None:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)


BENCH = {"n_prompt": 0, "n_gen": 16, "avg_ns": 1e9, "model_type": "llama 1B Q4_0"}
BOMB = zlib.compress(bytes(300 << 20), 9)
Read = Callable[[Path], object]
FILES: dict[str, tuple[str, bytes, Read]] = {
    "GGUF: 2^63 tensors": ("m.gguf", gguf(tensors=2**63), read_gguf),
    "GGUF: 2^63 pairs": ("m.gguf", gguf(pairs=2**63), read_gguf),
    "GGUF: a key of 2^62 bytes": ("m.gguf", gguf(pairs=1, rest=text(b"k", 2**62)), read_gguf),
    "GGUF: a text of 2^40 bytes": (
        "m.gguf", gguf(pairs=1, rest=text(b"k") + struct.pack("<IQ", 8, 2**40)), read_gguf
    ),
    "GGUF: an array of 2^40 numbers": (
        "m.gguf", gguf(pairs=1, rest=text(b"k") + struct.pack("<IIQ", 9, 10, 2**40)), read_gguf
    ),
    "GGUF: arrays in arrays in arrays": (
        "m.gguf", gguf(pairs=1, rest=text(b"k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * DEEP), read_gguf
    ),
    "GGUF: a type that is none": ("m.gguf", gguf(pairs=1, rest=text(b"k") + struct.pack("<I", 99)), read_gguf),
    "GGUF: nothing": ("m.gguf", b"", read_gguf),
    "TOML: lists in lists": ("d.toml", b"x = " + b"[" * DEEP, toml_in),
    "TOML: tables in tables": ("d.toml", b"a." * DEEP + b"a = 1", toml_in),
    "TOML: a number of a million digits": ("d.toml", b"x = " + b"9" * 10**6, toml_in),
    "TOML: a device without end": ("d.toml", b"# " + b"x" * (2 << 20), lambda p: load_device(str(p))),
    "TOML: a budget of infinity": (
        "b.toml", b'[[budget]]\nmetric = "ttft_s"\nceiling = inf\n', load_budgets
    ),
    "TOML: no text": ("d.toml", b"\xff\xfe\x00\x01" * 1000, toml_in),
    "config: lists in lists": ("config.json", b"[" * DEEP, read_hf_config),
    "config: a layer count of 10^400": (
        "config.json", b'{"model_type": "llama", "num_hidden_layers": 1' + b"0" * 400 + b"}", read_hf_config
    ),
    "config: 2^40 layers of two widths": ("config.json", json.dumps(WIDE | {"num_hidden_layers": 1 << 40}).encode(),
                                          read_hf_config),
    "config: more layers that share than there are": (
        "config.json", json.dumps(WIDE | {"num_kv_shared_layers": 1 << 40}).encode(), read_hf_config
    ),
    "config: a list for a layer's kind": (
        "config.json", json.dumps(WIDE | {"model_type": "nemotron_h", "layer_types": [["a"]]}).encode(), read_hf_config
    ),
    "record: lists in lists": ("r.json", b'{"schema_version": 2, "samples": ' + b"[" * DEEP, load),
    "record: 66 MB": ("r.json", b'{"x": "' + b"x" * (66 << 20) + b'"}', load),
    "record: a time of 1e999": ("r.json", b'{"schema_version": 2, "created": 1e999}', load),
    "record: of version 10^30": ("r.json", b'{"schema_version": 1' + b"0" * 30 + b"}", load),
    "records: a line without end": ("r.jsonl", b"x" * (66 << 20), read_results),
    "results: a million empty objects": ("r.json", b"[" + b"{}," * 10**6 + b"{}]", read_results),
    "results: 200,000 samples": (
        "r.json", json.dumps([BENCH | {"samples_ns": [1e6] * 200_000}]).encode(), read_results
    ),
    "results: a negative time": ("r.json", json.dumps([BENCH | {"avg_ns": -1.0}]).encode(), read_results),
    "results: 10^300 tokens": ("r.json", json.dumps([BENCH | {"n_gen": 10**300, "avg_ns": 0}]).encode(), read_results),
    "pasted: a million brackets": ("notes.txt", b"(" * 10**6, read_results),
    "pasted: a line of a million words": ("notes.txt", b"1 " * 10**6, read_results),
    "pasted: zlib of zeros": ("notes.txt", BOMB, read_results),
    "history: a database": ("h.sqlite", b"SQLite format 3\0" + b"\xff" * 4096, read_results),
    "measurements: a table without end": ("rows.csv", b"a,b\n" * (17 << 20), measurements_in),
}  # fmt: skip
"""A file's name and bytes, and its reader."""


@pytest.mark.parametrize("kind", FILES)
def test_a_hostile_file_is_one_clear_error(kind: str, tmp_path: Path) -> None:
    name, data, read = FILES[kind]
    path = tmp_path / name
    path.write_bytes(data)

    with pytest.raises(HarnessError):
        read(path)


@pytest.mark.parametrize("read", [load, read_results, load_budgets, read_limited])
def test_a_file_of_a_terabyte_is_not_read(read: Read, tmp_path: Path) -> None:
    sparse(tmp_path / "r.json", b"{", 10**12)

    with pytest.raises(HarnessError):
        read(tmp_path / "r.json")


# --- a server

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def endless(head: bytes, block: bytes) -> Iterator[bytes]:
    yield head
    while True:
        yield block


SERVERS: dict[str, Callable[[], Iterator[bytes]]] = {
    "a header line without end": lambda: endless(b"HTTP/1.1 200 ", b"x" * 65536),
    "headers without end": lambda: endless(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 4096),
    "continue without end": lambda: endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1024),
    "a body without end": lambda: endless(JSON + b"\r\n", b"[" * 65536),
    "a body of 10^18 bytes": lambda: endless(JSON + b"Content-Length: " + b"9" * 18 + b"\r\n\r\n", b" " * 65536),
    "a body of minus five bytes": lambda: iter([JSON + b"Content-Length: -5\r\n\r\n", b"{}" * 100]),
    "a chunk of 2^64 bytes": lambda: endless(
        JSON + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n", b" " * 65536
    ),
    "chunks of no size": lambda: iter([JSON + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"]),
    "zlib of zeros": lambda: iter([JSON + b"Content-Encoding: deflate\r\n\r\n", BOMB]),
    "lists in lists": lambda: iter([JSON + b"\r\n", b'{"data": ' + b"[" * DEEP]),
    "a refusal of lists in lists": lambda: iter([b"HTTP/1.1 500 No\r\n\r\n", b'{"error": ' + b"[" * DEEP]),
    "lines without end": lambda: endless(STREAM, b"data: {}\n\n" * 4096),
    "one line without end": lambda: endless(STREAM, b"x" * 65536),
    "nothing": lambda: iter([]),
    "another protocol": lambda: iter([b"SSH-2.0-OpenSSH_9.6\r\n" * 100]),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_a_hostile_server_is_one_clear_error(kind: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.recv(65536)
                    for block in SERVERS[kind]():
                        connection.sendall(block)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    patience = Patience(silence_s=1.0, answer_s=1.0, ready_s=1.0)
    with listener, pytest.raises(HarnessError):
        endpoint = Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}", patience=patience)
        dialect_of(endpoint).ask(Request(prompt="hello", new_tokens=4))


def test_there_are_sixty_kinds() -> None:
    """Files and servers here, names, devices and mirrors beside; a table that shrinks is noticed."""
    assert len(FILES) + 4 + len(SERVERS) >= 50
