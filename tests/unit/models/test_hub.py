"""Shapes from a hub: a real server on a socket, real files, and what it was asked for."""

import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.made_models import synthesize
from harness.answer.resolve import resolve_model
from harness.core.errors import BadDataError, FetchError, RefusedError, UnknownNameError
from harness.core.model import ModelShape
from harness.models import hub_client
from harness.models.gguf import read_gguf
from harness.models.hub import read_repository
from harness.models.names import hub_parts
from harness.models.weights import weights_of
from harness.verbs.locate import obtain

pytest.importorskip("huggingface_hub")

SHAPE = ModelShape(
    architecture="qwen3", layer_count=2, hidden_dim=512, vocab_count=40_000, head_count=8, kv_head_count=2,
    head_dim=64, feed_forward_dim=1024, qk_norm=True, context_max_tokens=4096, tied_embeddings=True,
)  # fmt: skip
CONFIG = {
    "model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 512, "vocab_size": 40_000, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 1024, "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}  # fmt: skip
COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """Serves ``server.files`` as the hub does: a listing, whole files, ranges of bytes."""

    server: Any

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        self.server.tokens.append((self.path, self.headers.get("Authorization", "")))
        if (
            self.server.token
            and self.path.startswith("/org/")
            and self.server.token not in self.headers.get("Authorization", "")
        ):
            self.send(b"no token", 401, body, {"X-Error-Code": "GatedRepo"})
            return
        if self.server.elsewhere and "/resolve/" in self.path:  # weights lie with another host
            self.send(b"", 302, body, {"Location": f"{self.server.elsewhere}{self.path}"})
            return
        if self.path.startswith("/v2/"):
            self.registry(body=body)
            return
        if self.path.startswith("/api/models?"):
            self.send(self.server.ranking, 200, body, {"Content-Type": "application/json"})
            return
        listing = re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/\w+|/tree/\w+)?(?:\?.*)?", self.path)
        resolved = re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/\w+/([^?]+)", self.path)
        if listing:
            names = [name for repo, name in self.server.files if repo == listing[1]]
            sizes = {n: len(self.server.files[listing[1], n]) for n in names}
            tree = [{"type": "file", "path": n, "rfilename": n, "size": sizes[n], "oid": "0" * 40} for n in names]
            for each in tree:
                data = self.server.files[listing[1], each["path"]]
                each["lfs"] = {"sha256": self.server.digest or hashlib.sha256(data).hexdigest(), "size": len(data)}
            document = tree if "/tree/" in self.path else {"id": listing[1], "sha": COMMIT, "siblings": tree}
            self.send(json.dumps(document).encode(), 200 if names else 404, body, {"Content-Type": "application/json"})
            return
        data = self.server.files.get((resolved[1], resolved[2])) if resolved else None
        if data is None:
            self.send(b"no such file", 404, body, {"X-Error-Code": "EntryNotFound"})
            return
        digest = self.server.digest or hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        self.part(resolved[2], data, body, headers)

    def registry(self, *, body: bool) -> None:
        """What Ollama's registry answers: a manifest of layers, and blobs by their digests."""
        blobs = {"sha256:" + hashlib.sha256(data).hexdigest(): data for data in self.server.blobs.values()}
        manifest = re.fullmatch(r"/v2/(library/\w+)/manifests/([\w.]+)", self.path)
        if manifest and self.server.blobs:
            kinds = {"model": "image.model", "tower": "image.projector", "licence": "image.license"}
            layers = [
                {"mediaType": f"application/vnd.ollama.{kinds[kind]}", "size": len(data), "digest": digest}
                for (kind, data), digest in zip(self.server.blobs.items(), blobs, strict=True)
            ]
            self.send(json.dumps({"schemaVersion": 2, "layers": layers}).encode(), 200, body, {})
            return
        digest = self.path.rpartition("/")[2]
        if digest in blobs:
            self.part(digest, blobs[digest], body, {})
            return
        self.send(b"unknown", 404, body, {})

    def part(self, name: str, data: bytes, body: bool, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked is None:
            self.send(data, 200, body, headers)
            return
        start, end = int(asked[1]), min(int(asked[2]), len(data) - 1, int(asked[1]) + self.server.most_bytes - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        self.server.ranges.append((name, start, end + 1))
        self.send(data[start : end + 1], 206, body, headers)

    def send(self, data: bytes, status: int, body: bool, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)
            self.server.sent_bytes += len(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serving() -> Any:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.ranges, server.sent_bytes, server.most_bytes, server.digest = {}, [], 0, 1 << 40, ""
    server.token, server.tokens, server.elsewhere, server.blobs = "", [], "", {}
    server.ranking = b"[]"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server = serving()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesize(weights_of(SHAPE, "Q8_0"), tmp_path_factory.mktemp("hub") / "tiny-Q8_0.gguf")


def test_a_config_tells_the_shape_and_nothing_else_is_fetched(hub: Any) -> None:
    hub.files = {
        ("org/tiny", "config.json"): json.dumps(CONFIG).encode(),
        ("org/tiny", "model.safetensors"): b"x" * 10**6,
    }

    found = resolve_model("hf:org/tiny", "Q8_0")

    assert found.weights.shape == SHAPE
    assert found.weights.tensors == weights_of(SHAPE, "Q8_0").tensors
    assert hub.sent_bytes < 10_000


def test_a_header_is_read_by_ranges_and_the_weights_stay_there(hub: Any, gguf: Path) -> None:
    data = gguf.read_bytes()
    hub.files = {("org/tiny-GGUF", "tiny-Q8_0.gguf"): data, ("org/tiny-GGUF", "tiny-Q4_0.gguf"): b"unasked"}

    found = read_repository("org/tiny-GGUF", quant="Q8_0")

    header = read_gguf(gguf)
    assert found.weights == header.weights()
    assert {name for name, _, _ in hub.ranges} == {"tiny-Q8_0.gguf"}
    read_bytes = sum(end - start for _, start, end in hub.ranges)
    assert header.data_offset_bytes <= read_bytes < max(2 * header.data_offset_bytes, 1 << 20) + 1 < len(data)


def test_a_read_that_was_cut_goes_on_where_it_ended(hub: Any, gguf: Path) -> None:
    hub.files = {("org/tiny-GGUF", "tiny-Q8_0.gguf"): gguf.read_bytes()}
    hub.most_bytes = 300_000  # the server sends less than asked for

    found = read_repository("org/tiny-GGUF", "tiny-Q8_0.gguf")

    assert found.weights == read_gguf(gguf).weights()
    starts = [start for _, start, _ in hub.ranges]
    assert starts == sorted(set(starts)), "no byte twice"
    assert len(starts) > 2


def test_the_second_time_nobody_is_asked(hub: Any, gguf: Path) -> None:
    hub.files = {
        ("org/tiny-GGUF", "tiny-Q8_0.gguf"): gguf.read_bytes(),
        ("org/tiny", "config.json"): json.dumps(CONFIG).encode(),
    }
    first = resolve_model("hf:org/tiny-GGUF:tiny-Q8_0.gguf"), resolve_model("hf:org/tiny")
    hub.shutdown()
    hub.server_close()

    assert (resolve_model("hf:org/tiny-GGUF:tiny-Q8_0.gguf"), resolve_model("hf:org/tiny")) == first


def test_what_is_kept_is_compared_once_a_day_and_counts_where_nobody_answers(
    hub: Any, gguf: Path, tmp_path: Path
) -> None:
    names = ("org/tiny-GGUF", "tiny-Q8_0.gguf")
    hub.files = {names: gguf.read_bytes()}

    def resolved_later() -> Any:
        for path in (tmp_path / "cache" / "hub").rglob("*"):
            os.utime(path, (1e9, 1e9))
        hub.ranges.clear()
        return resolve_model("hf:org/tiny-GGUF:Q8_0").weights.shape.layer_count

    first = resolved_later()
    assert (resolved_later(), hub.ranges) == (first, []), "the same file: its header is not read again"
    other = synthesize(weights_of(SHAPE.replace(layer_count=SHAPE.layer_count + 1), "Q8_0"), tmp_path / "other.gguf")
    hub.files = {names: other.read_bytes()}
    assert resolved_later() == first + 1
    assert hub.ranges
    asked = len(hub.tokens)
    resolve_model("hf:org/tiny-GGUF:Q8_0")
    assert len(hub.tokens) == asked, "within a day nobody is asked"
    hub.shutdown()
    hub.server_close()
    assert resolved_later() == first + 1


def test_a_split_model_is_the_sum_of_its_parts(hub: Any, gguf: Path, tmp_path: Path) -> None:
    """Two files, each with a half of the tensors; the metadata stand in the first."""
    from bench.made_models import metadata_of
    from harness.models.gguf_write import write_gguf

    whole = weights_of(SHAPE, "Q8_0")
    half = len(whole.tensors) // 2
    for i, tensors in enumerate((whole.tensors[:half], whole.tensors[half:]), 1):
        name = f"tiny-Q8_0-0000{i}-of-00002.gguf"
        metadata = metadata_of(SHAPE, name="tiny", quant="Q8_0") if i == 1 else {"general.architecture": "qwen3"}
        write_gguf(tmp_path / name, metadata, tensors, lambda out, t: out.write(bytes(t.size_bytes)))
        hub.files["org/split", name] = (tmp_path / name).read_bytes()

    found = resolve_model("org/split:Q8_0")

    assert found.weights.shape == SHAPE
    assert [t.name for t in found.weights.tensors] == [t.name for t in whole.tensors]
    for part in tmp_path.glob("*.gguf"):  # and of a folder here, whichever of its files is named
        assert resolve_model(str(part)).weights == found.weights


def test_what_is_not_there_is_said(hub: Any, gguf: Path) -> None:
    hub.files = {("org/tiny-GGUF", "tiny-Q8_0.gguf"): gguf.read_bytes()}

    with pytest.raises(UnknownNameError, match="Q2_K in org/tiny-GGUF"):
        resolve_model("hf:org/tiny-GGUF", "Q2_K")
    with pytest.raises(UnknownNameError, match=r"other\.gguf"):
        resolve_model("hf:org/tiny-GGUF:other.gguf")
    with pytest.raises(FetchError, match="org/none"):
        resolve_model("hf:org/none")
    with pytest.raises(RefusedError, match="hf:org/repo"):
        resolve_model("hf:llama")


@pytest.mark.parametrize("listens", [False, True], ids=["refuses", "says nothing"])
def test_a_hub_that_does_not_answer_is_told_within_five_seconds(
    listens: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The client itself would try five times: 20 s before the error."""
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path))
    assert hub_client._ANSWER_S < 5
    monkeypatch.setattr(hub_client, "_ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if not listens:
            silent.close()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        began_s = time.monotonic()
        with pytest.raises(FetchError, match=f"127.0.0.1:{port} cannot be reached"):
            read_repository("org/tiny")
    assert time.monotonic() - began_s < 3


def test_a_repository_that_cannot_be_had_is_bounded_where_its_name_tells_a_size(hub: Any) -> None:
    hub.files = {("org/Quokka-9B", "config.json"): b'{"model_type": "quokka"}'}

    for name in ("org/Quokka-9B", "org/Emu-9B"):  # an architecture nobody knows, and a repository that is not there
        found = resolve_model(name)
        assert found.guess is not None
        assert found.guess.params_b == 9
        assert "the hub gave no shape" in found.notes[0]


def test_a_file_that_is_no_gguf_is_refused_at_once(hub: Any) -> None:
    hub.files = {("org/bad", "bad-Q8_0.gguf"): b"<html>" * 10**6}

    with pytest.raises(Exception, match="magic"):
        resolve_model("hf:org/bad:bad-Q8_0.gguf")
    assert sum(end - start for _, start, end in hub.ranges) <= 1 << 20


@pytest.mark.parametrize(
    ("name", "repo", "file"),
    [
        ("hf:org/tiny-GGUF", "org/tiny-GGUF", "tiny-Q8_0.gguf"),
        ("hf:org/tiny-GGUF:tiny-Q8_0.gguf", "org/tiny-GGUF", "tiny-Q8_0.gguf"),
        ("org/tiny-GGUF:Q8_0", "org/tiny-GGUF", "tiny-Q8_0.gguf"),
        # a card without a file of its own: from the repository that the table names
        ("llama-3.2-1b:Q8_0", "bartowski/Llama-3.2-1B-Instruct-GGUF", "Llama-3.2-1B-Instruct-Q8_0.gguf"),
    ],
)
def test_a_file_is_obtained_from_wherever_it_is(hub: Any, gguf: Path, name: str, repo: str, file: str) -> None:
    hub.files = {(repo, file): gguf.read_bytes()}

    first = obtain(name, "Q8_0")
    sent_bytes = hub.sent_bytes
    again = obtain(name, "Q8_0")

    assert first.path.read_bytes() == gguf.read_bytes()
    assert (first.quant, again.path) == ("Q8_0", first.path)
    assert hub.sent_bytes == sent_bytes


def test_a_file_that_is_not_what_the_hub_promised_is_deleted(hub: Any, gguf: Path) -> None:
    hub.files = {("org/tiny-GGUF", "tiny-Q8_0.gguf"): gguf.read_bytes()}
    hub.digest = "b" * 64

    with pytest.raises(FetchError, match="SHA-256"):
        obtain("hf:org/tiny-GGUF", "Q8_0")


def test_what_nobody_offers_is_said_with_what_to_do(hub: Any) -> None:
    with pytest.raises(FetchError, match=r"can be had as hf:bartowski/Llama-3.2-1B-Instruct-GGUF"):
        obtain("llama-3.2-1b", "")
    with pytest.raises(RefusedError, match="only a shape here"):
        obtain("gpt2", "")
    with pytest.raises(RefusedError, match="glm-4\\.6 has only a shape here, no file"):  # glm-4.7's is another
        obtain("glm-4.6", "Q4_K_M")


def test_a_file_that_is_not_here_is_no_model_that_was_guessed(hub: Any) -> None:
    assert resolve_model("my-finetune-13b.Q4_K_M.gguf").guess is not None  # good enough to ask whether it would fit
    with pytest.raises(BadDataError, match=r"my-finetune-13b\.Q4_K_M\.gguf: found No such file"):
        obtain("my-finetune-13b.Q4_K_M.gguf", "")


def test_of_a_repository_of_gguf_files_the_header_counts_and_its_tower(hub: Any, gguf: Path) -> None:
    """Uploaders keep a config.json beside their files; the file's own header is exact."""
    data = gguf.read_bytes()
    hub.files = {
        ("org/seer-GGUF", "config.json"): json.dumps(CONFIG).encode(),
        ("org/seer-GGUF", "seer-Q8_0.gguf"): data,
        ("org/seer-GGUF", "mmproj-seer-BF16.gguf"): b"x" * 900,
        ("org/seer-GGUF", "mmproj-seer-F16.gguf"): b"x" * 1000,
    }

    found = resolve_model("hf:org/seer-GGUF")

    assert found.weights == read_gguf(gguf).weights()
    assert found.quant == "Q8_0"  # the only one there is
    assert found.tower_bytes == 1000
    assert {name for name, _, _ in hub.ranges} == {"seer-Q8_0.gguf"}


def test_weights_on_another_host_are_followed_and_the_token_stays(
    hub: Any, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = serving()
    other.files = hub.files = {("org/tiny-GGUF", "tiny-Q8_0.gguf"): gguf.read_bytes()}
    hub.elsewhere = f"http://localhost:{other.server_port}"  # another name: another host to a client
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    found = resolve_model("hf:org/tiny-GGUF:tiny-Q8_0.gguf")

    assert found.weights == read_gguf(gguf).weights()
    assert any("hf_secret" in token for _, token in hub.tokens)
    assert other.tokens
    assert not any(token for _, token in other.tokens)
    other.shutdown()
    other.server_close()


def test_a_gated_repository_says_that_it_wants_a_token(hub: Any, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    hub.files = {("org/tiny-GGUF", "tiny-Q8_0.gguf"): gguf.read_bytes()}
    hub.token = "hf_secret"

    with pytest.raises(FetchError, match="wants a token"):
        resolve_model("hf:org/tiny-GGUF:tiny-Q8_0.gguf")


def test_an_address_of_a_file_is_a_model_and_no_token_goes_there(
    hub: Any, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = serving()
    other.files = {("org/tiny", "tiny-Q8_0.gguf"): gguf.read_bytes()}
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    url = f"http://127.0.0.1:{other.server_port}/org/tiny/resolve/main/tiny-Q8_0.gguf"

    found = resolve_model(url)
    asked = len(other.ranges)
    again = resolve_model(url)

    assert found.weights == again.weights == read_gguf(gguf).weights()
    assert len(other.ranges) == asked
    assert not any(token for _, token in other.tokens)
    other.shutdown()
    other.server_close()


def test_a_name_of_ollamas_registry_is_read_by_its_blob(hub: Any, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.models.hub._OLLAMA", f"http://127.0.0.1:{hub.server_port}")
    hub.blobs = {"licence": b"free", "model": gguf.read_bytes(), "tower": b"x" * 700}

    found = resolve_model("ollama:quokka:8b")

    assert found.weights == read_gguf(gguf).weights()
    assert found.tower_bytes == 700
    read_bytes = sum(end - start for _, start, end in hub.ranges)
    assert read_bytes < len(hub.blobs["model"]) / 2
    hub.blobs = {}
    assert resolve_model("ollama:quokka:8b").weights == found.weights  # of the cache
    with pytest.raises(FetchError, match=r"emu.*404"):
        resolve_model("ollama:emu")
    with pytest.raises(RefusedError, match="Ollama's registry"):
        resolve_model("ollama:../../etc:8b")
    hub.blobs = {"tower": b"x" * 700}
    with pytest.raises(BadDataError, match="no model file"):
        resolve_model("https://ollama.com/library/wombat")


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("https://huggingface.co/org/repo", ("org/repo", "", "")),
        (
            "https://huggingface.co/org/repo/resolve/main/a/b-Q4_K_M.gguf?download=true",
            ("org/repo", "a/b-Q4_K_M.gguf", ""),
        ),
        ("https://hf.co/org/repo/blob/main/c.gguf", ("org/repo", "c.gguf", "")),
    ],
)
def test_addresses_of_the_hub_are_its_repositories(address: str, parts: tuple[str, str, str]) -> None:
    assert hub_parts(address) == parts
