"""What a device, a mirror or an archive sends: nothing lies outside its folder, nothing takes more than its share."""

import gzip
import io
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import BadDataError, CouldNotRunError, FetchError, HarnessError
from harness.core.foreign import inside
from harness.measure.targets.shell import CounterFrames, Frame, ShellTarget, files_in
from harness.measure.targets.target_facts import facts
from harness.models.hub import read_repository

LEADING_OUT = [
    "../evil",
    "a/../../evil",
    "a/b/../../../evil",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a\\..\\..\\evil",
    "C:\\evil",
    "evil\0.txt",
    "//evil",
    "link/evil",
    "a/link2/evil",
]


@pytest.mark.parametrize("name", LEADING_OUT)
def test_no_name_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    (folder / "a").mkdir(parents=True)
    outside.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "a" / "link2").symlink_to("../../outside")

    with pytest.raises(BadDataError, match="expected a name inside one folder"):
        inside(folder, name, "a stranger")


@pytest.mark.parametrize("name", ["a", "a/b.txt", "a//b", "./a", "proc/cpuinfo", "..a", "a..b/c"])
def test_other_names_lie_below_it(name: str, tmp_path: Path) -> None:
    path = inside(tmp_path, name, "a stranger")

    assert path.is_relative_to(tmp_path.resolve())
    assert path.name == name.rpartition("/")[2]


@pytest.mark.parametrize(
    "name",
    ["/../../../home/.bashrc", "/proc/../../../../tmp/evil", "/..", "/proc/cpuinfo/../../../../evil", "/sys/..\\..\\x"],
)
def test_a_device_that_names_a_file_elsewhere_writes_nothing(name: str, tmp_path: Path) -> None:
    """The names in the output of ``head -v`` are the device's own words."""
    root = tmp_path / "a" / "b" / "c" / "root"
    root.mkdir(parents=True)
    answer = files_in([f"==> {name} <==", "hostile", "", "==> /proc/cpuinfo <==", "processor : 0"])
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(BadDataError, match="the device's answer"):
        Frame(0.0, answer).write(root)

    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == []


def device(tmp_path: Path, script: str) -> ShellTarget:
    """A device that answers every command with this script."""
    program = tmp_path / "device"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return ShellTarget("hostile", [str(program)], folder="/tmp/none")


def test_a_probed_device_cannot_write_a_users_file(tmp_path: Path) -> None:
    steps = "../" * 40
    evil = tmp_path / "home" / ".bashrc"
    evil.parent.mkdir()
    evil.write_text("mine")
    target = device(
        tmp_path,
        f"printf 'Linux\\n6.1\\naarch64\\n==> /{steps}{str(evil).lstrip('/')} <==\\nhostile\\n'",
    )

    with pytest.raises(BadDataError):
        facts(target)

    assert evil.read_text() == "mine"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("exec yes hostile", id="lines without end"),
        pytest.param("exec cat /dev/zero", id="one line without end"),
        pytest.param("head -c 300000000 /dev/zero | tr '\\0' '\\n'", id="300 million empty lines"),
    ],
)
def test_an_answer_without_end_is_cut_off(script: str, tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CouldNotRunError):
            device(tmp_path, script).shell("anything", timeout_s=20)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 200e6


@pytest.mark.parametrize("line", [b"x" * 100 + b"\n", b"x" * (1 << 16)])
def test_counters_without_end_are_no_longer_read(line: bytes) -> None:
    class Process:
        stdout = io.BufferedReader(io.BytesIO(line * (60_000_000 // len(line))))

    tracemalloc.start()
    try:
        counters = CounterFrames(Process())  # type: ignore[arg-type]
        with counters._more:
            counters._more.wait_for(lambda: counters.ended, 30)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert counters.ended
    assert not counters.frames
    assert peak_bytes < 50e6


def test_a_command_that_floods_its_output_is_ended(tmp_path: Path) -> None:
    running = device(tmp_path, "echo 'pid 1 1' >&2; exec yes hostile").start(["anything"])

    assert list(running.told()) == []
    _, output = running.finish(20)

    assert len(output) < 40e6


# --- a mirror


class Mirror(BaseHTTPRequestHandler):
    """Answers whatever is asked for in one hostile way."""

    server: Any

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        how = self.server.how
        listing = self.path.startswith("/api/")
        if listing and how != "listing":
            body = b'{"siblings": [{"rfilename": "m-Q4_K_M.gguf"}]}'
            self.send_response(206 if how == "half a listing" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Range", f"bytes 0-{len(body) - 1}/{2 * len(body)}")
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200 if how in {"no range", "listing"} else 206)
        if how != "no total":
            total = {"huge total": "9" * 400, "negative": "-5"}.get(how, "1000000000")
            self.send_header("Content-Range", f"bytes 0-1048575/{total}")
        if how == "gzip":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        block = gzip.compress(bytes(64 << 20)) if how == "gzip" else bytes(1 << 20)
        try:
            for _ in range(1 if how == "gzip" else 600):
                self.wfile.write(block)
                self.server.sent_bytes += len(block)
        except OSError:
            pass  # the reader has left

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("huggingface_hub")
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.sent_bytes = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("how", ["no range", "too much", "gzip", "no total", "huge total", "negative", "listing"])
def test_a_mirror_takes_no_more_memory_than_was_asked_for(how: str, mirror: Any) -> None:
    mirror.how = how
    tracemalloc.start()
    try:
        with pytest.raises(HarnessError):
            read_repository("org/tiny-GGUF")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 200e6


def test_half_a_listing_is_not_kept(mirror: Any, tmp_path: Path) -> None:
    mirror.how = "half a listing"
    with pytest.raises(FetchError, match="gave 46 of 92 bytes"):
        read_repository("org/tiny-GGUF")
    assert not list((tmp_path / "cache" / "hub").rglob("listing.json"))


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"siblings": [{"x": 1}]}', b"\xff\xfe"])
def test_a_damaged_listing_in_the_cache_is_one_error_and_asked_for_anew(
    damage: bytes, mirror: Any, tmp_path: Path
) -> None:
    mirror.how = "no range"
    kept = tmp_path / "cache" / "hub" / "org--tiny-GGUF" / "listing.json"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(damage)

    with pytest.raises(BadDataError, match="the hub's listing"):
        read_repository("org/tiny-GGUF")

    assert not kept.exists()
