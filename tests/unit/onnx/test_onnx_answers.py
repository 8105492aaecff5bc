"""Answers of a model, judgement of the comparison, and runs of a folder by the command."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.engine_answers import AnswersJob, ask, greedy_tokens, score_text, surprise
from bench.versus_ort import REFERENCE, InconclusiveError, Speed, missed, ratios
from harness.app.locate import obtain
from harness.domain.scenario import Scenario
from harness.errors import BadDataError, RefusedError
from tests.fake import RUNTIME as FAKE
from tests.tiny_onnx import reference_logits, tiny_weights, write_tiny_decoder

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
WEIGHTS = tiny_weights()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-f32"
    path.mkdir()
    write_tiny_decoder(path, WEIGHTS)
    return path


def test_surprise_by_hand():
    # softmax of (0, ln 3) is (1/4, 3/4).
    logits = np.array([0, math.log(3)], np.float32)
    assert surprise(logits, 0) == pytest.approx(math.log(4), abs=1e-7)
    assert surprise(logits + 1000, 1) == pytest.approx(math.log(4 / 3), abs=1e-4)


def test_greedy_and_score_of_the_fake_rule(tmp_path: Path):
    """Its next token is (31 t + 7 p + 11) mod 256 with a logit of 1 among zeros."""
    path = tmp_path / "m.json"
    path.write_text("{}")
    session = FAKE.open(path, Scenario(context_tokens=64))
    # After 5 at position 0: 31*5 + 0 + 11 = 166; after 166 at 1: 5146 + 7 + 11 = 5164 mod 256 = 44.
    assert greedy_tokens(session, [5], 2) == [166, 44]
    hit, miss = math.log(255 + math.e) - 1, math.log(255 + math.e)
    # Chunk of 4: the first two are context, the fourth is scored: 44 after 166 at position 2 is wrong
    # (31*166 + 14 + 11 = 5171 mod 256 = 51), 51 is right.
    assert score_text(session, [0, 0, 166, 44], 4, 9)[0] == pytest.approx([miss])
    assert score_text(session, [0, 0, 166, 51], 4, 9)[0] == pytest.approx([hit])
    assert len(score_text(session, [0] * 11, 4, 9)[0]) == 2
    with pytest.raises(RefusedError, match="at least 4"):
        score_text(session, [1, 2, 3], 4, 1)


@pytest.mark.engine
def test_answers_of_a_child_are_those_of_the_formula(folder: Path, tmp_path: Path):
    text = tmp_path / "t.txt"
    text.write_text("some words to score, twice over and a bit more than that; the end is left out")
    signs = sorted(_alphabet())
    tokens = [signs.index(_sign(b)) for b in text.read_bytes()]
    job = AnswersJob(
        path=str(folder / "model.onnx"), runtime="ort", prompt="hello", greedy_count=5, text=str(text),
        chunk_tokens=32, chunk_count=2, prefill_tokens=16,
    )  # fmt: skip
    told = ask(job)
    expected = []
    for chunk in (tokens[:32], tokens[32:64]):
        rows = reference_logits(WEIGHTS, chunk)
        expected += [np.log(np.exp(rows[i]).sum()) - rows[i][chunk[i + 1]] for i in range(16, 31)]
    assert told.nll == pytest.approx(expected, abs=1e-4)
    sequence = list(told.prompt)
    for token in told.greedy:
        assert token == reference_logits(WEIGHTS, sequence)[-1].argmax()
        sequence.append(token)
    assert told.rss_bytes > told.base_rss_bytes > 0


def _alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return list(pre_tokenizers.ByteLevel.alphabet())


def _sign(byte: int) -> str:
    return chr(byte) if 33 <= byte <= 126 else chr(256 + byte)  # a space is U+0120 in byte-level BPE


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
    assert options["quantization"] == "F32"
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


def test_comparison_judges():
    slow, fast = Speed(50, 80, 0, 6), Speed(100, 100, 0, 6)
    found = ratios({REFERENCE: [fast, fast, slow], "ORT INT4": [slow, fast, slow]})
    # Decode in each round: 80/100, 100/100, 80/80; the median is 1. Prefill: 0.5, 1, 1.
    assert found["ORT INT4"] == {"prefill": 1.0, "decode": 1.0}
    assert missed({"ratios": found, "memory": {"ORT FP32": {"rss_ratio": 1.15}}, "answers": {"as_torch": 32}}) == []
    bad = {
        "ratios": {"ORT INT4": {"decode": 0.89}},
        "memory": {"ORT FP32": {"rss_ratio": 1.16}},
        "answers": {"as_torch": 31},
    }
    assert len(missed(bad)) == 3
    with pytest.raises(InconclusiveError, match="4 of 6"):
        ratios({REFERENCE: [Speed(1, 1, 4, 6)]})
