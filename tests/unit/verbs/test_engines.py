"""An engine that fits this machine: what one leaves unused, and one that is fetched, loaded and run."""

import hashlib
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.core.errors import FetchError
from harness.measure.pipeline import Listener
from harness.runtimes.llamacpp import builds as engines
from harness.runtimes.llamacpp import library as binding
from harness.runtimes.llamacpp.builds import Build, Source
from harness.verbs import engines as app


@pytest.mark.parametrize(
    ("engine", "machine", "lacks"),
    [
        pytest.param(("avx2",), ("avx2", "avx512", "avx512_vnni", "amx"), "amx", id="the wheel on a Sapphire Rapids"),
        pytest.param(("avx2", "avx512"), ("avx2", "avx512", "amx"), "amx", id="AVX-512 there"),
        pytest.param(("avx2",), ("avx2", "avx_vnni", "avx512", "avx512_vnni"), "avx512", id="the wheel on a Zen 5"),
        pytest.param(("avx2", "avx512", "avx512_vnni"), ("avx2", "avx_vnni", "avx512", "avx512_vnni"), "", id="zen4"),
        pytest.param(("avx2",), ("avx2",), "", id="the wheel on AVX2"),
        pytest.param(("neon", "dotprod"), ("neon", "dotprod", "i8mm"), "", id="nobody has measured it"),
    ],
)
def test_what_an_engine_leaves_unused(engine: tuple[str, ...], machine: tuple[str, ...], lacks: str) -> None:
    lack = app.lacking(engine, machine)
    assert (lack.isa if lack else "") == lacks


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """The installed library as an archive that a server has, and the only build that is known."""
    lib = binding.installed().get("llama_cpp")
    if lib is None or sys.platform != "linux":
        pytest.skip("needs llama-cpp-python on Linux")
    monkeypatch.setenv("EDGE_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LLAMA_CPP_LIB_PATH", raising=False)
    archive = tmp_path / "served" / "llama.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in lib.parent.glob("lib*"):
            tar.add(path, f"llama-b1/{path.name}")
    handler = partial(SimpleHTTPRequestHandler, directory=archive.parent)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(engines.MIRROR_VARIABLE, f"http://127.0.0.1:{server.server_port}")
    data = archive.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    build = Build(
        system="linux", machine="x", api="cpu", source=Source.RELEASE, place=archive.name, size_bytes=len(data),
        digest=digest,
    )  # fmt: skip
    monkeypatch.setattr(app, "builds_here", lambda _api: [build])
    return build


@pytest.mark.engine
def test_a_release_is_fetched_asked_and_runs_until_it_is_removed(release: Build) -> None:
    build, engine = app.pull("", Listener())
    assert (build, engine.brought_by) == (release, release.title)
    assert engine.isa  # it answered, in a process of its own
    assert next(iter(binding.installed())) == binding.PULLED
    assert binding.brought_by() == release.title
    assert app.show().pulled == release
    engines.remove()
    assert binding.brought_by().startswith("llama-cpp-python")


@pytest.mark.engine
def test_a_library_that_cannot_be_loaded_is_no_engine(release: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = engines.unpack

    def cut(archive: Path, folder: Path, most_bytes: int) -> None:
        whole(archive, folder, most_bytes)
        for path in folder.glob("libggml-base.so*"):
            path.unlink()

    monkeypatch.setattr(engines, "unpack", cut)
    with pytest.raises(FetchError, match="libggml-base"):
        app.pull("", Listener())
    assert binding.PULLED not in binding.installed()


@pytest.mark.engine
def test_who_agreed_gets_it_and_who_did_not_is_told(release: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    lack = app.Lack(isa="amx", prompt_gain=(1.5, 4.5), decode_gain=(0.9, 1.8))
    monkeypatch.setattr(app, "lacking", lambda _engine, _machine: lack)
    app.improve(Listener(lines.append), agreed=False)
    assert "does not use this machine's amx" in lines[0]
    assert "1.5 to 4.5 times" in lines[0]
    assert "edge-harness engines pull" in lines[0]
    assert engines.pulled() is None
    app.improve(Listener(lines.append), agreed=True)
    assert engines.pulled() == release


@pytest.mark.engine
def test_what_cannot_be_fetched_does_not_stop_a_check(release: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    lack = app.Lack(isa="amx", prompt_gain=(1.5, 4.5), decode_gain=(0.9, 1.8))
    monkeypatch.setattr(app, "lacking", lambda _engine, _machine: lack)
    monkeypatch.setenv(engines.MIRROR_VARIABLE, "http://127.0.0.1:9")
    app.improve(Listener(lines.append), agreed=True)
    assert "could be fetched" in lines[-1]
    assert "refused" in lines[-1]
