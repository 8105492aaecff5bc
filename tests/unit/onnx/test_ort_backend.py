"""The ONNX Runtime runtime on decoders built by hand: against NumPy in double precision, and plain engine runs."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.core.errors import BadDataError, EngineError, RefusedError
from harness.core.ports import Session
from harness.core.scenario import Scenario
from harness.onnx.files import quantization
from harness.onnx.graph import read_graph
from harness.runtimes.ort import RUNTIME, decoder_ports
from tests.tiny_onnx import keep_last_logits, quantize, reference_logits, store, tiny_weights, write_tiny_decoder

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx_ir")
pytestmark = pytest.mark.engine

WEIGHTS = tiny_weights()
TOKENS = [int(t) for t in np.random.default_rng(1).integers(0, 256, 40)]
TRUTH = reference_logits(WEIGHTS, TOKENS)
NEAR = {"rtol": 0, "atol": 1e-4}
SMALL = Scenario(context_tokens=64, thread_count=1, ubatch_tokens=16)


@pytest.fixture(scope="module", params=["concatenated", "in place", "concatenated, last", "in place, last"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_tiny_decoder(tmp_path_factory.mktemp("m"), WEIGHTS, fused="in place" in request.param)
    if "last" in request.param:
        changed = onnx.load(path)
        keep_last_logits(changed)
        store(changed, path)
    return path


def test_it_is_a_session(model: Path):
    with RUNTIME.open(model, SMALL) as session:
        assert isinstance(session, Session)
        assert (session.vocab_count, session.context_tokens) == (256, 64)
        assert session.detokenize(session.tokenize("héllo")) == "héllo"


def test_logits_of_prompt_and_steps(model: Path):
    with RUNTIME.open(model, SMALL) as session:
        session.decode(TOKENS[:20], position=0, logits="all")  # in two runs: 16 and 4
        assert np.allclose(session.all_logits(), TRUTH[:20], **NEAR)
        assert session.greedy(3) == TRUTH[3].argmax()
        for at in range(20, 30):
            session.decode([TOKENS[at]], position=at)
            assert np.allclose(session.logits(), TRUTH[at], **NEAR)
        session.decode(TOKENS[30:40], position=30, logits="last")
        assert session.kept_count == 1
        assert np.allclose(session.logits(), TRUTH[39], **NEAR)


def test_rows_of_a_prompt_that_nobody_reads_are_let_go(model: Path):
    with RUNTIME.open(model, SMALL) as session:
        session.decode(TOKENS[:39], position=0, logits="last")
        kept = session.all_logits()
        assert kept.shape == (1, 256)
        assert kept.base is None or kept.base.size == 256  # a row of its own, not a view of 16
        assert np.allclose(kept[0], TRUTH[38], **NEAR)
        session.decode(TOKENS[39:], position=39)
        assert np.allclose(session.logits(), TRUTH[39], **NEAR)


def test_nothing_kept_of_none(model: Path):
    with RUNTIME.open(model, SMALL) as session:
        session.decode(TOKENS[:5], position=0, logits="none")
        with pytest.raises(EngineError, match="kept 0"):
            session.logits()
        session.decode(TOKENS[5:6], position=5)
        assert np.allclose(session.logits(), TRUTH[5], **NEAR)


def test_truncate_clear(model: Path):
    with RUNTIME.open(model, SMALL) as session:
        session.decode(TOKENS[:30], position=0, logits="none")
        session.truncate(10)
        session.decode([7, 8, 9], position=10)  # another end
        session.truncate(10)
        session.decode(TOKENS[10:12], position=10)
        assert np.allclose(session.logits(), TRUTH[11], **NEAR)
        assert session.length() == 12
        session.clear()
        session.decode(TOKENS[:3], position=0)
        assert np.allclose(session.logits(), TRUTH[2], **NEAR)


def test_bound_cache_equals_plain_runs_bit_by_bit(model: Path):
    """The same steps with arrays in and out of every run."""
    plain = ort.InferenceSession(str(model))
    ports = decoder_ports(plain.get_inputs(), plain.get_outputs(), "m")
    past = {name: np.zeros((1, 1, 0, 32), np.float32) for name in ports.past}
    with RUNTIME.open(model, SMALL) as session:
        position = 0
        for size in (9, 1, 1, 4, 1):
            tokens = TOKENS[position : position + size]
            feeds = {
                "input_ids": np.array([tokens]),
                "attention_mask": np.ones((1, position + size), np.int64),
                "position_ids": np.arange(position, position + size)[None],
                **({"num_logits_to_keep": np.array(1)} if "num_logits_to_keep" in ports.inputs else {}),
                **past,
            }
            outputs = dict(zip((o.name for o in plain.get_outputs()), plain.run(None, feeds), strict=True))
            past = {p.replace("present", "past_key_values"): outputs[p] for p in ports.present}
            session.decode(tokens, position=position)
            position += size
            assert np.array_equal(session.logits(), outputs["logits"][0, -1])


def test_engine_faults_are_said(model: Path):
    with RUNTIME.open(model, SMALL) as session:
        with pytest.raises(EngineError, match="has 0 tokens, got a batch at 3"):
            session.decode([1], position=3)
        with pytest.raises(EngineError, match="no room left"):
            session.decode([1] * 65, position=0)
        with pytest.raises(EngineError, match="keeps one sequence"):
            session.decode([1], position=0, sequence=1)
        with pytest.raises(RefusedError, match="keeps one sequence, got 2 rows"):
            session.decode_rows([1, 2], [0, 0], [0, 1])
        with pytest.raises(ValueError, match="none, last or all"):
            session.decode([1], position=0, logits="some")
        with pytest.raises(EngineError, match="failed on 1 tokens"):
            session.decode([999], position=0)


@pytest.mark.parametrize(("kind", "label"), [("int8", "int8 b32 a4"), ("int4", "int4 b32 a4")])
@pytest.mark.parametrize("fused", [False, True])
def test_quantized_decoders_run_and_are_named(tmp_path: Path, kind: str, label: str, fused: bool):
    path = write_tiny_decoder(tmp_path, WEIGHTS, fused=fused)
    quantize(path, int(kind[3:]))
    assert quantization(read_graph(path)) == label
    with RUNTIME.open(path, SMALL) as session:
        session.decode(TOKENS, position=0, logits="all")
        got = session.all_logits()
    # The largest of 32 normal weights is some 2.1 sigma, so a step of 4 bits is 2.1 / 8 = 0.26 sigma and its rounding
    # 0.26 / sqrt(12) = 7.6 %; five products in a row (v, o, v, o, head) make sqrt(5) x 7.6 % = 17 %, and the attention
    # scores add to it. 8 bits: a sixteenth of that, and as much again from the activations' own 8 bits.
    error = np.sqrt(np.mean((got - TRUTH) ** 2)) / TRUTH.std()
    assert 0 < error < (0.25 if kind == "int4" else 0.03)


def test_ports(tmp_path: Path):
    with RUNTIME.open(write_tiny_decoder(tmp_path, WEIGHTS), SMALL) as session:
        ports = session.ports
    assert ports.past == tuple(f"past_key_values.{i}.{k}" for i in (0, 1) for k in ("key", "value"))
    assert (ports.dtype, ports.sizes) == (np.float32, ((1, 32),) * 4)
    assert (sorted(ports.inputs), ports.vocab_count) == (["attention_mask", "input_ids", "position_ids"], 256)


def test_what_is_no_decoder_is_refused(tmp_path: Path):
    path = write_tiny_decoder(tmp_path, WEIGHTS)
    plain = ort.InferenceSession(str(path))
    inputs, outputs = ([SimpleNamespace(name=p.name, type=p.type, shape=p.shape) for p in ports] for ports in
                       (plain.get_inputs(), plain.get_outputs()))  # fmt: skip
    with pytest.raises(RefusedError, match="not a language model"):
        decoder_ports(inputs[1:], outputs, "m")
    with pytest.raises(RefusedError, match="no cache: export it with past"):
        decoder_ports(inputs[:3], outputs, "m")
    other = SimpleNamespace(name="use_cache_branch", type="tensor(bool)", shape=[1])
    with pytest.raises(RefusedError, match="'use_cache_branch'"):
        decoder_ports([other, *inputs], outputs, "m")
    with pytest.raises(RefusedError, match=r"without its output 'present\.1\.value'"):
        decoder_ports(inputs, outputs[:-1], "m")
    inputs[-1].shape = [*inputs[-1].shape[:3], "kv_cache_dim"]
    with pytest.raises(RefusedError, match=r"expected \[batch, heads, tokens, head size\]"):
        decoder_ports(inputs, outputs, "m")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(BadDataError, match="the model's tokenizer"):
        RUNTIME.open(path, SMALL)
