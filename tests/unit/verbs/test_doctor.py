"""The doctor on machines that lack something; the engine is hidden from it, not replaced."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.runtimes.llamacpp.builds import all_here
from harness.runtimes.llamacpp.loaded_devices import pull_command
from harness.verbs.doctor import machine_apis

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


def test_without_an_engine_one_command_leads_on(tmp_path: Path) -> None:
    found = doctor(tmp_path, hidden=ENGINES, path=str(tmp_path))
    assert next(iter(found)) == "next: an engine"
    assert ("engines pull" in found["next: an engine"]["detail"]) == bool(all_here())
    assert "onnx" in found["next: an engine"]["detail"]
    assert found["runtime llamacpp"]["state"] == "missing"


@pytest.mark.engine
def test_with_an_engine_its_apis_are_named(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    found = doctor(tmp_path, hidden=())
    assert any(name.startswith("device ") and f["detail"].startswith("cpu: ") for name, f in found.items())
    assert "next: an engine" not in found


def test_the_command_for_a_gpu_is_that_of_a_known_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert pull_command("vulkan") == "edge-harness engines pull --api vulkan"
    assert not pull_command("cuda"), "no build of it is known for Arm"
    assert not pull_command("npu")


def test_vulkan_of_windows_is_its_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.verbs.doctor.find_library", lambda name: "found" if name == "vulkan-1" else None)
    assert "vulkan" not in machine_apis()
    monkeypatch.setattr(sys, "platform", "win32")
    assert "vulkan" in machine_apis()
