"""A folder of ONNX as a model, and runs of it by the command."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import BadDataError, RefusedError
from harness.verbs.locate import obtain
from tests.tiny_onnx import tiny_weights, write_tiny_decoder

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
WEIGHTS = tiny_weights()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-f32"
    path.mkdir()
    write_tiny_decoder(path, WEIGHTS)
    return path


def test_an_onnx_folder_is_a_model(folder: Path, tmp_path: Path):
    found = obtain(str(folder), "")
    assert (found.name, found.quant, found.format, found.path) == ("tiny-f32", "F32", "onnx", folder / "model.onnx")
    assert obtain(str(folder / "model.onnx"), "f32").name == "tiny-f32"
    with pytest.raises(RefusedError, match="holds F32, not Q4_0"):
        obtain(str(folder), "Q4_0")
    with pytest.raises(BadDataError, match=r"a folder without model\.onnx"):
        obtain(str(tmp_path), "")


def command(*arguments: str) -> tuple[int, dict[str, Any]]:
    line = [sys.executable, "-m", "harness", *arguments, "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)["items"][0]


@pytest.mark.engine
def test_run_of_a_folder_gives_an_ordinary_record(folder: Path):
    arguments = ["run", str(folder), "--runtime", "ort", "-c", "64", "-p", "16", "-n", "8", "-r", "2", "-t", "1"]
    status, record = command(*arguments)
    assert status in {0, 3}, record["detail"]  # 3: the machine was busy
    model, engine = record["model"], record["engine"]
    assert (model["name"], model["quant"]) == ("tiny-f32", "F32")
    files = [folder / "model.onnx", folder / "model.onnx.data"]
    assert model["size_bytes"] == sum(f.stat().st_size for f in files)
    assert engine["name"] == "onnxruntime"
    assert engine["thread_count"] == 1
    options = engine["options"]
    assert options["providers"] == ["CPUExecutionProvider"]
    labels = {s["label"] for s in record["samples"]}
    assert {"pp16", "tg8", "ttft16", "load", "load @ cold"} <= labels
    assert record["memory"]["peak_rss_bytes"] > 0


@pytest.mark.parametrize(
    ("runtime", "words"),
    [("llamacpp", "tiny-f32 is ONNX, and the runtime llamacpp runs GGUF: take --runtime ort")],
)
def test_a_backend_refuses_another_format(folder: Path, runtime: str, words: str):
    status, record = command("run", str(folder), "--runtime", runtime, "-c", "64", "-p", "16", "-n", "8")
    assert status == 4
    assert record["outcome"] == "refused"
    assert words in record["detail"]
