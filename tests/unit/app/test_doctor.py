"""The doctor on machines that lack something; the engine is hidden from it, not replaced."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness.app.doctor import machine_apis
from harness.runtimes.llamacpp.devices import build_command

HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(name, name=name)
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name.partition(".")[0] in {names!r} else real(name, *more)
sys.meta_path.insert(0, Hidden())
from harness.cli import main
sys.argv = ["edge-harness", "doctor", "--json"]
main()
"""
ENGINES = (
    "llama_cpp",
    "xllamacpp",
    "ik_llama_cpp",
    "onnxruntime",
    "tokenizers",
    "distributed",
    "asyncssh",
)


def doctor(home: Path, *, hidden: tuple[str, ...], path: str | None = None) -> dict[str, dict[str, str]]:
    environment = os.environ | {"EDGE_HARNESS_HOME": str(home), "EDGE_HARNESS_CACHE": str(home)}
    if path is not None:
        environment["PATH"] = path
    done = subprocess.run(
        [sys.executable, "-c", HIDE.format(names=hidden)],
        capture_output=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return {f["name"]: f for f in json.loads(done.stdout)["items"]}


def test_without_an_engine_and_without_a_compiler(tmp_path: Path) -> None:
    found = doctor(tmp_path, hidden=ENGINES, path=str(tmp_path))
    assert next(iter(found)) == "next: an engine"
    wheels = (sys.platform, platform.machine()) in {("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")}
    assert (".[xllamacpp]" in found["next: an engine"]["detail"]) == wheels
    assert "onnx" in found["other engines"]["detail"]
    assert "cpu" in found["engine's apis"]["detail"]
    assert found["runtime llamacpp"]["state"] == "missing"


@pytest.mark.skipif(shutil.which("c++") is None, reason="no compiler here")
def test_without_an_engine_but_with_a_compiler(tmp_path: Path) -> None:
    found = doctor(tmp_path, hidden=ENGINES)
    assert "pip install '.[llama]'" in found["next: an engine"]["detail"]


@pytest.mark.engine
def test_with_an_engine_its_apis_are_named(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    found = doctor(tmp_path, hidden=())
    assert any(name.startswith("device ") and f["detail"].startswith("cpu: ") for name, f in found.items())
    assert "next: an engine" not in found
    assert "other engines" not in found


def test_a_processor_is_always_there() -> None:
    assert machine_apis()[0] == "cpu"


@pytest.mark.skipif(os.name == "nt", reason="a command of a POSIX shell")
@pytest.mark.parametrize("api", ["cuda", "rocm", "sycl", "vulkan"])
def test_the_command_for_a_gpu_can_be_pasted(tmp_path: Path, api: str) -> None:
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\nprintf "%s\\n" "$CMAKE_ARGS" "$@"\n')
    pip.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/bin:/usr/bin"}
    told = subprocess.run(["sh", "-c", build_command(api)], capture_output=True, text=True, env=environment, check=True)
    arguments, *words = told.stdout.splitlines()
    assert arguments.startswith("-DGGML_")
    assert words[0] == "install"
    assert {"--no-cache-dir", "--force-reinstall"} <= set(words)  # a wheel of the cache has no GPU in it
    pinned = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]["llama"]
    assert words[-1] in pinned
    assert not build_command("npu")


def test_vulkan_of_windows_is_its_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.app.doctor.find_library", lambda name: "found" if name == "vulkan-1" else None)
    assert "vulkan" not in machine_apis()
    monkeypatch.setattr(sys, "platform", "win32")
    assert "vulkan" in machine_apis()
