"""Engines that are fetched: the table of pinned builds, archives of strangers, and what a server may do wrong."""

import gzip
import hashlib
import io
import re
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.core.errors import BadDataError, CouldNotRunError, FetchError, RefusedError
from harness.runtimes.llamacpp import builds as engines
from harness.runtimes.llamacpp.builds import Build, Source, builds, install, pulled, remove, unpack


def test_every_build_is_pinned() -> None:
    for build in builds():
        if build.source is Source.RELEASE:
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", build.digest)
            assert build.place.startswith("llama-b11146-bin-")
        else:
            assert re.fullmatch(r"sha512:[0-9a-f]{128}", build.digest)
            assert re.fullmatch(r"@node-llama-cpp/[a-z0-9-]+@3\.22\.1", build.place)
    assert len({build.place for build in builds()}) == len(builds())


@pytest.mark.parametrize(
    ("system", "machine", "api", "places"),
    [
        ("linux", "x86_64", "", ["llama-b11146-bin-ubuntu-x64.tar.gz", "@node-llama-cpp/linux-x64@3.22.1"]),
        ("linux", "aarch64", "", ["llama-b11146-bin-ubuntu-arm64.tar.gz", "@node-llama-cpp/linux-arm64@3.22.1"]),
        ("darwin", "arm64", "", ["llama-b11146-bin-macos-arm64.tar.gz"]),
        ("win32", "AMD64", "vulkan", ["llama-b11146-bin-win-vulkan-x64.zip"]),
    ],
)
def test_the_builds_of_a_machine(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, api: str, places: list[str]
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert [build.place for build in engines.builds_here(api)] == places


def test_a_machine_without_a_build_is_told_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(RefusedError, match="is known for linux on riscv64"):
        engines.builds_here()


def packed(*members: tuple[str, bytes | str]) -> bytes:
    """A .tar.gz of files, and of links where the contents are a text."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, contents in members:
            info = tarfile.TarInfo(name)
            if isinstance(contents, str):
                info.type = tarfile.SYMTYPE
                info.linkname = contents
                tar.addfile(info)
            else:
                info.size = len(contents)
                tar.addfile(info, io.BytesIO(contents))
    return out.getvalue()


def unpacked(data: bytes, folder: Path, name: str = "a.tar.gz", most: int = 1000) -> list[str]:
    archive = folder / name
    archive.write_bytes(data)
    files = folder / "files"
    files.mkdir()
    unpack(archive, files, most)
    assert sorted(path.name for path in folder.iterdir()) == sorted([name, "files"])
    return sorted(path.name for path in files.iterdir())


def test_files_and_their_links_lie_in_one_folder(tmp_path: Path) -> None:
    data = packed(
        ("llama-b1/libllama.so", "libllama.so.0"),
        ("llama-b1/libllama.so.0", "libllama.so.0.5"),
        ("llama-b1/libllama.so.0.5", b"library"),
        ("llama-b1/passwd", "/etc/passwd"),
        ("llama-b1/up", "../../a.tar.gz"),
    )
    assert unpacked(data, tmp_path) == ["libllama.so", "libllama.so.0", "libllama.so.0.5"]
    assert (tmp_path / "files" / "libllama.so").read_bytes() == b"library"


@pytest.mark.parametrize("name", ["../../escape.so", "/escape.so", "a/../../../escape.so"])
def test_no_name_leads_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    assert unpacked(packed((name, b"x")), tmp_path / "in") == ["escape.so"]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        pytest.param(packed(("a/x", b"1"), ("b/x", b"2")), "two files named x", id="the same name twice"),
        pytest.param(packed(("x", b"0" * 1001)), "more than 0 MiB", id="one byte too many"),
        pytest.param(packed(*((f"{n}", b"") for n in range(401))), "more than 400 files", id="a flood of files"),
        pytest.param(packed(("x", b"1" * 900))[:60], "a.tar.gz: ", id="cut off"),
        pytest.param(b"no archive", "a.tar.gz: ", id="no archive"),
        pytest.param(gzip.compress(b"no tar"), "a.tar.gz: ", id="no tar in it"),
    ],
)
def test_bad_archives_are_refused(tmp_path: Path, data: bytes, fault: str) -> None:
    with pytest.raises(FetchError, match=fault):
        unpacked(data, tmp_path)


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match="a name inside one folder"):
        unpacked(packed(("a/..", b"1")), tmp_path)


def test_zip_archives_are_unpacked_within_the_same_bounds(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bin/llama.dll", b"library")
        archive.writestr("bomb", b"0" * 10_000)
    with pytest.raises(FetchError, match="unpacks to more than"):
        unpacked(out.getvalue(), tmp_path, "a.zip", most=9_000)


DRIP = (1 << 20, 0.0)
"""Bytes of a piece that is sent, and the seconds after it."""


class Handler(BaseHTTPRequestHandler):
    """Gives what the server holds for a path, with the length it is told to claim."""

    def do_GET(self) -> None:
        status, body = self.server.answers.get(self.path, (404, b""))  # type: ignore[attr-defined]
        if status == 0:
            self.wfile.write(body)
            return
        self.send_response(status)
        if status == 302:
            self.send_header("Location", body.decode())
        self.end_headers()
        piece_bytes, pause_s = DRIP
        with suppress(OSError):  # the client has gone
            for start in range(0, len(body), piece_bytes):
                self.wfile.write(body[start : start + piece_bytes])
                time.sleep(pause_s)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, tuple[int, bytes]]]:
    """What a server of releases answers, by path; the cache is an empty folder."""
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path / "cache"))
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.answers = {}  # type: ignore[attr-defined]
    monkeypatch.setenv(engines.MIRROR_VARIABLE, f"http://127.0.0.1:{listening.server_port}/b1/")
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    yield listening.answers  # type: ignore[attr-defined]
    listening.shutdown()


def release(data: bytes) -> Build:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Build(
        system="linux", machine="x86_64", api="cpu", source=Source.RELEASE, place="e.tar.gz", size_bytes=len(data),
        digest=digest,
    )  # fmt: skip


def quiet(_done: int, _all: int) -> None:
    """No progress."""


def test_an_engine_comes_takes_the_place_of_the_last_and_goes(server: dict[str, tuple[int, bytes]]) -> None:
    for version in (b"first", b"second"):
        data = packed(("e/libllama.so", version))
        server["/b1/e.tar.gz"] = (200, data)
        build = release(data)
        asked = []
        install(build, asked.append, quiet)
        folder = engines.engine_folder()
        assert (folder / "libllama.so").read_bytes() == version
        assert len(asked) == 1
        assert pulled() == build
    assert sorted(path.name for path in folder.parent.iterdir()) == ["engine", "engine.lock"]
    assert remove()
    assert pulled() is None
    assert not remove()


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        pytest.param((404, b""), "127.0.0.1 answered 404", id="not there"),
        pytest.param((200, b"0" * 500), r"sends more than the \d+ bytes", id="too long"),
        pytest.param((0, b"no http\r\n\r\n"), "e.tar.gz: RemoteProtocolError", id="no answer of the protocol"),
        pytest.param((200, b"short"), r"found 5 bytes, expected \d+", id="cut off"),
    ],
)
def test_what_a_server_does_wrong_leaves_the_old_engine(
    server: dict[str, tuple[int, bytes]], answer: tuple[int, bytes], fault: str
) -> None:
    data = packed(("e/libllama.so", b"old"))
    server["/b1/e.tar.gz"] = (200, data)
    install(release(data), lambda _: None, quiet)
    folder = engines.engine_folder()
    server["/b1/e.tar.gz"] = answer
    with pytest.raises(FetchError, match=fault):
        install(release(packed(("e/libllama.so", b"new"))), lambda _: None, quiet)
    assert (folder / "libllama.so").read_bytes() == b"old"
    assert not folder.with_suffix(".staging").exists()


def test_a_server_that_drips_is_left_at_the_deadline_of_the_whole(
    server: dict[str, tuple[int, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte every tenth of a second keeps within any limit of silence."""
    monkeypatch.setattr(f"{__name__}.DRIP", (1, 0.1))
    monkeypatch.setattr("harness.models.hub_client._PAGE_S", 0.5)
    data = packed(("e/libllama.so", b"slow"))
    server["/b1/e.tar.gz"] = (200, data)
    began_s = time.monotonic()
    with pytest.raises(FetchError, match=r"was too slow: \d bytes of at most"):
        install(release(data), lambda _: None, quiet)
    assert time.monotonic() - began_s < 5
    assert pulled() is None


def test_a_release_is_fetched_from_where_its_address_leads(server: dict[str, tuple[int, bytes]]) -> None:
    data = packed(("e/libllama.so", b"there"))
    server["/b1/e.tar.gz"] = (302, b"/elsewhere")
    server["/elsewhere"] = (200, data)
    install(release(data), lambda _: None, quiet)
    assert (engines.engine_folder() / "libllama.so").read_bytes() == b"there"


def test_another_file_of_the_same_size_is_refused(server: dict[str, tuple[int, bytes]]) -> None:
    data = packed(("e/libllama.so", b"right"))
    build = release(data)
    server["/b1/e.tar.gz"] = (200, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(FetchError, match=r"found sha256 .*, expected "):
        install(build, lambda _: None, quiet)
    assert pulled() is None


def test_an_engine_that_does_not_answer_is_not_kept(server: dict[str, tuple[int, bytes]]) -> None:
    data = packed(("e/libllama.so", b"no library"))
    server["/b1/e.tar.gz"] = (200, data)

    def die(_folder: Path) -> None:
        raise FetchError("it ended at once")

    with pytest.raises(FetchError, match="ended at once"):
        install(release(data), die, quiet)
    assert pulled() is None


def test_npm_is_asked_for_no_script_and_no_more_than_the_one_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path))
    build = next(build for build in builds() if build.source is Source.NPM)
    with pytest.raises(FetchError, match="there is no npm client here"):
        install(build, lambda _: None, quiet)


def test_where_no_cache_can_be_made_nothing_was_pulled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An installed engine runs all the same, as on a disk that is read only."""
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path / "file" / "cache"))
    assert pulled() is None
    with pytest.raises(CouldNotRunError, match="EDGE_HARNESS_CACHE"):
        remove()
