"""What a hub answers on a bad day, on a socket: a sentence for each status, short waits kept, parts optional."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import FetchError, HarnessError
from harness.models.hub import read_repository
from harness.models.hub_client import download

pytest.importorskip("huggingface_hub")

CONFIG = {
    "model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 512, "vocab_size": 40_000, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 1024, "max_position_embeddings": 4096,
}  # fmt: skip


class Hub(BaseHTTPRequestHandler):
    """Answers with the next of ``server.statuses``, then as a hub without ranges does."""

    server: Any

    def do_GET(self) -> None:
        self.server.tokens.append(self.headers.get("Authorization", ""))
        if self.path.startswith(("/api", "/org")) and self.server.statuses:
            status, headers = self.server.statuses.pop(0)
            self.reply(b"trouble", status, headers)
        elif self.path.startswith("/api"):
            self.reply(json.dumps({"siblings": [{"rfilename": "config.json", "size": 300}], "sha": "a" * 40}).encode())
        elif self.path.endswith("large"):
            self.reply(b"x" * (3 << 20))
        else:
            self.reply(json.dumps(CONFIG).encode())

    def do_HEAD(self) -> None:
        self.reply(b"")

    def reply(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ((headers or {}) | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.statuses, server.tokens = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (401, {}, "answered 401: .*set HF_TOKEN"),
        (403, {}, "answered 403: it is gated.*accept"),
        (404, {}, "no such file"),
        (410, {}, "no longer there"),
        (429, {"Retry-After": "120"}, "too many requests: try again in 120 s"),
        (500, {"Retry-After": "0"}, "in trouble .asked 3 times"),
        (502, {"Retry-After": "0"}, "in trouble"),
        (503, {"Retry-After": "0"}, "in trouble"),
        (504, {"Retry-After": "0"}, "in trouble"),
    ],
)
def test_each_status_has_its_sentence(hub: Any, status: int, headers: dict[str, str], said: str) -> None:
    hub.statuses = [(status, headers)] * 9

    with pytest.raises(HarnessError, match=said):
        read_repository("org/tiny")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_short_trouble_is_waited_for(hub: Any, status: int) -> None:
    hub.statuses = [(status, {"Retry-After": "0"})] * 2

    assert read_repository("org/tiny").shape.layer_count == 2


def test_a_long_wait_is_told_and_not_kept(hub: Any) -> None:
    hub.statuses = [(503, {"Retry-After": "3600"}), (200, {})]

    with pytest.raises(FetchError, match="in trouble"):
        read_repository("org/tiny")
    assert len(hub.statuses) == 1


def test_the_cache_answers_when_the_hub_is_in_trouble_later(hub: Any) -> None:
    read_repository("org/tiny")
    hub.statuses = [(503, {"Retry-After": "0"})] * 9

    assert read_repository("org/tiny").shape.layer_count == 2


def test_of_a_host_without_ranges_the_beginning_is_taken(hub: Any, tmp_path: Path) -> None:
    part = tmp_path / "part"
    url = f"http://127.0.0.1:{hub.server_port}/org/tiny/resolve/main/large"

    fetched = download("org/tiny/large", url, part, 1 << 60, stop=1 << 20)

    assert fetched.file_bytes == 3 << 20
    assert part.stat().st_size >= 1 << 20


def test_the_token_is_sent(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    read_repository("org/tiny")

    assert "Bearer hf_secret" in hub.tokens
